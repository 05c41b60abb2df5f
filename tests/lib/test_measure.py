"""What the monitor's record of a run comes to: whose energy, which memory, in which phase."""

import pytest

from lib import costs, measure, report
from lib.records import Gpu, Ledger, Memory, Outcome, Predicted, Summary
from lib.results import Run
from lib.schema import blank, field_names

GPUS = [
    {"vendor": "nvidia", "index": 0, "uuid": "GPU-aaaa", "bus": "0000:07:00.0"},
    {"vendor": "nvidia", "index": 1, "uuid": "GPU-bbbb", "bus": "0000:0f:00.0"},
    {"vendor": "cpu", "index": 0},
]
HEADER = {"devices": GPUS, "marks": [(0.0, "load"), (1.0, "train"), (4.0, "evaluate")], "lost": 0}


def sample(t, phase, *readings):
    return {"t": t, "phase": phase, "devices": list(readings)}


def record():
    return [
        sample(0.0, "load", {"energy": 10}, {"energy": 100}, {"process_memory": 50}),
        sample(1.0, "train", {"energy": 20}, {"energy": 300, "process_memory": 7, "memory_used": 20}, {}),
        sample(2.0, "train", {"energy": 30}, {"energy": 500, "process_memory": 9, "memory_used": 30}, {}),
        sample(5.0, "evaluate", {"energy": 40}, {"energy": 600, "process_memory": 11, "memory_used": 40}, {}),
    ]


def data(**more):
    """A finished run of which no more is known."""
    return blank(Summary, {"status": "done", "test_accuracy_last": 50.0, **more})


@pytest.mark.parametrize(
    "gpus",
    [
        [Gpu(uuid="bbbb", bus=None)],  # as torch gives it
        [Gpu(uuid=None, bus="0000:0f:00.0")],
        None,  # then those that report the run's memory
    ],
)
def test_energy_is_that_of_the_devices_a_run_trained_on(gpus):
    found = measure.derived(data(gpus=gpus), HEADER, record())
    assert found["energy_j"] == 500
    assert found["energy_source"] == "counted by the device"
    assert found["energy_per_accuracy_point"] == 10


TRAIN = Memory(tensors={"weights": 3 << 20, "gradients": 1 << 20, "data": 9 << 20})
NOTHING = Predicted(classes={}, kept=0, multiple=1.0, less_than_movement_pct=0.0)
LEDGER = Ledger(phases={"train": TRAIN}, activations=None, predicted=NOTHING)
HOST_ALONE = {"devices": GPUS[2:], "marks": [], "lost": 0}


@pytest.mark.parametrize(
    ("header", "rows", "ledger", "want"),
    [
        (HOST_ALONE, [sample(1.0, "train", {"process_memory": 50})], LEDGER, (4.0, measure.TENSORS)),
        (HOST_ALONE, [sample(1.0, "train", {"process_memory": 50})], None, (None, None)),
        (HEADER, record(), LEDGER, (25 / 3, "NVIDIA process memory")),
        (HEADER, [], LEDGER, (None, None)),
    ],
)
def test_runs_are_compared_by_tensors_on_a_cpu_and_by_the_drivers_memory_on_a_gpu(header, rows, ledger, want):
    """Efficiency is of the same memory; the processes' own is kept beside it."""
    found = measure.derived(data(ledger=ledger), header, rows)
    assert (found["compared_memory"], found["compared_source"]) == (want[0] and pytest.approx(want[0]), want[1])
    efficiency = want[0] and pytest.approx(100 * 50.0 / want[0])
    assert found["efficiency_per_100mib"] == efficiency
    if header is HOST_ALONE:
        assert (found["train_memory_mean"], found["memory_source"]) == (50.0, measure.HOST)


def test_two_devices_add_up():
    both = [Gpu(uuid="aaaa", bus=None), Gpu(uuid="bbbb", bus=None)]
    assert measure.derived(data(gpus=both), HEADER, record())["energy_j"] == 530


def test_memory_is_over_training_until_the_next_mark():
    """A sample stands until the next one, or until another phase begins."""
    found = measure.derived(data(), HEADER, record())
    assert found["train_memory_mean"] == pytest.approx((7 * 1 + 9 * 2) / 3)  # evaluation begins at 4
    assert found["train_memory_max"] == 9
    assert found["memory_source"] == "NVIDIA process memory"
    assert found["memory_phases"]["train"] == {"process": 9, "device": 30}
    assert found["memory_phases"]["evaluate"] == {"process": 11, "device": 40}


def test_nothing_recorded():
    found = measure.derived(data(test_accuracy_last=None), {}, [])
    assert {v for k, v in found.items() if k not in ("memory_samples", "memory_phases")} == {None}


def test_the_report_says_what_it_cost():
    """Energy per run and point; the ladder with a GPU's columns, and where it breaks."""
    mib = 1 << 20
    memory = Memory(tensors={"weights": mib, "masks": 3}, allocated=20 * mib, reserved=12 * mib)
    predicted = Predicted(classes={"weights": mib}, kept=mib, multiple=1.0, less_than_movement_pct=20.0)
    ledger = Ledger(phases={"train": memory}, activations=None, predicted=predicted)
    found = measure.derived(data(ledger=ledger), HEADER, record())
    row = blank(Outcome, {"id": "a_run", "elapsed_s": 5.0, "ledger": ledger, **found})
    run = Run(**{name: getattr(row, name) for name in field_names(Outcome)})
    text = "\n".join(costs.classes([run], report.as_text))
    head, _, row = text.splitlines()
    assert head.split()[-4:] == ["allocated", "reserved", "process", "device"]
    assert row.split()[-4:] == ["20.0", "12.0", "9.0", "30.0"]
    told = "\n".join(costs.told([run]))
    assert "a_run: masks: 3 bytes, and 0 predicted" in told
    assert "a_run: in training allocated 20.0 MiB > reserved 12.0 MiB" in told
    assert "a_run: in training reserved 12.0 MiB > process 9.0 MiB" in told
    assert "20.0 / 9.0" in "\n".join(costs.phases([run], report.as_text))
