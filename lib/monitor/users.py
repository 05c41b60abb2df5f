"""Whose the processes on a device are, and which run of ours they belong to."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from lib.monitor.base import Process

SAMPLER = "lib.monitor.sampler"


@dataclass(frozen=True)
class User:
    """A process on a device: memory in MiB, utilization in percent; run: the id of the run that it belongs to, or
    None."""

    pid: int
    memory: float | None
    utilization: float | None
    owner: str
    command: str
    run: str | None


def described(processes: list[Process]) -> list[User]:
    runs = started_runs()
    return [one(p, runs) for p in processes]


def started_runs() -> dict[int, str]:
    """pid -> run id, of every run on this machine that has a sampler: its command line says both."""
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


def one(process: Process, runs: dict[int, str]) -> User:
    """What the system says of a process; of one in another container nothing."""
    import psutil

    owner = command = "?"
    run = runs.get(process.pid)
    with contextlib.suppress(psutil.Error, KeyError):
        p = psutil.Process(process.pid)
        owner, command = p.username(), " ".join(p.cmdline()) or p.name()
        while run is None and p is not None and p.pid > 1:
            run, p = runs.get(p.pid), p.parent()
    return User(process.pid, process.memory, process.utilization, clean(owner), clean(command), run and clean(run))


def clean(text: str) -> str:
    """Any process may call itself anything: bytes that are no text, or what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
