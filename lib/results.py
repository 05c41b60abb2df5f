"""Results: what the runs of a directory wrote, as records that can be selected, grouped and compared.

Everything is read from files, nothing from names or logs. A run's record is its summary.json, the memory measured by
its monitor, and what follows from other runs of the matrix (differences from the dense run of the same optimizer,
base, data and seed; null where there is none, or where it was trained for another number of steps). A run whose files
are damaged is a row that says so; it never costs the others.
"""

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib import measure
from lib.config import Config, InputError
from lib.files import Damaged, check_file, read_lines, read_tail
from lib.matrix import expand
from lib.monitor import stats
from lib.peak import mfu
from lib.record import perplexity
from lib.records import AllResults, End, Epoch, Metric, Origin, Outcome, Prune, Row, Start, Summary, parse_metric
from lib.rundir import RunDir, config_changed, read_origin
from lib.schema import blank, field_names
from lib.spec import RunSpec

AGAIN = "`make continue` trains it again"


@dataclass(frozen=True, kw_only=True)
class Run(Outcome):
    """One run: its record in all_results.json; `path`, its directory; what it wrote while it ran, where it finished.

    header, samples: of monitor.jsonl (see lib/monitor/stats.py); {} and [] where there is none. A record that cannot be
    read has `unreadable` in its header, why, and no samples: it must not cost the report of a matrix.
    """

    path: Path = field(default=Path(), repr=False)
    start: Start | None = field(default=None, repr=False)
    evaluations: tuple[Epoch, ...] = field(default=(), repr=False)
    events: tuple[Prune, ...] = field(default=(), repr=False)
    problems: tuple[str, ...] = field(default=(), repr=False)  # of its checkpoints
    header: dict = field(default_factory=dict, repr=False)
    samples: list[dict] = field(default_factory=list, repr=False)

    def memory(self, samples: list[dict] | None = None) -> list[tuple[float, str, float]]:
        """(seconds, phase, MiB) of every sample, from the source that `memory_source` names."""
        return measure.process_memory(self.header, self.samples, samples)

    def record(self) -> dict:
        """Its row in all_results.json."""
        return {name: getattr(self, name) for name in field_names(Outcome)}


@dataclass(frozen=True)
class Results:
    """The runs of a directory in the matrix's order. missing: ids that are planned and have not been run. problems: of
    the directory as a whole, for a reader."""

    root: Path
    config: Config
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    provenance: Origin | None = None
    problems: tuple[str, ...] = ()

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


def load(root: Path) -> Results:
    """Read a results directory. Raises InputError where it is none, or of another schema, or its config is damaged."""
    origin = read_origin(root)
    config, specs = planned(root)
    problem = config_changed(root, origin)
    runs, missing = [], []
    for spec in specs:
        found = read_run(root, spec)
        runs.append(found) if found else missing.append(spec.id)
    return Results(root, config, tuple(derived(runs)), tuple(missing), origin, (problem,) if problem else ())


def planned(root: Path) -> tuple[Config, list[RunSpec]]:
    """The matrix of a results directory, and its runs. Raises InputError."""
    config = Config.load(root / "config")
    try:
        return config, expand(config)
    except KeyError as e:
        raise Damaged(root / "config", f"CONFIG_{e.args[0]} is missing") from None


def read_run(root: Path, spec: RunSpec) -> Run | None:
    """A run's record, or None where it has not been started."""
    run = RunDir(root / spec.id)
    try:
        if run.foreign() == run.path:
            run.refuse_foreign()
        found = finished(run, spec)
        if found is None:
            run.refuse_foreign()
        return found or unfinished(run, spec)
    except Damaged as e:
        return without_results(run, spec, "damaged", f"{name_in(run, e.path)}: {e.what}; {way_out(run, e)}")


def name_in(run: RunDir, path: Path) -> str:
    """A file of a run as a reader knows it; another, and the run's directory, with that of its folder."""
    return path.name if path.parent == run.path else f"{path.parent.name}/{path.name}"


def way_out(run: RunDir, e: Damaged) -> str:
    """What makes a damaged run whole: training it again, which needs every place that it writes to."""
    foreign = run.foreign()
    if foreign is None:
        return AGAIN
    told = foreign == e.path and e.what.endswith("remove it")
    return f"then {AGAIN}" if told else f"remove {name_in(run, foreign)}, then {AGAIN}"


def finished(run: RunDir, spec: RunSpec) -> Run | None:
    """The record of a run that came to its end, None of any other. Raises Damaged where a file of it is."""
    try:
        summary = run.read_summary()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if summary.spec != spec:
        raise Damaged(run.summary, f"id: it is of the run {summary.id}, or of another setting")
    rows = [read_metric(run, row) for row in read_lines(run.metrics)]
    check_rows(run, summary, rows)
    header, samples = read_monitor(run, summary)
    known = {name: getattr(summary, name) for name in field_names(Summary)}
    known |= language(summary) | measure.derived(summary, header, samples)
    return Run(
        **known,
        path=run.path,
        start=rows[0],
        evaluations=tuple(r for r in rows if isinstance(r, Epoch)),
        events=tuple(r for r in rows if isinstance(r, Prune)),
        problems=tuple(checkpoint_problems(run, summary)),
        header=header,
        samples=samples,
    )


def checkpoint_problems(run: RunDir, summary: Summary) -> Iterator[str]:
    """What can be said of a run's checkpoints without reading them: that one has gone, or is of another size."""
    for path in (run.last, run.best):
        written = summary.files.get(path.name)
        try:
            found = path.lstat()
        except OSError:
            found = None
        if written and found is None:
            yield f"{path.name} is not there any more"
        elif written and (not stat.S_ISREG(found.st_mode) or found.st_size != written.size):
            yield f"{path.name} was changed after it was written; {AGAIN} once summary.json is removed"


def read_metric(run: RunDir, row: dict) -> Metric:
    try:
        return parse_metric(row)
    except ValueError as e:
        raise Damaged(run.metrics, str(e)) from None


def check_rows(run: RunDir, summary: Summary, rows: list[Metric]) -> None:
    """Raise Damaged unless a run's metrics are those that its summary speaks of, and it has what a finished run has."""
    epochs = [r for r in rows if isinstance(r, Epoch)]
    steps = [r.step for r in rows if isinstance(r, Epoch | Prune)]
    starts = [r for r in rows if isinstance(r, Start)]
    if rows[:1] != starts or not starts[0].steps_per_epoch:
        raise Damaged(run.metrics, "event: it does not begin with the start of the run")
    if [e.epoch for e in epochs] != list(range(1, summary.epochs + 1)) or steps != sorted(steps):
        raise Damaged(run.metrics, f"epoch: they are not the {summary.epochs} of summary.json, in order")
    ends = [r for r in rows if isinstance(r, End)]
    if rows[-1:] != ends or ends[0].status != summary.status:
        raise Damaged(run.metrics, f"event: it does not end with one end of a run that is {summary.status}")
    check_evaluations(run, summary, epochs)
    if summary.status != "done":
        return
    for name in ("epochs", "steps", "batch_size", "prunable_parameters", "model_parameters", "achieved_sparsity"):
        value = getattr(summary, name)
        if value is None or (value == 0 and name != "achieved_sparsity"):
            raise Damaged(run.summary, f"{name}: a run that is done has it, and this is {value}")
    if epochs[-1].step != summary.steps:
        raise Damaged(run.summary, f"steps: {summary.steps} are not the {epochs[-1].step} of metrics.jsonl")


def check_evaluations(run: RunDir, summary: Summary, epochs: list[Epoch]) -> None:
    """Raise Damaged unless the evaluations that a summary names are there and say what it says of them."""
    numbers = {"final": summary.epochs or None, "best": summary.best_epoch, "peak": summary.peak_epoch}
    for which, number in numbers.items():
        if number is not None and not 1 <= number <= summary.epochs:
            raise Damaged(run.summary, f"{which}_epoch: there is no epoch {number} of {summary.epochs}")
        row = epochs[number - 1] if number else None
        for what in ("accuracy", "loss"):
            said, found = getattr(summary, f"{which}_{what}"), row and getattr(row, f"validation_{what}")
            if said != found:
                raise Damaged(run.summary, f"{which}_{what}: {said} is not the {found} of metrics.jsonl")


def unfinished(run: RunDir, spec: RunSpec) -> Run | None:
    """A run that was started and did not come to its end; None of one that was not started."""
    if run.error.is_symlink() or run.error.exists():
        lines = [line for line in read_tail(run.error) if line]
        return without_results(run, spec, "failed", lines[-1] if lines else None)
    if run.metrics.is_symlink() or run.metrics.exists():
        return without_results(run, spec, "interrupted", None)
    return None


def without_results(run: RunDir, spec: RunSpec, status: str, reason: str | None) -> Run:
    row = blank(Outcome, {**spec.dict(), "status": status, "reason": reason, "memory_samples": 0, "memory_phases": {}})
    return Run(**{name: getattr(row, name) for name in field_names(Outcome)}, path=run.path)


def read_monitor(run: RunDir, summary: Summary) -> tuple[dict, list[dict]]:
    """The header and the samples of monitor.jsonl, up to the run's end; ({}, []) of a run without."""
    written = summary.files.get(run.monitor.name)
    if written is None:
        return {}, []
    try:
        check_file(run.monitor, written, may_grow=True)
        return stats.read(run.monitor, written.size)
    except InputError as e:
        return {"unreadable": f"{run.monitor.name}: {e.what if isinstance(e, Damaged) else e}"}, []


def language(run: Summary) -> dict:
    """Perplexities, and bits a byte of text, of the losses of a language model; null for others."""
    known = run.metric == "perplexity"
    names = ("final", "best", "peak")
    fields = {f"{n}_perplexity": getattr(run, f"{n}_loss") for n in names}
    fields |= {f"test_perplexity_{n}": getattr(run, f"test_loss_{n}") for n in ("last", "best", "optimistic")}
    found = {name: finite(perplexity(loss)) if known else None for name, loss in fields.items()}
    speed = found["tokens_per_s"] = tokens_per_s(run) if known and run.train_s else None
    flops = speed and run.flops_per_token and speed * run.flops_per_token
    found["mfu_pct"] = mfu(flops, run.device, run.precision, run.devices) if flops else None
    loss, size = run.test_loss_last, (run.bytes_per_token or {}).get("test")
    return found | {"test_bits_per_byte": loss / math.log(2) / size if known and loss is not None and size else None}


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def tokens_per_s(run: Summary) -> float | None:
    """Of training; without the first epoch of a compiled run that has others, for it is spent in compiling."""
    steps, seconds = run.steps, run.train_s
    if run.compiled and run.epochs > 1:
        steps, seconds = steps - run.first_epoch_steps, seconds - run.first_epoch_s
    return steps * run.batch_size * run.block / seconds if seconds > 0 and run.block else None


def derived(runs: list[Run]) -> Iterator[Run]:
    """Each run with its differences from its dense reference."""
    dense = {reference_key(r): r for r in runs if r.pruning_method == "none" and r.status == "done"}
    for r in runs:
        yield replace(r, **against(r, dense.get(reference_key(r))))


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
        if a is None or b is None or (pct and not b):
            return None
        return (100 * (a / b - 1) if pct else a - b) + 0.0  # no -0.0

    same = matched and r.compared_source == ref.compared_source
    saving = difference("compared_memory", pct=True) if same else None
    return {
        "accuracy_vs_dense": difference("test_accuracy_last"),
        "gpu_memory_vs_dense": difference("compared_memory") if same else None,
        "gpu_memory_saving_pct": None if saving is None else 0.0 - saving,
        "elapsed_vs_dense_pct": difference("elapsed_s", pct=True),
        "perplexity_vs_dense_pct": difference("test_perplexity_last", pct=True),
    }


def record(results: Results) -> AllResults:
    """What all_results.json holds."""
    return AllResults(
        commit=results.provenance and results.provenance.commit,
        provenance=results.provenance,
        missing=list(results.missing),
        runs=[Row(**r.record()) for r in results],
    )
