"""NVML, replayed from traces (tests/fixtures/nvml): what is read, what a driver refuses, what gets lost."""

import json
import shutil
import subprocess

import pynvml
import pytest

from lib.monitor.base import Device, Process, Sample
from lib.monitor.nvidia import Nvidia
from lib.monitor.source import Readings
from tests.lib.nvml_trace import FIXTURES, Recorder, Replay

GIB = 1024
TRACES = sorted(p.stem for p in FIXTURES.glob("*.json"))
STEADY = [t for t in TRACES if '"then"' not in (FIXTURES / f"{t}.json").read_text()]


def nvidia(trace: str, times=(10.0, 12.0, 14.0)) -> Nvidia:
    clock = iter([*times, *[times[-1]] * 9])
    backend = Nvidia(clock=lambda: next(clock))
    backend.nvml = Replay.of(trace)
    return backend


def missing(sample: Sample) -> set[str]:
    return {name for name, value in vars(sample).items() if value is None}


def test_two_linked_cards():
    backend = nvidia("a100x2")
    first, second = backend.devices()
    assert first == Device(
        "nvidia", 0, "NVIDIA A100-SXM4-80GB", "GPU-00000000-aaaa-bbbb-cccc-dddddddddddd", 80 * GIB, 400.0, 8.0,
        "0000:07:00.0", "PCIe 4 x16", 12,
    )  # fmt: skip
    assert (second.id, second.bus) == ("nvidia 1", "0000:0f:00.0")
    found = backend.sample(first, {2, 99})
    expected = Sample(42, 8 * GIB, 4.0, 33, 61.5, None, 1410, 1593, 12.5, None, 41, 20.0, 1.0)
    assert found == expected  # no fan, and NVLink's counters have nothing to compare with yet
    assert backend.sample(first, {2}).nvlink_tx == pytest.approx(500 / 2)  # MiB over two seconds
    assert backend.sample(second, {5}).process_memory is None  # not ours: unknown, not 0


@pytest.mark.skipif(not hasattr(pynvml, "NVML_FI_DEV_PCIE_COUNT_TX_BYTES"), reason="an older nvidia-ml-py")
def test_pcie_by_counters_and_their_wrap():
    backend = nvidia("counters")
    [device] = backend.devices()
    found = [(s.pcie_tx, s.pcie_rx) for s in (backend.sample(device, set()) for _ in range(3))]
    assert found == [(None, None), (25.0, 5.0), (None, 5.0)]


def test_pcie_is_asked_at_most_once_a_second():
    backend = nvidia("a100x2", times=(10.0, 10.5, 11.1))
    device = backend.devices()[0]
    asked = []
    real = backend.nvml.answer
    backend.nvml.answer = lambda call: (asked.append(call.split()[0]), real(call))[1]
    for _ in range(3):
        assert backend.sample(device, set()).pcie_tx == 20
    assert asked.count("nvmlDeviceGetPcieThroughput") == 4


def test_a_card_lost_in_mid_query(capsys):
    backend = nvidia("lost")
    backend.probe = lambda: True
    readings = Readings([backend])
    [found] = readings.of({1})
    assert (found.utilization, found.memory_used) == (42, 8 * GIB)
    assert missing(found) == set(vars(Sample())) - {"utilization", "memory_used"}
    assert [readings.of({1}) for _ in range(2)] == [[Sample()]] * 2
    err = capsys.readouterr().err
    assert err == "monitor: nvidia 0 gives no readings: it has gone, or may not be read\n"


def test_what_a_permission_refuses():
    backend = nvidia("permission")
    [device] = backend.devices()
    assert {"power", "energy", "process_memory"} <= missing(backend.sample(device, {1, 2}))
    assert backend.processes(device) == [Process(9, 5.0), Process(1), Process(2)]


def test_an_old_driver():
    backend = nvidia("old")
    [device] = backend.devices()
    assert device == Device(
        "nvidia", 0, "Tesla K80", "GPU-0ld0ld0l-aaaa-bbbb-cccc-dddddddddddd", 12 * GIB, bus="0000:04:00.0"
    )
    found = backend.sample(device, {1})
    assert (found.utilization, found.memory_used, found.temperature) == (7, GIB, 51)
    assert len(missing(found)) == len(vars(found)) - 3


def test_a_library_older_than_its_queries():
    backend = nvidia("a100x2")

    class Old:
        NVMLError = backend.nvml.NVMLError
        NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

        def __getattr__(self, name):
            if name in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"):
                return getattr(real, name)
            raise AttributeError(name)

    real, backend.nvml = backend.nvml, Old()
    device = backend.devices()[0]
    assert device == Device("nvidia", 0, memory_total=80 * GIB)
    assert missing(backend.sample(device, {1})) == set(vars(Sample())) - {"memory_used"}
    assert backend.processes(device) == []


def test_a_card_in_instances():
    """Each instance has its memory and its processes; the card has power and temperature; no process counts twice."""
    backend = nvidia("mig")
    card, large, small = backend.devices()
    assert (large.id, large.name, large.memory_total) == ("nvidia 0.0", "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 40 * GIB)
    assert (card.id, small.id, small.power_limit) == ("nvidia 0", "nvidia 0.1", None)
    found = [backend.sample(d, {1, 2}) for d in (card, large, small)]
    assert [s.process_memory for s in found] == [None, 100, 200]
    assert [s.power for s in found] == [61.5, None, None]
    assert found[0].utilization is None
    assert backend.processes(card) == []
    assert backend.processes(small) == [Process(2, 200.0)]


def test_processes_of_a_card():
    backend = nvidia("a100x2")
    device = backend.devices()[0]
    assert backend.processes(device) == [Process(9, 5.0), Process(1, 3.0), Process(2, 4.0, 30.0)]
    assert backend.processes(device) == [Process(9, 5.0), Process(1, 3.0), Process(2, 4.0)]  # nothing newer


@pytest.mark.parametrize("trace", TRACES)
def test_no_trace_raises(trace):
    backend = nvidia(trace)
    for device in backend.devices():
        for _ in range(3):
            assert isinstance(backend.sample(device, {1}), Sample)
        assert all(isinstance(p, Process) for p in backend.processes(device))


@pytest.mark.parametrize("trace", STEADY)
def test_what_is_recorded_replays(trace):
    """A recording of a replay answers as the replay did, so the recorder can be trusted on a machine with a GPU."""
    backend = nvidia(trace)
    backend.nvml = Recorder(backend.nvml)
    said = [(d, backend.sample(d, {1}), backend.processes(d)) for d in backend.devices()]
    again = nvidia(trace)
    again.nvml = Replay(json.loads(json.dumps({"calls": backend.nvml.calls})))
    for device, sample, processes in said:
        assert device in again.devices()
        assert again.sample(device, {1}) == sample
        assert again.processes(device) == processes
    assert said


def test_no_driver_is_no_device(monkeypatch):
    import pynvml

    def refuse():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    assert not Nvidia().probe()


@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="no NVIDIA driver here")
def test_nvml_against_nvidia_smi():
    """What does not change from one second to the next is the same; the rest is close."""
    names = "uuid,memory.total,pci.bus_id,pcie.link.width.max,memory.used,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits"]
    rows = [line.split(", ") for line in subprocess.check_output(command, text=True).strip().splitlines()]
    backend = Nvidia()
    assert backend.probe()
    cards = [d for d in backend.devices() if d.part is None]
    assert len(cards) == len(rows)
    for device, (uuid, total, bus, width, used, temperature) in zip(cards, rows, strict=True):
        found = backend.sample(device, set())
        assert device.uuid == uuid
        assert device.memory_total == pytest.approx(float(total), abs=1)
        assert bus.lower().endswith(device.bus)
        assert device.link is None or device.link.endswith(f" x{width}")
        assert found.memory_used == pytest.approx(float(used), abs=64)
        assert found.temperature == pytest.approx(float(temperature), abs=5)
