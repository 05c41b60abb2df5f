"""The monitor: backends that never raise and never invent, a sampler that outlives its run, files read as they are."""

import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
from house import wait
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.files import read_lines
from lib.monitor import source, stats
from lib.monitor.base import BACKENDS, Device, Process, Rates, Sample
from lib.monitor.client import Monitor, MonitorOptions
from lib.monitor.cpu import Cpu
from lib.monitor.sampler import MARKS, SHORT, Pace, Sampler
from lib.monitor.source import Readings, Tree


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


def test_a_run_of_a_moment_has_its_phases(tmp_path):
    out = tmp_path / "monitor.jsonl"
    begun = time.monotonic()
    with Monitor(MonitorOptions(monitor_interval=5.0), out) as monitor:
        monitor.phase("load")
        monitor.phase("train")
        said = time.monotonic() - begun
        wait(lambda: out.exists() and '"train"' in out.read_text())
    header, *samples = lines(out)
    assert header["pid"] == os.getpid()
    assert header["devices"][-1]["vendor"] == "cpu" or header["devices"][0]["vendor"] == "cpu"
    phases = [s["phase"] for s in samples]
    assert "train" in phases
    assert phases[-1] == "end"
    marks = {phase: t for t, phase in header["marks"]}
    assert list(marks) == ["load", "train", "end"]
    # When it was said, to a thousandth, not when the sampler was up.
    assert marks["load"] <= marks["train"] <= said + 1e-3 < marks["end"]
    assert all(a["t"] <= b["t"] for a, b in zip(samples, samples[1:], strict=False))
    assert all(len(line) < 230 for line in out.read_text().splitlines()[1:])


def test_the_sampler_outlives_a_crash_and_leaves_itself_out(tmp_path):
    """The run is killed: the samples before it are there, and the sampler ends by itself."""
    out, code = tmp_path / "m.jsonl", (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from lib.monitor.client import Monitor, MonitorOptions\n"
        "m = Monitor(MonitorOptions(monitor_interval=0.1), Path(sys.argv[1])).__enter__()\n"
        "m.phase('train')\n"
        "while not (m.out.exists() and m.out.read_text().count('train') > 6): time.sleep(0.05)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    assert done.returncode == -9
    wait(lambda: lines(out)[-1]["phase"] == "end")
    header, *samples = lines(out)
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
    assert list(read_lines(path)) == [{"a": 1}]
    path.write_text('{"a": 1}\n{"b": \n{"c": 3}\n')
    with pytest.raises(ValueError, match="m.jsonl: line 2: it is no JSON"):
        list(read_lines(path))


class Backend:
    """A vendor whose devices come and go as a test says."""

    def __init__(self, vendor="amd"):
        self.vendor, self.there, self.asked, self.fault = vendor, [], 0, None

    def probe(self):
        return bool(self.there)

    def devices(self):
        return list(self.there)

    def sample(self, device, pids):
        self.asked += 1
        if self.fault:
            raise self.fault
        return Sample(utilization=1.0) if device in self.there else Sample()

    def processes(self, device):
        return [Process(1)] if device in self.there else []


def test_a_backend_that_fails_says_so_once_and_the_others_go_on(capsys):
    broken, whole = Backend("amd"), Backend("cpu")
    broken.there, whole.there = [Device("amd", 0)], [Device("cpu", 0)]
    readings = Readings([broken, whole])
    broken.fault = OSError("the bus is gone")
    assert [readings.of({1}) for _ in range(3)] == [[Sample(), Sample(utilization=1.0)]] * 3
    assert capsys.readouterr().err == "monitor: amd 0 gives no readings: the bus is gone\n"


def test_devices_appear_and_vanish(tmp_path, capsys):
    """A record keeps its columns: who comes later stands last, who has gone is null."""
    backend = Backend()
    first, second = Device("amd", 0, uuid="a"), Device("amd", 0, uuid="b")  # the number passes on to the next
    backend.there = [first]
    readings = Readings([backend])
    assert readings.refresh(1.0) == []
    backend.there = [second]
    assert readings.refresh(source.REFRESH - 1) == []
    assert readings.refresh(source.REFRESH) == [second]
    assert readings.of(set()) == [Sample(), Sample(utilization=1.0)]
    assert readings.processes(second) == [Process(1)]
    assert "amd 0 gives no readings: it has gone" in capsys.readouterr().err


def test_a_sampler_writes_down_who_appears(tmp_path, monkeypatch):
    backend, now = Backend(), itertools.count(0.0, 20.0)
    monkeypatch.setattr("lib.monitor.sampler.Readings", lambda: Readings([backend]))
    with stats.Writer(tmp_path / "m") as writer:
        sampler = Sampler([os.getpid()], writer, 1.0, clock=lambda: next(now))
        sampler.sample()
        backend.there = [Device("amd", 0, uuid="a")]
        sampler.marked([b"load 25", b"train 30"])
        sampler.sample()
    header, samples = stats.read(tmp_path / "m")
    assert [d["uuid"] for d in header["devices"]] == ["a"]
    assert [s["devices"] for s in samples] == [[{}], [{"utilization": 1}], [{"utilization": 1}]]
    assert header["pid"] == os.getpid()
    assert [phase for _, phase in header["marks"]] == ["start", "load", "train"]


def test_the_clock_of_the_wall_may_jump(tmp_path, monkeypatch):
    """Times are of a monotonic clock; the wall's stands in the header alone."""
    wall = iter([1e9, 0.0, 2e9])
    monkeypatch.setattr(time, "time", lambda: next(wall))
    with stats.Writer(tmp_path / "m") as writer:
        sampler = Sampler([os.getpid()], writer, 1.0)
        for _ in range(3):
            sampler.sample()
    header, samples = stats.read(tmp_path / "m")
    assert header["started"] == 1e9
    times = [s["t"] for s in samples]
    assert times == sorted(times)
    assert times[-1] < 60


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([0.1, 1.0, 5.0]),
    st.lists(st.floats(0, 20), max_size=300),
    st.floats(SHORT, 600.0),
)
def test_marks_cost_a_tenth_at_most_in_a_run_of_over_a_minute(interval, gaps, end):
    """Whatever marks there are: at any time after a minute there are at most 10% more samples than intervals, and one
    comes at least every two intervals."""
    pace, t, taken = Pace(interval), 0.0, []
    marks = [m for m in itertools.accumulate(gaps) if m < end]
    while t < end:
        mark = marks[0] if marks else end
        t = min(mark, pace.due())
        if t == mark and marks:
            marks.pop(0)
            if pace.ahead(t):
                continue
        pace.took(t)
        taken.append(t)
    assert all(b - a <= 2 * interval + 1e-9 for a, b in itertools.pairwise(taken))
    late = [(n, t) for n, t in enumerate(taken, 1) if t >= SHORT]
    assert all(n <= 1.1 * t / interval + 2 for n, t in late)


def test_a_short_run_has_a_sample_at_every_mark():
    pace = Pace(1.0)
    for t in (0.0, 0.1, 0.4, 0.5, 0.9, 1.0, 1.3, 1.9, 2.0):
        assert not pace.ahead(t, new=False)
        pace.took(t)
    while not pace.ahead(2.1, new=False):
        pace.took(2.1)
    assert not pace.ahead(2.1, new=True)  # a phase that was not seen before has what others have to leave


def test_marks_are_written_up_to_a_rate():
    pace = Pace(1.0)
    written = sum(pace.writes(t / 100) for t in range(100_000))  # a thousand seconds of a mark every hundredth
    assert written <= MARKS * (1000 + SHORT)
    assert all(pace.writes(t) for t in range(2000, 2100))


def test_a_sampler_ends_with_its_run_though_a_fork_holds_its_input(tmp_path):
    """Killed without a word, and its descriptors live on in a process that it left behind."""
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from lib.monitor.client import Monitor, MonitorOptions\n"
        "m = Monitor(MonitorOptions(monitor_interval=0.1), Path(sys.argv[1])).__enter__()\n"
        "m.phase('train')\n"
        "while not (m.out.exists() and 'train' in m.out.read_text()): time.sleep(0.05)\n"
        "left = os.fork()\n"
        "if left == 0: os.close(1); os.close(2); time.sleep(3600); os._exit(0)\n"
        "print(left, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True)
    assert done.returncode == -9
    try:
        wait(lambda: lines(tmp_path / "m")[-1]["phase"] == "end")
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


@pytest.mark.parametrize("below", ["_searched", "_listed"])
def test_a_runs_processes_are_its_descendants(below):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    if below == "_listed" and Tree([1]).below.__name__ != below:
        pytest.skip("this kernel lists no children")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        tree = Tree([child.pid])
        tree.below = getattr(tree, below)
        wait(lambda: len(tree.pids()) == 2)
        assert child.pid in tree.pids()
        child.stdin.close()
    assert tree.pids() == set()


def test_energy_of_processors_and_where_its_counter_begins_anew(tmp_path):
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("10000000\n")
    clock = itertools.count(0.0, 2.0)
    cpu = Cpu(tmp_path, clock=lambda: next(clock))
    assert cpu.probe()
    found = []
    for uj in (9_000_000, 9_500_000, 500_000):
        (zone / "energy_uj").write_text(f"{uj}\n")
        s = cpu.sample(cpu.devices()[0], set())
        found.append((s.energy, s.power))
    assert found == [(0, None), (0.5, 0.25), (1.5, 0.5)]
    (zone / "energy_uj").unlink()  # no permission
    assert cpu.sample(cpu.devices()[0], set()).energy is None


def test_processes_of_the_host():
    cpu = BACKENDS["cpu"]
    assert cpu.probe()
    [device] = cpu.devices()
    mine = next(p for p in cpu.processes(device) if p.pid == os.getpid())
    assert mine.memory > 5
    assert mine.utilization is None  # nothing to compare with yet
    assert next(p for p in cpu.processes(device) if p.pid == os.getpid()).utilization is not None


def test_rates_are_gains_a_second():
    rates = Rates()
    assert [rates.of("a", v, t) for v, t in ((5, 1.0), (9, 3.0), (9, 3.0), (2, 4.0), (None, 5.0), (4, 6.0))] == [
        None, 2, None, None, None, None,
    ]  # fmt: skip


def test_a_sampler_that_hangs_does_not_hold_up_the_run(tmp_path):
    """Marks that nobody reads are lost once the pipe is full."""
    with Monitor(MonitorOptions(), tmp_path / "m") as monitor:
        os.kill(monitor.process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        for _ in range(5000):
            monitor.phase("train")
        assert time.monotonic() - begun < 60  # not for ever
        os.kill(monitor.process.pid, signal.SIGCONT)


def test_no_sampler_can_be_started(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with Monitor(MonitorOptions(), tmp_path / "m") as monitor:
        monitor.phase("train")
    assert "no sampler could be started, the run goes on without" in capsys.readouterr().err


def test_a_sampler_that_cannot_be_stopped_costs_no_run(tmp_path, monkeypatch, capsys):
    """Whatever waiting for it raises, and though it does not end when it is killed."""
    monkeypatch.setattr("lib.monitor.client.PATIENCE_S", 0.01)
    with Monitor(MonitorOptions(), tmp_path / "m") as monitor:
        process, wait, asked = monitor.process, monitor.process.wait, []
        for error in (OSError(5, "Input/output error"), subprocess.TimeoutExpired("sampler", 0.01)):

            def fails(timeout=None, error=error):
                asked.append(timeout)
                raise error

            monitor.process = process
            monkeypatch.setattr(process, "wait", fails)
            monitor.stop()
            assert "the sampler could not be stopped, the run goes on without it" in capsys.readouterr().err
        assert None not in asked  # it never waits for ever
    monkeypatch.setattr(process, "wait", wait)
    process.kill()
    process.wait()
