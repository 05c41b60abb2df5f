"""The on-disk contract: every file that a matrix writes, and nothing about what is in them.

test_matrix_results_YYYYMMDD_HHMMSS/
    config                  the matrix, complete, overrides included
    provenance.json         schema, commit, versions, host
    all_results.json        the results, one record a run
    summary_report.txt      the same as text
    report.md               the same as Markdown
    audit.json              how far the scores of state pruning agree on these runs, where `make audit` has been run
    graphs/*.png
    <run id>/
        config              the matrix pinned to this run: it reproduces it
        spec.json           the RunSpec
        metrics.jsonl       start, prune events, epochs, end
        monitor.jsonl       header line, samples and phase marks
        output.log          what the run printed
        checkpoint-last.pt  complete state after the last epoch
        checkpoint-best.pt  the best weights at the final sparsity, by validation
        error.txt           only where the run failed: why
        summary.json        written last and whole: its presence means that the run finished
"""

import contextlib
import json
import os
import shutil
import time
from datetime import datetime
from pathlib import Path

from lib import ROOT, provenance
from lib.config import Config, InputError, write_atomic
from lib.spec import RunSpec

SCHEMA = 2
PATTERN = "test_matrix_results_*"
# What a results directory holds beside its runs.
OWN = tuple(
    "config provenance.json all_results.json summary_report.txt report.md report.html audit.json graphs".split()
)


class RunDir:
    """One run's directory."""

    def __init__(self, path: str | Path):
        self.path = Path(path).resolve()
        self.config = self.path / "config"
        self.spec_file = self.path / "spec.json"
        self.metrics = self.path / "metrics.jsonl"
        self.monitor = self.path / "monitor.jsonl"
        self.log = self.path / "output.log"
        self.last = self.path / "checkpoint-last.pt"
        self.best = self.path / "checkpoint-best.pt"
        self.summary = self.path / "summary.json"
        self.error = self.path / "error.txt"

    @property
    def finished(self) -> bool:
        """Whether there is a whole summary.json; a damaged one is none, and its run is run again."""
        try:
            return isinstance(json.loads(self.summary.read_text()), dict)
        except (FileNotFoundError, ValueError):
            return False

    def create(self, config: Config, spec: RunSpec) -> "RunDir":
        self.path.mkdir(parents=True, exist_ok=True)
        config.write(self.config)
        write_json(self.spec_file, {"schema": SCHEMA, **spec.dict()})
        return self

    def spec(self) -> RunSpec:
        return RunSpec(**checked(self.spec_file))

    def clear(self) -> None:
        """Forget an attempt that did not finish. Config and spec stay, and so does the log, which is being written."""
        for path in (self.metrics, self.monitor, self.last, self.best, self.error, self.summary):
            path.unlink(missing_ok=True)


def checked(path: Path) -> dict:
    """A JSON file of this schema, without its schema field. Raises InputError where it is of another."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} is no results directory of this program: {path.name} is missing") from None
    except (OSError, ValueError) as e:
        raise InputError(f"cannot read {path}: {e}") from None
    found = data.pop("schema", None) if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InputError(
            f"{path} has schema {found}, and this version reads schema {SCHEMA}: use the commit that wrote it (see "
            f"provenance.json beside it), or run the matrix again"
        )
    return data


def write_json(path: Path, data) -> None:
    write_atomic(path, json.dumps(data, indent=1) + "\n")


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
        write_json(root / "provenance.json", {"schema": SCHEMA, **provenance.collect()})
    except OSError as e:
        raise InputError(
            f"cannot write results to {root}: {e.strerror or e}; name another place with RESULTS="
        ) from None
    return root


def add_provenance(root: Path, name: str, value: dict[str, str]) -> None:
    """Add entries under a name to what a results directory says of where it came from."""
    path = root / "provenance.json"
    found = checked(path)
    write_json(path, {"schema": SCHEMA, **found, name: found.get(name, {}) | value})


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
    checked(root / "provenance.json")
    return root


def newest() -> list[Path]:
    """Results directories in the repository, newest first."""
    return sorted((p for p in ROOT.glob(PATTERN) if (p / "provenance.json").exists()), reverse=True)


def discard(root: Path) -> None:
    """Remove a results directory in which nothing has run."""
    shutil.rmtree(root, ignore_errors=True)
