"""The contract of an executor: success, failure, timeout, cancel, whatever the job does to itself."""

import os
import signal
import time
from pathlib import Path

import pytest

from lib.executor.base import EXECUTORS, Job

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
        "import subprocess, time\np = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(p.pid))\ntime.sleep(60)"
    )
    started = time.monotonic()
    found = statuses(name, [job(tmp_path / "slow", code, timeout_s=1.0), job(tmp_path / "next", "pass")])
    assert [s.state for _, s in found] == ["timeout", "done"]
    assert time.monotonic() - started < 20
    assert gone(int(pid_file.read_text()))


def gone(pid: int, patience_s: float = 5) -> bool:
    """Whether a process has ended (a zombie has) within `patience_s`."""
    deadline = time.monotonic() + patience_s
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
        "import time\ntry:\n    print('up', flush=True); time.sleep(60)\n"
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
    j = job(tmp_path / "a", f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    code = (
        "from pathlib import Path\nfrom lib.executor.base import EXECUTORS, Job\n"
        f"list(EXECUTORS[{name!r}]().run([Job(Path({str(j.run_dir)!r}), {j.argv!r})]))"
    )
    asker = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
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
        statuses(name, [job(tmp_path / "a", "import time; time.sleep(60)")], poll=poll, imports=("slow_to_import",))
    assert time.monotonic() - started < 20
    assert not (tmp_path / "a" / "output.log").exists()
