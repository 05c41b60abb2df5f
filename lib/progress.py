"""What a person watches while a matrix runs: a bar for the run, from its own metrics, and one for the matrix with its
ETA. Where the output is no terminal, a line a run."""

import contextlib
import json
import sys
import time

from tqdm import tqdm

from lib.record import held_out
from lib.rundir import RunDir


class Progress:
    """`poll(job)` while a job runs, `ended(job, status)` when it has ended."""

    def __init__(self, total: int):
        self.total, self.count = total, 0
        self.terminal = sys.stderr.isatty()

    def __enter__(self):
        self.matrix = tqdm(total=self.total, unit="run", desc="matrix", position=1, disable=not self.terminal)
        self._reset()
        return self

    def __exit__(self, *exc):
        self._reset()
        self.matrix.close()

    def _reset(self, job=None):
        if getattr(self, "bar", None) is not None:
            self.bar.close()
        self.bar, self.job, self.read, self.last, self.begun = None, job, 0, None, time.monotonic()

    def poll(self, job) -> None:
        """Read what the run has added to its metrics since the last look."""
        if job is not self.job:
            self._reset(job)
        path = RunDir(job.run_dir).metrics
        if path.exists():
            with path.open() as f:
                f.seek(self.read)
                while (line := f.readline()).endswith("\n"):
                    self.read = f.tell()
                    with contextlib.suppress(ValueError, KeyError):  # a bar is no reason to end a matrix
                        self._show(json.loads(line))
        self.matrix.refresh()

    def _show(self, row: dict) -> None:
        if row["event"] == "start":
            name = self.job.run_dir.name
            self.bar = tqdm(
                total=row["steps"], unit="step", desc=name, position=0, leave=False, disable=not self.terminal
            )
        elif row["event"] == "epoch" and self.bar is not None:
            if row["validation_loss"] is not None:
                self.last = f"validation {held_out(row).strip()} at {100 * row['sparsity']:.0f}% sparsity"
                self.bar.set_postfix_str(self.last, refresh=False)
            self.bar.update(row["step"] - self.bar.n)

    def ended(self, job, status) -> None:
        self.poll(job)
        self.count += 1
        seconds = time.monotonic() - self.begun
        run = RunDir(job.run_dir)
        what = (
            self.last or ""
            if status.state == "done"
            else f"{status.state}; see {run.error if run.error.exists() else run.log}"
        )
        self._reset()
        if not self.terminal or status.state != "done":
            line = f"[{self.count}/{self.total}] {run.path.name}: {what} ({seconds:.1f} s)"
            tqdm.write(line, file=sys.stderr)
        self.matrix.update()
