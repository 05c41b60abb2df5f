"""Results: what the runs of a directory wrote, as records that can be selected, grouped and compared.

Everything is read from files, nothing from names or logs. A run's record is its summary.json, the memory measured by
its monitor, and what follows from other runs of the matrix (differences from the dense run of the same optimizer,
base, data and seed; null where there is none, or where it was trained for another number of steps).
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from lib import measure
from lib.config import Config, InputError
from lib.matrix import expand
from lib.monitor import stats
from lib.peak import mfu
from lib.record import perplexity
from lib.rundir import SCHEMA, RunDir, checked
from lib.spec import RunSpec


@dataclass(frozen=True)
class Run:
    """One run: `data` is its record in all_results.json; `path` its directory."""

    path: Path
    data: dict

    def __getattr__(self, name: str):
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(f"a run has no {name!r}") from None

    @property
    def compared_memory(self) -> float | None:
        """MiB, of what `compared_source` says."""
        return measure.compared(self.data)[0]

    @property
    def compared_source(self) -> str | None:
        return measure.compared(self.data)[1]

    @cached_property
    def metrics(self) -> list[dict]:
        return list(json_lines(RunDir(self.path).metrics))

    @property
    def epochs(self) -> list[dict]:
        return [row for row in self.metrics if row["event"] == "epoch"]

    @property
    def events(self) -> list[dict]:
        """Pruning events."""
        return [row for row in self.metrics if row["event"] == "prune"]

    @cached_property
    def monitor(self) -> tuple[dict, list[dict]]:
        """The header and the samples of monitor.jsonl; ({}, []) where there is none. One that cannot be read has
        `unreadable` in its header, why, and no samples: it must not cost the report of a matrix."""
        try:
            return stats.read(RunDir(self.path).monitor)
        except InputError as e:
            return {"unreadable": str(e)}, []

    def memory(self, samples: list[dict] | None = None) -> list[tuple[float, str, float]]:
        """(seconds, phase, MiB) of every sample, from the source that `memory_source` names."""
        header, found = self.monitor
        return measure.process_memory(header, found, samples)


@dataclass(frozen=True)
class Results:
    """The runs of a directory in the matrix's order. missing: ids that are planned and have not been run."""

    root: Path
    config: Config
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    provenance: dict | None = None

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def done(self) -> "Results":
        return self.where(status="done")

    def where(self, **want) -> "Results":
        """The runs whose fields have these values."""
        return replace(self, runs=tuple(r for r in self.runs if all(getattr(r, k) == v for k, v in want.items())))

    def by(self, *names: str) -> dict:
        """Groups by the values of fields, in the matrix's order; the key is a value, or a tuple of several."""
        groups: dict = {}
        for r in self.runs:
            key = tuple(getattr(r, n) for n in names)
            groups.setdefault(key if len(names) > 1 else key[0], []).append(r)
        return {k: replace(self, runs=tuple(v)) for k, v in groups.items()}

    def order(self, axis: str) -> list[str]:
        """Every member of an axis in Kconfig's order, set here or not: what colours go by."""
        return self.config.members(axis.upper())


def json_lines(path: Path) -> Iterator[dict]:
    """The whole lines of a JSONL file; a torn last line, as a crash leaves it, is passed over."""
    if not path.exists():
        return
    with path.open() as f:
        for line in f:
            if line.endswith("\n"):
                try:
                    yield json.loads(line)
                except ValueError as e:
                    raise InputError(f"{path}: a damaged line: {line[:80]!r} ({e})") from None


def load(root: Path) -> Results:
    """Read a results directory. Raises InputError where it is none, or of another schema."""
    provenance = checked(root / "provenance.json")
    config = Config.load(root / "config")
    runs, missing = [], []
    for spec in expand(config):
        found = read_run(root, spec)
        runs.append(found) if found else missing.append(spec.id)
    return Results(root, config, tuple(derived(runs)), tuple(missing), provenance)


def read_run(root: Path, spec: RunSpec) -> Run | None:
    """A run's record, or None where it has not been started."""
    run = RunDir(root / spec.id)
    if run.finished:
        data = checked(run.summary)
    elif run.summary.exists():
        data = blank(spec) | {"status": "failed", "reason": "summary.json is damaged: `make continue` runs it again"}
    elif run.error.exists():
        reason = run.error.read_text().strip().splitlines()
        data = blank(spec) | {"status": "failed", "reason": reason[-1] if reason else None}
    elif run.metrics.exists():
        data = blank(spec) | {"status": "interrupted", "reason": None}
    else:
        return None
    header, samples = Run(run.path, data).monitor
    return Run(run.path, data | language(data) | measure.derived(data, header, samples))


def language(data: dict) -> dict:
    """Perplexities, and bits a byte of text, of the losses of a language model; null for others."""
    known = data["metric"] == "perplexity"
    fields = {"final_perplexity": "final_loss", "best_perplexity": "best_loss"}
    fields |= {f"test_perplexity_{which}": f"test_loss_{which}" for which in ("last", "best", "optimistic")}
    found = {name: perplexity(data[loss]) if known else None for name, loss in fields.items()}
    speed = found["tokens_per_s"] = tokens_per_s(data) if known and data["train_s"] else None
    flops = speed and speed * data["flops_per_token"]
    found["mfu_pct"] = mfu(flops, data["device"], data["precision"], data["devices"]) if flops else None
    loss, size = data["test_loss_last"], (data.get("bytes_per_token") or {}).get("test")
    return found | {"test_bits_per_byte": loss / math.log(2) / size if known and loss is not None and size else None}


def tokens_per_s(data: dict) -> float:
    """Of training; without the first epoch of a compiled run that has others, for it is spent in compiling."""
    steps, seconds = data["steps"], data["train_s"]
    if data["compiled"] and data["epochs"] > 1:
        steps, seconds = steps - data["first_epoch_steps"], seconds - data["first_epoch_s"]
    return steps * data["batch_size"] * data["block"] / seconds


# Every field of a summary that is not in the spec, for runs that have none.
BLANK = (
    "metric stopped inference sample damaged_images block precision compiled tokenizer bytes_per_token "
    "ledger gpus achieved_sparsity achieved_sparsity_of_all final_accuracy first_epoch_s first_epoch_steps final_loss "
    "best_accuracy best_loss best_epoch test_accuracy_last test_accuracy_best test_loss_last test_loss_best "
    "test_accuracy_optimistic test_loss_optimistic std_last10 peak_to_final steps epochs planned_steps "
    "skipped_steps batch_size model_parameters prunable_parameters data_hash flops_per_token device devices threads "
    "elapsed_s train_s provenance"
).split()


def blank(spec: RunSpec) -> dict:
    return {**spec.dict(), **dict.fromkeys(BLANK)}


def derived(runs: list[Run]) -> Iterator[Run]:
    """Each run with its differences from its dense reference."""
    dense = {reference_key(r): r for r in runs if r.pruning_method == "none" and r.status == "done"}
    for r in runs:
        yield Run(r.path, r.data | against(r, dense.get(reference_key(r))))


def reference_key(r: Run) -> tuple:
    return r.model, r.dataset, r.optimizer, r.adamwprune_base, r.seed


def against(r: Run, ref: Run | None) -> dict:
    """Differences from the dense run `ref`; all null unless both are done, with equal steps, batch and data."""
    matched = (
        ref is not None
        and r.status == "done"
        and (r.steps, r.batch_size, r.data_hash) == (ref.steps, ref.batch_size, ref.data_hash)
    )

    def difference(field, pct=False):
        a, b = getattr(r, field), getattr(ref, field) if matched else None
        if a is None or b is None:
            return None
        return 100 * (a / b - 1) if pct else a - b

    same = matched and r.compared_source == ref.compared_source
    saving = difference("compared_memory", pct=True) if same else None
    return {
        "accuracy_vs_dense": difference("test_accuracy_last"),
        "gpu_memory_vs_dense": difference("compared_memory") if same else None,
        "gpu_memory_saving_pct": None if saving is None else -saving,
        "elapsed_vs_dense_pct": difference("elapsed_s", pct=True),
        "perplexity_vs_dense_pct": difference("test_perplexity_last", pct=True),
    }


def record(results: Results) -> dict:
    """What all_results.json holds."""
    return {
        "schema": SCHEMA,
        "commit": (results.provenance or {}).get("commit"),
        "provenance": results.provenance,
        "missing": list(results.missing),
        "runs": [r.data for r in results],
    }
