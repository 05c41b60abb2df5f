"""The report of a results directory: text, Markdown and JSON from the same records, and the graphs that are selected.

No number stands alone: each table says the data set, the seeds, the steps, the device and the commit; runs of another
length than the rest are marked and are compared with nothing.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import audit
from lib.config import write_atomic
from lib.results import HOST, Results, Run, record
from lib.rundir import write_json
from lib.spec import percent

LEADERS = 10
MIB = 1024 * 1024
BUSY = 2.0  # ratio of times per step from which they are taken to speak of the machine
SMALL = 0.05  # share of a process's memory below which a model's weights vanish in it


@dataclass(frozen=True)
class Written:
    """What a report came to: the table for the terminal, the files, and the graphs that were skipped and why."""

    table: str
    text: Path
    markdown: Path
    json: Path
    graphs: list[Path]
    skipped: list[tuple[str, str]]


@dataclass(frozen=True)
class Column:
    """One column: its heading, and a run's entry in it, "-" for what there is not."""

    head: str
    entry: Callable[[Run], str]


def number(field: str, form: str) -> Callable[[Run], str]:
    def entry(r: Run) -> str:
        value = getattr(r, field)
        return "-" if value is None else format(value, form)

    return entry


def share(field: str) -> Callable[[Run], str]:
    def entry(r: Run) -> str:
        value = getattr(r, field)
        return "-" if value is None else f"{100 * value:.2f}"

    return entry


COLUMNS = (
    Column("run", lambda r: r.id),
    Column("asked %", lambda r: percent(r.target_sparsity) if r.target_sparsity else "0"),
    Column("sparsity %", share("achieved_sparsity")),
    Column("of all %", share("achieved_sparsity_of_all")),
    Column("val best", number("best_accuracy", ".2f")),
    Column("test last", number("test_accuracy_last", ".2f")),
    Column("test best", number("test_accuracy_best", ".2f")),
    Column("vs dense", number("accuracy_vs_dense", "+.2f")),
    Column("MiB mean", number("gpu_memory_mean", ".1f")),
    Column("MiB max", number("gpu_memory_max", ".1f")),
    Column("per 100 MiB", number("efficiency_per_100mib", ".2f")),
    Column("time s", number("elapsed_s", ".1f")),
)
OPTIMISTIC = Column("test max (optimistic)", number("test_accuracy_optimistic", ".2f"))
STATUS = Column("status", lambda r: r.status)


def write(results: Results, graphs: bool = True) -> Written:
    """Write every form of the report into the results directory, and the graphs its config selects."""
    from lib.figure.base import render_all

    root = results.root
    write_json(root / "all_results.json", record(results))
    write_atomic(root / "summary_report.txt", "\n".join(body(results, as_text)) + "\n")
    drawn, skipped = render_all(results) if graphs else ([], [])
    pictures = [f"![{p.stem}](graphs/{p.name})" for p in drawn]
    left = [f"- {name}: {why}" for name, why in skipped]
    markdown = [
        *body(results, as_markdown),
        "",
        "## Graphs",
        "",
        *pictures,
        *(["", "Skipped:", "", *left] if left else []),
    ]
    write_atomic(root / "report.md", "\n".join(markdown) + "\n")
    files = (root / "summary_report.txt", root / "report.md", root / "all_results.json")
    return Written("\n".join(tables(results, as_text)), *files, drawn, skipped)


def body(results: Results, form: Callable) -> Iterator[str]:
    heading = "# " if form is as_markdown else ""
    yield f"{heading}Results of {results.root.name}"
    yield ""
    yield from tables(results, form)
    yield from leaders(results, form)
    yield from audited(results, form)
    yield from provenance(results, form)


def tables(results: Results, form: Callable) -> Iterator[str]:
    """One table a model and data set, with its conditions above and its remarks below."""
    for (model, dataset), group in results.by("model", "dataset").items():
        heading = "## " if form is as_markdown else ""
        yield f"{heading}{model} on {dataset}"
        yield ""
        yield conditions(group)
        yield ""
        columns = list(COLUMNS)
        if any(r.test_accuracy_optimistic is not None for r in group):
            columns.insert(7, OPTIMISTIC)
        if any(r.status != "done" for r in group):
            columns.append(STATUS)
        yield from form([c.head for c in columns], [[c.entry(r) for c in columns] for r in group])
        yield ""
        yield from remarks(group)
    if results.missing:
        yield f"Planned and not run: {', '.join(results.missing)}."
        yield ""


def published(results: Results) -> Iterator[str]:
    """The tables as README and docs show them: from a record, so without what is read from a results directory."""
    for (model, dataset), group in results.by("model", "dataset").items():
        yield f"{model} on {dataset}: {conditions(group)}"
        yield ""
        yield from as_markdown([c.head for c in COLUMNS], [[c.entry(r) for c in COLUMNS] for r in group])
        for remark in (*resident(group), *busy(group)):
            yield ""
            yield f"{remark[0].upper()}{remark[1:]}."


def conditions(group: Results) -> str:
    """What every number of a table was measured under."""
    done = group.done or group
    seeds = sorted({r.seed for r in group})

    def distinct(field, form=str):
        values = [v for v in dict.fromkeys(getattr(r, field) for r in done) if v is not None]
        return " or ".join(form(v) for v in values) or "unknown"

    one = ", so differences have no interval" if len(seeds) == 1 else ""
    origins = list(dict.fromkeys(origin(r, group) for r in group))
    return (
        f"n = {len(seeds)} seed{'s' * (len(seeds) > 1)} ({', '.join(map(str, seeds))}){one}; "
        f"{distinct('steps')} steps of {distinct('batch_size')} samples; accuracies in percent, memory in MiB "
        f"({distinct('memory_source')}, training phase), time in seconds; {distinct('device')}; "
        f"{distinct('threads')} thread{'s' * (distinct('threads') != '1')}; "
        f"data {distinct('data_hash', lambda h: h[:12])}; commit {' or '.join(origins)}."
    )


def origin(r: Run, group: Results) -> str:
    """The commit a run was trained with, as the run itself recorded it."""
    p = r.provenance or group.provenance or {}
    return f"{(p.get('commit') or 'unknown')[:12]}{' with local changes' if p.get('dirty') else ''}"


def remarks(group: Results) -> Iterator[str]:
    """What a reader must know before comparing rows."""
    found = []
    if len({r.steps for r in group.done}) > 1:
        found.append("rows differ in steps: " + ", ".join(f"{r.id} {r.steps}" for r in group.done))
    for r in group.done:
        asked = round(r.target_sparsity * r.prunable_parameters) / r.prunable_parameters
        if r.achieved_sparsity != asked:
            found.append(f"{r.id}: sparsity {r.achieved_sparsity:.6f} is not the {asked:.6f} that was asked for")
        if r.skipped_steps:
            found.append(f"{r.id}: {r.skipped_steps} steps had gradients that were not finite and changed nothing")
        found += [f"{r.id}: step {e['step']}: {w}" for e in r.events for w in e["warnings"]]
    found += same_schedule(group)
    found += same_masks(group)
    found += resident(group)
    found += busy(group)
    if len({origin(r, group) for r in group.done}) > 1:
        found.append(f"rows come from different code: {'; '.join(f'{r.id} {origin(r, group)}' for r in group.done)}")
    found += [f"{r.id}: {r.status}{': ' + r.reason if r.reason else ''}" for r in group if r.status != "done"]
    if found:
        yield "Remarks:"
        yield ""
        yield from (f"- {line}" for line in found)
        yield ""


def same_masks(group: Results) -> Iterator[str]:
    """Runs that ended with the same mask, weight for weight: one method under two names."""
    by_mask: dict[str, list[str]] = {}
    for r in group.done:
        if r.events and r.events[-1].get("mask"):
            by_mask.setdefault(r.events[-1]["mask"], []).append(r.id)
    for ids in by_mask.values():
        if len(ids) > 1:
            yield f"{' and '.join(ids)} ended with the same mask, weight for weight"


def resident(group: Results) -> Iterator[str]:
    """Resident memory holds interpreter and libraries too; beside a small model it cannot tell methods apart."""
    rows = [r for r in group.done if r.memory_source == HOST and r.model_parameters]
    if rows:
        weights = 4 * rows[0].model_parameters / MIB
        low, high = min(r.gpu_memory_mean for r in rows), max(r.gpu_memory_mean for r in rows)
        span = f"{low:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"
        if weights < SMALL * low:
            yield (
                f"memory is that of the whole process, with interpreter and libraries ({span} MiB); "
                f"the weights are {weights:.2f} MiB of it, so differences between rows do not tell methods apart"
            )


def busy(group: Results) -> Iterator[str]:
    """Equal work that took very unequal time says more of the machine than of the rows."""
    per_step = {r.id: r.elapsed_s / r.steps for r in group.done if r.elapsed_s and r.steps}
    if per_step and max(per_step.values()) > BUSY * min(per_step.values()):
        slow, fast = max(per_step, key=per_step.get), min(per_step, key=per_step.get)
        yield (
            f"times are not comparable: a step of {slow} took {per_step[slow] / per_step[fast]:.1f} times that of "
            f"{fast}, so the machine was probably busy"
        )


def same_schedule(group: Results) -> Iterator[str]:
    """adamwadv is AdamW with AMSGrad, a cosine schedule and a clip: where the recipe has the last two already, only
    AMSGrad differs."""
    from lib.hyper import read_recipe
    from lib.optim.base import OPTIMIZERS

    for r in group.runs[:1]:
        recipe = read_recipe(group.config, r.model)
        replaced = OPTIMIZERS["adamwadv"].replaces("")
        same = all(getattr(recipe, k) == v for k, v in replaced.items())
        if same and any("adamwadv" in (x.optimizer, x.adamwprune_base) for x in group):
            yield "adamwadv differs from adamw by AMSGrad alone: the recipe has its schedule and clip already"


def leaders(results: Results, form: Callable) -> Iterator[str]:
    """The runs with the most test accuracy per 100 MiB, within one source of memory figures."""
    for (model, dataset, source), group in results.done.by("model", "dataset", "memory_source").items():
        group = usual_length(group)
        ranked = sorted(
            (r for r in group if r.efficiency_per_100mib is not None), key=lambda r: -r.efficiency_per_100mib
        )
        if not ranked:
            continue
        heading = "## " if form is as_markdown else ""
        yield f"{heading}Memory efficiency leaders"
        yield ""
        yield f"{model} on {dataset}: last test accuracy (percent) per 100 MiB of {source}, mean over training."
        yield ""
        rows = [
            [str(i), r.id, f"{r.efficiency_per_100mib:.2f}", f"{r.test_accuracy_last:.2f}", f"{r.gpu_memory_mean:.1f}"]
            for i, r in enumerate(ranked[:LEADERS], 1)
        ]
        yield from form(["rank", "run", "per 100 MiB", "test last", "MiB mean"], rows)
        yield ""


def audited(results: Results, form: Callable) -> Iterator[str]:
    """Which scores of state pruning are one method under two names, where `make audit` has been run."""
    record = audit.load(results.root)
    if record:
        heading = "## " if form is as_markdown else ""
        yield f"{heading}Audit of the scores"
        yield ""
        yield from (f"- {line}" for line in audit.findings(record))
        yield ""


def usual_length(group: Results) -> Results:
    """Without the runs of another length than most have."""
    steps = statistics.mode(r.steps for r in group)
    return group.where(steps=steps)


def provenance(results: Results, form: Callable) -> Iterator[str]:
    p = results.provenance or {}
    heading = "## " if form is as_markdown else ""
    yield f"{heading}Provenance"
    yield ""
    versions = ", ".join(f"{k} {v}" for k, v in (p.get("versions") or {}).items() if v)
    yield f"commit {p.get('commit') or 'unknown'}{' with local changes ' + p['dirty'] if p.get('dirty') else ''}; "
    yield f"Python {p.get('python')}; {versions}; {p.get('system')}; {p.get('cpu')}."


def as_text(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    left = {i for i, h in enumerate(head) if h in ("run", "status")}

    def line(cells):
        return "  ".join(
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )

    yield line(head).rstrip()
    yield "-" * len(line(head))
    yield from (line(row).rstrip() for row in rows)


def as_markdown(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if h in ("run", "status") else "---:" for h in head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
