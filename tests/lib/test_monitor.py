"""The monitor: backends that never raise and never invent, a sampler that outlives its run, files read as they are."""

import os
import subprocess
import sys
import time
from json import dumps
from types import SimpleNamespace

import pytest

from lib import results
from lib.config import InputError
from lib.monitor import stats
from lib.monitor.base import BACKENDS, MIB, Device, Sample
from lib.monitor.client import Monitor, MonitorOptions
from lib.monitor.nvidia import Nvidia
from lib.monitor.sampler import FIELDS, Readings, values


def lines(path):
    header, samples = stats.read(path)
    return [header, *samples]


@pytest.mark.parametrize("name", BACKENDS.names())
def test_backends_keep_the_protocol(name):
    backend = BACKENDS[name]
    assert backend.vendor == name
    if backend.probe():
        for device in backend.devices():
            assert isinstance(device, Device)
            assert isinstance(backend.sample(device, {os.getpid()}), Sample)


def test_the_host_reports_this_process():
    cpu = BACKENDS["cpu"]
    assert cpu.probe()
    [device] = cpu.devices()
    own = cpu.sample(device, {os.getpid()}).process_memory
    assert 5 < own < cpu.sample(device, set()).memory_used < device.memory_total
    assert cpu.sample(device, set()).process_memory is None
    assert cpu.sample(device, {2**22 - 3}).process_memory is None  # no such process: unknown, not 0


class NVMLError(Exception):
    pass


def nvml(**refused):
    """NVML as a driver answers, with some queries refused; the shapes are those of nvml.h (nvmlUtilization_t,
    nvmlMemory_t, nvmlProcessInfo_t)."""
    answers = {
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetName": "NVIDIA A100",
        "nvmlDeviceGetUUID": "GPU-1",
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * MIB, used=8 * MIB),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=42),
        "nvmlDeviceGetPowerUsage": 61500,
        "nvmlDeviceGetEnforcedPowerLimit": 400_000,
        "nvmlDeviceGetTotalEnergyConsumption": 12_500,
        "nvmlDeviceGetCudaComputeCapability": (8, 0),
        "nvmlDeviceGetFanSpeed": 30,
        "nvmlDeviceGetClockInfo": 1410,
        "nvmlDeviceGetTemperature": 33,
        "nvmlDeviceGetComputeRunningProcesses": [
            SimpleNamespace(pid=1, usedGpuMemory=3 * MIB),
            SimpleNamespace(pid=2, usedGpuMemory=4 * MIB),
        ],
    }

    def query(name):
        def ask(*_):
            if refused.get(name):
                raise NVMLError(name)
            return refused.get(name, answers[name]) if name in refused else answers[name]

        return ask

    names = {"NVML_TEMPERATURE_GPU": 0, "NVML_CLOCK_SM": 1, "NVML_CLOCK_MEM": 2}
    return SimpleNamespace(NVMLError=NVMLError, **names, **{n: query(n) for n in answers})


def nvidia(**refused) -> tuple[Nvidia, Device]:
    backend = Nvidia()
    backend.nvml = nvml(**refused)
    return backend, backend.devices()[0]


def test_nvidia_reads_the_runs_own_processes():
    backend, device = nvidia()
    assert device == Device("nvidia", 0, "NVIDIA A100", "GPU-1", 80.0, 400.0, 8.0)
    assert backend.sample(device, {2, 99}) == Sample(42, 8.0, 4.0, 33, 61.5, 30, 1410, 1410, 12.5)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nvmlDeviceGetUtilizationRates", "utilization"),
        ("nvmlDeviceGetMemoryInfo", "memory_used"),
        ("nvmlDeviceGetPowerUsage", "power"),
        ("nvmlDeviceGetTemperature", "temperature"),
        ("nvmlDeviceGetComputeRunningProcesses", "process_memory"),
        ("nvmlDeviceGetFanSpeed", "fan"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy"),
    ],
)
def test_what_the_driver_refuses_is_unknown(query, field):
    backend, device = nvidia(**{query: True})
    sample = backend.sample(device, {1})
    assert [name for name, value in vars(sample).items() if value is None] == [field]


def test_a_lost_device_is_unknown():
    backend, device = nvidia()
    backend.nvml = nvml(nvmlDeviceGetHandleByIndex=True)
    assert backend.sample(device, {1}) == Sample()


def test_a_run_of_a_moment_has_its_phases(tmp_path):
    out = tmp_path / "monitor.jsonl"
    with Monitor(MonitorOptions(monitor_interval=5.0), out) as monitor:
        monitor.phase("load")
        monitor.phase("train")
        time.sleep(1.0)
    header, *samples = lines(out)
    assert header["pid"] == os.getpid()
    assert header["devices"][-1]["vendor"] == "cpu" or header["devices"][0]["vendor"] == "cpu"
    phases = [s["phase"] for s in samples]
    assert phases[0] in ("start", "load")
    assert "train" in phases
    assert phases[-1] == "end"
    assert all(a["t"] <= b["t"] for a, b in zip(samples, samples[1:], strict=False))
    assert all(len(line) < 230 for line in out.read_text().splitlines()[1:])


def test_the_sampler_outlives_a_crash_and_leaves_itself_out(tmp_path):
    """The run is killed: the samples before it are there, and the sampler ends by itself."""
    out, code = tmp_path / "m.jsonl", (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from lib.monitor.client import Monitor, MonitorOptions\n"
        "m = Monitor(MonitorOptions(monitor_interval=0.1), Path(sys.argv[1])).__enter__()\n"
        "m.phase('train'); print(m.process.pid, flush=True)\n"
        "time.sleep(1.5); os.kill(os.getpid(), signal.SIGKILL)"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert done.returncode == -9
    deadline = time.monotonic() + 10
    while lines(out)[-1]["phase"] != "end" and time.monotonic() < deadline:
        time.sleep(0.1)
    header, *samples = lines(out)
    assert samples[-1]["phase"] == "end"
    i = [d["vendor"] for d in header["devices"]].index("cpu")
    during = [s["devices"][i]["process_memory"] for s in samples if s["phase"] == "train"]
    assert len(during) >= 4
    assert max(during) < 60  # an interpreter alone; with the sampler's own memory it would be about twice that


def test_no_monitor_when_it_is_off(tmp_path):
    with Monitor(MonitorOptions(monitor=False), tmp_path / "m") as monitor:
        monitor.phase("train")
    assert not (tmp_path / "m").exists()


def test_a_dead_sampler_does_not_end_the_run(tmp_path, capfd):
    with Monitor(MonitorOptions(), tmp_path / "m") as monitor:
        monitor.process.kill()
        monitor.process.wait()
        monitor.phase("train")
        monitor.phase("evaluate")
    assert capfd.readouterr().err.count("the run goes on without it") == 1


def test_a_torn_last_line_is_passed_over_and_damage_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"b": 2')
    assert list(results.json_lines(path)) == [{"a": 1}]
    path.write_text('{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(ValueError, match="m.jsonl: a damaged line"):
        list(results.json_lines(path))


def test_a_backend_that_fails_says_so_once_and_the_others_go_on(capsys):
    class Broken:
        def sample(self, device, pids):
            raise OSError("the bus is gone")

    class Whole:
        def sample(self, device, pids):
            return Sample(utilization=1.0)

    readings = Readings([(Broken(), Device("amd", 0)), (Whole(), Device("cpu", 0))])
    none = [None] * len(FIELDS)
    assert [readings.of({1}) for _ in range(3)] == [[none, [1, *none[1:]]]] * 3
    assert capsys.readouterr().err == "monitor: amd 0 gives no readings: the bus is gone\n"


def test_what_is_read_is_what_was_written(tmp_path):
    """A torn last line is passed over; a file of another kind is refused."""
    full = Sample(99.94, 80000.04, 12345.6, 71, 350.27, 41, 1980, 2619, 123456789.04)
    header = {"schema": stats.SCHEMA, "fields": FIELDS, "devices": [{}, {}]}
    line = {"t": 86399.123, "phase": "checkpoint", "devices": [values(full), values(Sample(power=2.0))]}
    path = tmp_path / "m.jsonl"
    text = [dumps(row, separators=(",", ":")) for row in (header, line, line)]
    assert len(text[1]) < 230  # the budget of one device, and here are two
    path.write_text("\n".join(text)[:-5])
    found, [sample] = stats.read(path)
    assert found == header
    assert sample["devices"] == [{k: pytest.approx(v, abs=0.06) for k, v in vars(full).items()}, {"power": 2}]
    path.write_text('{"schema": 1}\n')
    with pytest.raises(InputError, match="m.jsonl is no record of this version of the monitor"):
        stats.read(path)
    assert stats.read(tmp_path / "none") == ({}, [])
