"""The ledger: what is predicted of a run's memory is what its tensors take, byte for byte."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from train_kit import prepare, run

from lib import build, ledger
from lib.footprint import Footprint, sizes
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS
from lib.records import Gpu, Ledger, Memory, Predicted
from lib.spec import RunSpec

ALL, PRUNABLE = 61_750, 61_470
METHODS = [m for m in PRUNERS if m != "none"]
NOTHING = Predicted(classes={}, kept=0, multiple=0.0, less_than_movement_pct=0.0)


def pairs():
    for method in METHODS:
        only = PRUNERS[method].pairs_with
        for name in sorted(only) if only else ("sgd", "adamw"):
            yield name, method
    for name in OPTIMIZERS:
        yield name, "none"


@pytest.mark.parametrize("name, method", list(pairs()))
def test_tensors_are_what_is_predicted(tmp_path, name, method):
    sparsity = "" if method == "none" else "0.5"
    found = run(tmp_path, name, method, sparsity, MAX_ITERS="6").ledger
    assert list(ledger.unequal(found)) == []
    tensors = found.tensors()
    assert tensors["weights"] == tensors["gradients"] == 4 * ALL
    assert tensors["buffers"] == 44 * 4 + 2 * 8  # means, variances and two counters
    assert tensors["data"] > 0
    assert "gradients" not in found.tensors("evaluate")


@pytest.mark.parametrize(
    "settings", [{"ADAMWPRUNE_AMSGRAD": "y"}, {"ADAMWPRUNE_BASE_ADAMWADV": "y"}, {"ADAMWPRUNE_BASE_ADAMWSPAM": "y"}]
)
def test_what_a_base_keeps(tmp_path, settings):
    found = run(tmp_path, "adamwprune", "state", "0.5", MAX_ITERS="20", **settings).ledger
    assert list(ledger.unequal(found)) == []
    assert ("max_exp_avg_sq" in found.predicted.classes) == ("ADAMWPRUNE_BASE_ADAMWSPAM" not in settings)


def test_momentum_of_none_is_none(tmp_path):
    found = run(tmp_path, "sgd", SGD_MOMENTUM="0", MAX_ITERS="2").ledger
    assert list(ledger.unequal(found)) == []
    assert set(found.predicted.classes) == {"weights", "gradients"}


def test_phases_of_a_run(tmp_path):
    found = run(tmp_path, "adamw", "movement", "0.5", MAX_ITERS="30", INFERENCE_TEST="y").ledger.phases
    assert set(found) == {"train", "prune", "evaluate", "checkpoint", "test", "inference", "finish"}
    assert set(found["inference"].tensors) == {"weights", "buffers", "data"}  # the rest has been let go
    assert {"scores", "frozen", "masks", "exp_avg"} < set(found["prune"].tensors)


@pytest.mark.parametrize("micro", ["0", "16"])
def test_activations_are_what_a_backward_pass_needs(tmp_path, micro):
    """They grow with the batch that goes through at once, and counting them changes no bit."""
    whole = run(tmp_path / "a", "sgd", MAX_ITERS="3", LENET5_MICRO_BATCH=micro)
    known = whole.ledger.activations
    assert known > 4 * 16 * 32 * 32  # its input at least
    single = run(tmp_path / "b", "sgd", MAX_ITERS="1", LENET5_MICRO_BATCH=micro)
    assert single.ledger.activations == known
    if micro != "0":
        larger = run(tmp_path / "c", "sgd", MAX_ITERS="1").ledger.activations
        assert 3.3 < larger / known < 4  # a go's input is a view of the whole batch


def test_watching_changes_nothing(tmp_path, monkeypatch):
    watched = run(tmp_path / "a", "adamw", "magnitude", "0.5", MAX_ITERS="6")
    monkeypatch.setattr(Footprint, "watching", lambda self, loss: loss)
    monkeypatch.setattr(Footprint, "stepping", lambda self: None)
    plain = run(tmp_path / "b", "adamw", "magnitude", "0.5", MAX_ITERS="6")
    assert all(torch.equal(a, b) for a, b in zip(*(r.last()["model"].values() for r in (watched, plain)), strict=True))


def test_a_storage_counts_once():
    t = torch.zeros(10)
    assert list(sizes([t, t[2:], t.view(2, 5)], set())) == [40]


def test_the_prediction_is_the_seeds_arithmetic(tmp_path):
    """LeNet-5: movement adds scores, kept values and a mask to weights and two moments; state pruning adds nothing."""
    _, config, spec = prepare(tmp_path, "adamwprune", "state", "0.5")
    found = ledger.compared(spec, config, ALL, PRUNABLE)
    movement = 12 * ALL + 9 * PRUNABLE
    assert found.kept == 12 * ALL
    assert found.multiple == 3
    assert found.less_than_movement_pct == pytest.approx(100 * (1 - 12 * ALL / movement))
    _, config, spec = prepare(tmp_path, "sgd", "movement", "0.5")
    found = ledger.compared(spec, config, ALL, PRUNABLE)
    assert found.less_than_movement_pct == 0
    assert found.multiple == pytest.approx((8 * ALL + 9 * PRUNABLE) / (4 * ALL))


def test_the_ladder_and_where_it_breaks():
    mib = 1 << 20
    memory = Memory(tensors={"weights": 3 * mib}, allocated=5 * mib, reserved=4 * mib)
    found = Ledger(phases={"train": memory}, activations=None, predicted=NOTHING)
    steps = ledger.ladder(found, 9.0, None)
    assert steps == {"tensors": 3, "allocated": 5, "reserved": 4, "process": 9, "device": None}
    assert list(ledger.broken(steps)) == ["allocated 5.0 MiB > reserved 4.0 MiB"]
    assert list(ledger.broken(ledger.ladder(replace(found, phases={}), None, 7.0))) == []


def test_a_class_that_nobody_predicted_is_named():
    memory, predicted = Memory(tensors={"weights": 8, "masks": 2}), replace(NOTHING, classes={"weights": 8})
    found = Ledger(phases={"train": memory}, activations=None, predicted=predicted)
    assert list(ledger.unequal(found)) == ["masks: 2 bytes, and 0 predicted"]


def samples(**readings):
    """One device's, a second apart; None is not reported."""
    rows = zip(*readings.values(), strict=True)
    names = list(readings)
    return [
        {"t": float(t), "phase": "train", "devices": [{k: v for k, v in zip(names, row, strict=True) if v is not None}]}
        for t, row in enumerate(rows)
    ]


def test_energy_is_counted_or_integrated_or_unknown():
    assert ledger.energy([0], samples(energy=[100, None, 130, 5], power=[1, 2, 3, 4])) == (35, "counted by the device")
    assert ledger.energy([0], samples(energy=[None] * 3, power=[10, 20, 20])) == (35, "from samples of its power")
    assert ledger.energy([0], samples(power=[None, 5])) == (None, None)
    assert ledger.energy([], samples(power=[5, 5])) == (None, None)


def test_spec_has_a_base_only_where_there_is_one():
    assert ledger.optimizer(RunSpec(model="m", dataset="d", optimizer="sgd", pruning_method="none"))[1] == ""


def test_peaks_of_the_allocator_are_those_of_each_phase(monkeypatch):
    """On a GPU: the highest of every time that a phase was in, reset in between. No GPU is at hand, so its counters
    are played."""
    none = SimpleNamespace(train=None, validation=None, test=None)
    nothing = SimpleNamespace(parameters=list, buffers=list)
    run = SimpleNamespace(
        device=torch.device("cuda"), parallel=nothing, model=nothing, optimizer=None, pruner=None, data=none
    )
    peaks, resets = iter([(5, 8), (2, 8), (7, 9), (1, 9)]), []
    now = [0, 0]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: now[0])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: now[1])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(1))
    footprint = Footprint(run)
    for phase in ("train", "evaluate", "train", "evaluate"):
        footprint.enter(phase)
        now[:] = next(peaks)
    found = footprint.report()
    assert found["phases"]["train"] == Memory(allocated=7, reserved=9)
    assert found["phases"]["evaluate"] == Memory(allocated=2, reserved=9)
    assert len(resets) == 4


def test_a_runs_gpus_are_named_as_the_monitor_knows_them(monkeypatch):
    props = SimpleNamespace(uuid="8a1c", pci_domain_id=0, pci_bus_id=0xC1, pci_device_id=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: props)
    gpu = torch.device("cuda")
    assert build.gpus(gpu, 2) == [Gpu(uuid="8a1c", bus="0000:c1:00.0")] * 2
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())  # an older torch
    assert build.gpus(gpu, 1) == [Gpu(uuid=None, bus=None)]
    assert build.gpus(torch.device("cpu"), 1) == []
