"""Whose the processes on a device are, and which run of ours they belong to."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from lib.monitor.base import Process
from lib.monitor.source import Tree
from lib.sanitize import printable_line

SAMPLER = "lib.monitor.sampler"
FRESH = 10.0  # seconds that what is known of a process is taken to hold; it may call exec


@dataclass(frozen=True)
class User:
    """A process on a device: memory in MiB, utilization in percent; name: of its program; command: the whole command
    line, which may hold secrets; run: the id of the run that it belongs to, or None."""

    pid: int
    memory: float | None
    utilization: float | None
    owner: str
    name: str
    command: str
    run: str | None


@dataclass(frozen=True)
class Facts:
    """What the system says of a process, and when it was asked, in seconds on a monotonic clock."""

    owner: str
    name: str
    command: str
    asked: float


_known: dict = {}  # psutil.Process, which knows its start -> Facts


def described(processes: list[Process]) -> list[User]:
    """Return what the system says of processes: those of runs first, and of each the most memory first."""
    runs = run_members()
    found = [describe(p, runs.get(p.pid)) for p in processes]
    gone = [p for p in _known if time.monotonic() - _known[p].asked > 2 * FRESH]
    for p in gone:
        del _known[p]
    return sorted(found, key=lambda u: (u.run is None, -(u.memory or 0), -(u.utilization or 0)))


def run_members() -> dict[int, str]:
    """Return pid -> run id of the processes of every run on this machine that has a sampler, descendants included."""
    found = {}
    for pid, run in started_runs().items():
        tree = Tree([pid])
        found |= dict.fromkeys({pid, *tree.below(pid)}, run)
    return found


def started_runs() -> dict[int, str]:
    """Return pid -> run id of every run on this machine that has a sampler: its command line says both."""
    import psutil

    found = {}
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ValueError, IndexError):
            line = p.cmdline()
            if SAMPLER in line:
                out = Path(line[line.index("--out") + 1])
                after = line[line.index("--pid") + 1 :]
                pids = after[: next((i for i, word in enumerate(after) if word.startswith("--")), len(after))]
                found |= {int(pid): out.parent.name for pid in pids}
    return found


def describe(process: Process, run: str | None) -> User:
    """Return what the system says of a process; of one in another container nothing."""
    import psutil

    facts = None
    with contextlib.suppress(psutil.Error, KeyError):
        p = psutil.Process(process.pid)
        facts = _known.get(p)
        if facts is None or time.monotonic() - facts.asked > FRESH:
            with p.oneshot():
                name, owner = p.name(), p.username()
            command = " ".join(p.cmdline()) or name
            facts = Facts(*map(printable_line, (owner, name, command)), time.monotonic())
            _known[p] = facts
    known = (facts.owner, facts.name, facts.command) if facts else ("?", "?", "?")
    return User(process.pid, process.memory, process.utilization, *known, run and printable_line(run))
