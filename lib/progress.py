"""What a person watches while a matrix runs: a bar for the run, from its own metrics, and one for the matrix."""

import json

from tqdm import tqdm

from lib.rundir import RunDir


class Progress:
    """`poll(job)` while a job runs, `ended(job, status)` when it has ended."""

    def __init__(self, total: int):
        self.total = total

    def __enter__(self):
        self.matrix = tqdm(total=self.total, unit="run", desc="matrix", position=1, dynamic_ncols=True)
        self.bar, self.job, self.read = None, None, 0
        return self

    def __exit__(self, *exc):
        self._close()
        self.matrix.close()

    def _close(self):
        if self.bar is not None:
            self.bar.close()
        self.bar, self.job, self.read = None, None, 0

    def poll(self, job) -> None:
        """Read what the run has added to its metrics since the last look."""
        if job is not self.job:
            self._close()
            self.job = job
        path = RunDir(job.run_dir).metrics
        if not path.exists():
            return
        with path.open() as f:
            f.seek(self.read)
            while (line := f.readline()).endswith("\n"):
                self.read = f.tell()
                self._show(json.loads(line))
        self.matrix.refresh()

    def _show(self, row: dict) -> None:
        if row["event"] == "start":
            self.bar = tqdm(
                total=row["steps"], unit="step", desc=self.job.run_dir.name, position=0, leave=False, dynamic_ncols=True
            )
        elif row["event"] == "epoch" and self.bar is not None:
            accuracy = row["validation_accuracy"]
            if accuracy is not None:
                self.bar.set_postfix_str(f"{accuracy:.2f}% at {100 * row['sparsity']:.0f}% sparsity", refresh=False)
            self.bar.update(row["step"] - self.bar.n)

    def ended(self, job, status) -> None:
        self._close()
        if status.state != "done":
            tqdm.write(f"{job.run_dir.name}: {status.state}; see {RunDir(job.run_dir).error}")
        self.matrix.update()
