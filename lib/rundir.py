"""The on-disk contract: every file that a matrix writes.

test_matrix_results_YYYYMMDD_HHMMSS/
    config                  the matrix, complete, overrides included
    provenance.json         schema, commit, versions, host
    all_results.json        the results, one record a run
    summary_report.txt      the same as text
    report.md               the same as Markdown
    audit.json              how far the scores of state pruning agree on these runs, where `make audit` has been run
    graphs/*.png            and written.json, which of them the last report has written
    <run id>/
        config              the matrix pinned to this run: it reproduces it
        spec.json           the RunSpec
        metrics.jsonl       start, prune events, epochs, end
        monitor.jsonl       header line, samples and phase marks
        output.log          what the run printed
        checkpoint-last.pt  complete state after the last epoch
        checkpoint-best.pt  the best weights at the final sparsity, by validation
        error.txt           only where the run failed: why
        summary.json        written last and whole: its presence means that the run finished; with digests of the others

lib/records.py says what is in them.
"""

import contextlib
import json
import os
import shutil
import stat
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

from lib import ROOT, provenance
from lib.config import Config, InputError, why
from lib.files import Damaged, FileDigest, OtherSchema, check_file, file_digest, read_record, write_record
from lib.records import Metric, Origin, Summary
from lib.schema import plain
from lib.spec import RunSpec

PATTERN = "test_matrix_results_*"
# What a results directory holds beside its runs.
OWN = tuple(
    "config provenance.json all_results.json summary_report.txt report.md report.html audit.json graphs".split()
)


class RunDir:
    """One run's directory. Nothing in it is followed where it is a link, and nothing is written through one."""

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        self.config = self.path / "config"
        self.spec_file = self.path / "spec.json"
        self.metrics = self.path / "metrics.jsonl"
        self.monitor = self.path / "monitor.jsonl"
        self.log = self.path / "output.log"
        self.last = self.path / "checkpoint-last.pt"
        self.best = self.path / "checkpoint-best.pt"
        self.summary = self.path / "summary.json"
        self.error = self.path / "error.txt"
        self.files = (self.config, self.spec_file, self.metrics, self.monitor, self.last, self.best)

    def create(self, config: Config, spec: RunSpec, head: Sequence[str] = ()) -> "RunDir":
        """Make the directory, with its config, headed by these lines, and its spec. Raises InputError where it
        cannot be written."""
        self.refuse_foreign()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"cannot make {self.path}: {why(e)}") from None
        config.write(self.config, head)
        write_record(self.spec_file, spec)
        return self

    def spec(self) -> RunSpec:
        """Raises InputError where it cannot be read."""
        try:
            return read_record(RunSpec, self.spec_file)
        except FileNotFoundError:
            raise InputError(f"{self.path} is no run's directory: spec.json is missing") from None

    def read_summary(self) -> Summary:
        """The outcome of a finished run, whose other files are still what they were when it was written. Raises
        FileNotFoundError where the run has not finished, and Damaged."""
        found = read_record(Summary, self.summary)
        if found.status not in ("done", "diverged"):
            raise Damaged(self.summary, f"status: {found.status} is none of a run that came to its end")
        for path in (self.config, self.spec_file, self.metrics):
            if path.name not in found.files:
                raise Damaged(self.summary, f"files: {path.name} is missing")
            check_file(path, found.files[path.name])
        return found

    def digests(self) -> dict[str, FileDigest]:
        """What the files of the run are now: for its summary, so that a later change is noticed."""
        return {f.name: file_digest(f) for f in self.files if f.exists()}

    def foreign(self) -> Path | None:
        """The directory, or a file that a run writes, where it is a link or no regular file: what is written would go
        elsewhere, or wait for ever."""
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_dir()):
            return self.path
        parts = [self.path / f".{p.name}.part" for p in (self.last, self.best)]
        for path in (*self.files, self.log, self.summary, self.error, *parts):
            if path.is_symlink() or (path.exists() and not stat.S_ISREG(path.lstat().st_mode)):
                return path
        return None

    def refuse_foreign(self) -> None:
        """Raise Damaged where there is something foreign."""
        path = self.foreign()
        if path == self.path:
            raise Damaged(path, "it is a link or a file, and no directory of its own: remove it")
        if path:
            raise Damaged(path, "it is not a regular file, and a run writes there: remove it")

    def clear(self) -> None:
        """Forget an attempt that did not finish. Config and spec stay, and so does the log, which is being written.
        Raises InputError where a file cannot be removed."""
        for path in (self.metrics, self.monitor, self.last, self.best, self.error, self.summary):
            try:
                path.unlink(missing_ok=True)
            except OSError as e:
                raise InputError(f"cannot remove {path}: {why(e)}") from None


def append_metric(path: Path, row: Metric) -> None:
    """Add a line to metrics.jsonl. Raises InputError where it cannot be written."""
    try:
        with path.open("a") as f:
            f.write(json.dumps(plain(row)) + "\n")
    except OSError as e:
        raise InputError(f"cannot write {path}: {why(e)}") from None


def read_origin(root: Path) -> Origin:
    """Where a results directory came from. Raises InputError where it is none, or of another schema."""
    try:
        return read_record(Origin, root / "provenance.json")
    except OtherSchema as e:
        raise InputError(f"{e}: use the commit that wrote it (the file names it), or run the matrix again") from None
    except FileNotFoundError:
        raise InputError(f"{root} is no results directory of this program: provenance.json is missing") from None


def config_changed(root: Path, origin: Origin) -> str | None:
    """Why the matrix's config is not what the directory was made with; None where it is."""
    try:
        check_file(root / "config", origin.config)
    except Damaged as e:
        return f"config: {e.what}"
    return None


def new_root(results: str, config: Config) -> Path:
    """Make the results directory of a matrix. One that holds anything is refused, so that nothing is ever mixed."""
    root = place(results) if results else None
    while root is None or (not results and root.exists()):
        root = ROOT / f"test_matrix_results_{datetime.now():%Y%m%d_%H%M%S}"
        time.sleep(0.2 if root.exists() else 0)
    try:
        if root.exists() and not root.is_dir():
            raise InputError(f"RESULTS={results}: {root} is a file; name a directory")
        if root.exists() and any(root.iterdir()):
            raise InputError(
                f"RESULTS={results}: {root} is not empty. `make continue RESULTS={results}` goes on with results that "
                f"are there; for a new matrix name another directory"
            )
        root.mkdir(parents=True, exist_ok=bool(results))
        if not os.access(root, os.W_OK):
            raise PermissionError(13, "Permission denied")
        config.write(root / "config")
        where = {f.name: getattr(provenance.collect(), f.name) for f in fields(provenance.Provenance)}
        write_record(root / "provenance.json", Origin(**where, config=file_digest(root / "config"), not_compiled={}))
    except OSError as e:
        raise InputError(
            f"cannot write results to {root}: {e.strerror or e}; name another place with RESULTS="
        ) from None
    return root


def amend_origin(root: Path, **changes) -> None:
    """Change what a results directory says of where it came from, and take its config as it is now."""
    amended = replace(read_origin(root), config=file_digest(root / "config"), **changes)
    write_record(root / "provenance.json", amended)


@contextlib.contextmanager
def locked(root: Path):
    """Hold a results directory: two matrices in one would clear each other's runs. The lock is on the directory itself
    and ends with the process, however it ends. Raises InputError where another process holds it."""
    import fcntl

    directory = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{root} is in use: another matrix runs there; wait for it, or interrupt it") from None
        yield
    finally:
        os.close(directory)


def place(results: str) -> Path:
    """A directory as the user names it: a relative one is relative to the repository, not to where they stand."""
    try:
        return ROOT / Path(results).expanduser()
    except RuntimeError:  # ~user of a user that is not there
        raise InputError(f"{results}: there is no such home directory") from None


def find_root(results: str = "") -> Path:
    """An existing results directory: the one named, or the newest. Raises InputError naming what was looked for."""
    if results:
        root = place(results)
        if not root.is_dir():
            near = ", ".join(p.name for p in newest()[:3]) or "none"
            raise InputError(f"RESULTS={results}: there is no directory {root} (newest here: {near})")
    else:
        found = newest()
        if not found:
            raise InputError(
                f"there are no results yet ({PATTERN} in {ROOT}): run `make` first, or name them: RESULTS=dir"
            )
        root = found[0]
    read_origin(root)
    return root


def newest() -> list[Path]:
    """Results directories in the repository, newest first."""
    return sorted((p for p in ROOT.glob(PATTERN) if (p / "provenance.json").exists()), reverse=True)


def discard(root: Path) -> None:
    """Remove a results directory in which nothing has run."""
    shutil.rmtree(root, ignore_errors=True)
