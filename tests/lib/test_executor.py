"""The contract of an executor: success, failure, timeout, cancel, whatever the job does to itself."""

import os
import signal
import time
from pathlib import Path

import pytest
from house import wait

from lib.executor.base import EXECUTORS, Job

SLEEP_S = 600  # of a job that does not end by itself, as far as these tests can see
pytestmark = pytest.mark.parametrize("name", EXECUTORS.names())


def job(folder: Path, code: str, timeout_s: float = 0) -> Job:
    folder.mkdir(exist_ok=True)
    script = folder / "job.py"
    script.write_text(code)
    return Job(folder, (str(script), "an argument"), timeout_s)


def statuses(name: str, jobs: list[Job], **options):
    return [(j.run_dir.name, s) for j, s in EXECUTORS[name](**options).run(jobs)]


def test_success_and_output(name, tmp_path):
    code = "import sys, os\nprint('out', sys.argv[1], os.getcwd())\nprint('err', file=sys.stderr)"
    [(_, status)] = statuses(name, [job(tmp_path / "a", code)])
    assert (status.state, status.code) == ("done", 0)
    assert (tmp_path / "a" / "output.log").read_text().splitlines() == [f"out an argument {tmp_path / 'a'}", "err"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(3)", 3),
        ("raise ValueError('of its own')", 1),
        ("raise SystemExit('a message')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os; os._exit(7)", 7),
    ],
)
def test_failure_is_reported_and_the_rest_still_runs(name, tmp_path, code, status):
    found = statuses(name, [job(tmp_path / "bad", code), job(tmp_path / "good", "pass")])
    assert [(n, s.state, s.code) for n, s in found] == [("bad", "failed", status), ("good", "done", 0)]


def test_timeout_ends_the_run_and_its_descendants(name, tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        f"import subprocess, time\np = subprocess.Popen(['sleep', '{SLEEP_S}'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\ntime.sleep({SLEEP_S})"
    )
    started = time.monotonic()
    found = statuses(name, [job(tmp_path / "slow", code, timeout_s=4.0), job(tmp_path / "next", "pass")])
    assert [s.state for _, s in found] == ["timeout", "done"]
    assert time.monotonic() - started < SLEEP_S / 2
    assert gone(int(pid_file.read_text()))


def gone(pid: int) -> bool:
    """Whether a process ends long before it would by itself (a zombie has ended)."""
    deadline = time.monotonic() + SLEEP_S / 2
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_cancel_interrupts_the_run_and_starts_no_other(name, tmp_path):
    code = (
        f"import time\ntry:\n    print('up', flush=True); time.sleep({SLEEP_S})\n"
        "except KeyboardInterrupt:\n    print('in order')\n    raise SystemExit(130)"
    )
    log = tmp_path / "one" / "output.log"

    def poll(_):
        if log.exists() and "up" in log.read_text():
            raise KeyboardInterrupt

    jobs = [job(tmp_path / "one", code), job(tmp_path / "two", "print('never')")]
    with pytest.raises(KeyboardInterrupt):
        statuses(name, jobs, poll=poll)
    assert log.read_text().splitlines() == ["up", "in order"]
    assert not (tmp_path / "two" / "output.log").exists()


def test_what_is_imported_once_is_there_in_every_run(name, tmp_path):
    code = "import sys\nprint('colorsys' in sys.modules)"
    jobs = [job(tmp_path / n, code) for n in "ab"]
    statuses(name, jobs, imports=("colorsys",))
    assert [(j.run_dir / "output.log").read_text() for j in jobs] == ["True\n", "True\n"]


def test_a_killed_asker_leaves_no_run_behind(name, tmp_path):
    """The matrix is killed outright: the job that was running is stopped, not orphaned."""
    import subprocess
    import sys

    pid_file = tmp_path / "pid"
    code = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep({SLEEP_S})"
    j = job(tmp_path / "a", code)
    code = (
        "from pathlib import Path\nfrom lib.executor.base import EXECUTORS, Job\n"
        f"list(EXECUTORS[{name!r}]().run([Job(Path({str(j.run_dir)!r}), {j.argv!r})]))"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    wait(lambda: pid_file.exists() and pid_file.read_text())
    os.kill(asker.pid, signal.SIGKILL)
    asker.wait()
    assert gone(int(pid_file.read_text()))


def test_cancel_while_the_imports_go_on_starts_nothing(name, tmp_path, monkeypatch):
    """Ctrl-C in the first seconds, when the request has been made and nothing runs yet."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def poll(_):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        statuses(
            name, [job(tmp_path / "a", f"import time; time.sleep({SLEEP_S})")], poll=poll, imports=("slow_to_import",)
        )
    assert time.monotonic() - started < SLEEP_S / 2
    assert not (tmp_path / "a" / "output.log").exists()
