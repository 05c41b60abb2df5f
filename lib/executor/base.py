"""The seam between a matrix and whatever runs its jobs. It takes a command and a directory and knows nothing of ML."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lib.config import choice, number
from lib.registry import Registry


@dataclass(frozen=True)
class ExecutorOptions:
    executor: str = choice("local")
    run_timeout: int = number(0, low=0)


@dataclass(frozen=True)
class Job:
    """A Python script and its arguments, run in `run_dir`; output goes to run_dir/output.log. timeout_s 0 is none."""

    run_dir: Path
    argv: tuple[str, ...]
    timeout_s: float = 0


@dataclass(frozen=True)
class Status:
    """state: "done" (exit status 0), "failed", "timeout". code: exit status, or minus the signal that ended it."""

    state: str
    code: int | None = None


class Executor(Protocol):
    def run(self, jobs: list[Job]) -> Iterator[tuple[Job, Status]]:
        """Run the jobs and yield each as it ends. Closing the iterator, or an exception thrown into it
        (KeyboardInterrupt), interrupts what runs, waits for it, and starts nothing more."""


# name -> factory(imports: modules worth importing once, poll: called with the running job several times a second)
EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor", "lib.executor")
