"""The report of a results directory: text, Markdown and JSON from the same records, and the graphs that are selected.

No number stands alone: each table says the data set, the seeds, the steps, the device and the commit; runs of another
length than the rest are marked and are compared with nothing.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import audit, costs
from lib.config import InputError, write_atomic
from lib.files import write_record
from lib.remarks import busy, conditions, metric, remarks, resident
from lib.results import Results, Run, record
from lib.sanitize import escape_markdown, printable_line
from lib.spec import percent

LEADERS = 10


@dataclass(frozen=True)
class Written:
    """What a report came to: the table for the terminal, the files, and the graphs that were skipped, by reason."""

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


BEFORE = (
    Column("run", lambda r: r.id),
    Column("asked %", lambda r: percent(r.target_sparsity) if r.target_sparsity else "0"),
    Column("sparsity %", share("achieved_sparsity")),
    Column("of all %", share("achieved_sparsity_of_all")),
)
MEMORY = (
    Column("MiB", number("compared_memory", ".2f")),
    Column("process MiB", number("train_memory_mean", ".1f")),
    Column("process max", number("train_memory_max", ".1f")),
)
TIME = Column("time s", number("elapsed_s", ".1f"))
COLUMNS = {  # by what runs are compared by
    "accuracy": (
        *BEFORE,
        Column("val best", number("best_accuracy", ".2f")),
        Column("test last", number("test_accuracy_last", ".2f")),
        Column("test best", number("test_accuracy_best", ".2f")),
        Column("vs dense", number("accuracy_vs_dense", "+z.2f")),
        *MEMORY,
        Column("per 100 MiB", number("efficiency_per_100mib", ".2f")),
        TIME,
    ),
    "perplexity": (
        *BEFORE,
        Column("val best", number("best_perplexity", ".2f")),
        Column("test last", number("test_perplexity_last", ".2f")),
        Column("test best", number("test_perplexity_best", ".2f")),
        Column("vs dense %", number("perplexity_vs_dense_pct", "+z.2f")),
        Column("bits/byte", number("test_bits_per_byte", ".4f")),
        *MEMORY,
        Column("tokens/s", number("tokens_per_s", ".0f")),
        TIME,
    ),
}
OPTIMISTIC = {
    "accuracy": Column("test max (optimistic)", number("test_accuracy_optimistic", ".2f")),
    "perplexity": Column("test min (optimistic)", number("test_perplexity_optimistic", ".2f")),
}
STABILITY = {
    word: (
        Column("run", lambda r: r.id),
        Column("best epoch", number("best_epoch", "d")),
        Column("peak", number(f"peak_{word}", ".2f")),
        Column("peak epoch", number("peak_epoch", "d")),
        Column("std last 10", number("std_last10", ".2f")),
        Column("peak to final", number("peak_to_final", ".2f")),
    )
    for word in ("accuracy", "perplexity")
}
MFU = Column("MFU %", number("mfu_pct", ".1f"))
STATUS = Column("status", lambda r: r.status)


def write(results: Results, graphs: bool = True) -> Written:
    """Write every form of the report into the results directory, and the graphs its config selects."""
    from lib.figure.base import render_all

    root = results.root
    write_record(root / "all_results.json", record(results))
    write_atomic(root / "summary_report.txt", "\n".join(body(results, as_text)) + "\n")
    drawn, skipped = render_all(results) if graphs else ([], [])
    pictures = [f"![{p.stem}](graphs/{p.name})" for p in drawn]
    left = [f"- {names}: {escape_markdown(why)}" for names, why in skipped]
    markdown = [
        *map(escaped, body(results, as_markdown)),
        "",
        "## Graphs",
        "",
        *pictures,
        *(["", "Skipped:", "", *left] if left else []),
    ]
    write_atomic(root / "report.md", "\n".join(markdown) + "\n")
    files = (root / "summary_report.txt", root / "report.md", root / "all_results.json")
    return Written("\n".join(tables(results, as_text)), *files, drawn, skipped)


def escaped(line: str) -> str:
    """A line of Markdown in which nothing that a file says becomes markup. Cells of tables are escaped one by one, and
    lines that are set in by four spaces are shown as they are."""
    return line if line.startswith(("| ", "|-", "    ")) else escape_markdown(line)


def body(results: Results, form: Callable) -> Iterator[str]:
    heading = "# " if form is as_markdown else ""
    yield f"{heading}Results of {printable_line(results.root.name)}"
    yield ""
    for problem in results.problems:
        yield f"Take care: {problem}. Finished runs are shown as they recorded themselves."
        yield ""
    yield from tables(results, form)
    yield from stability(results, form)
    yield from leaders(results, form)
    yield from costs.memory(results, form, f"#{heading}" if heading else "")
    yield from costs.energy(results, form, f"#{heading}" if heading else "")
    yield from inference(results, form)
    yield from samples(results, form)
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
        columns = list(COLUMNS[metric(group)])
        if any(r.test_loss_optimistic is not None for r in group):
            columns.insert(7, OPTIMISTIC[metric(group)])
        if any(r.mfu_pct for r in group):
            columns.insert(-1, MFU)
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
        columns = COLUMNS[metric(group)]
        yield from as_markdown([c.head for c in columns], [[c.entry(r) for c in columns] for r in group])
        for remark in (*resident(group), *busy(group)):
            yield ""
            yield f"{remark[0].upper()}{remark[1:]}."


def stability(results: Results, form: Callable) -> Iterator[str]:
    """How steadily runs ended, of those that were evaluated on held-out data."""
    for (model, dataset), group in results.done.by("model", "dataset").items():
        rows = [r for r in group if r.peak_epoch is not None]
        if not rows:
            continue
        columns, word = STABILITY[metric(group)], metric(group)
        yield f"{'## ' if form is as_markdown else ''}Stability: {model} on {dataset}"
        yield ""
        yield (
            f"Validation {word}. best epoch: from the last pruning event on; peak: of the whole run, denser weights "
            "included; std last 10: over the last ten evaluations; peak to final: how much worse the last one is."
        )
        yield ""
        yield from form([c.head for c in columns], [[c.entry(r) for c in columns] for r in rows])
        yield ""


def leaders(results: Results, form: Callable) -> Iterator[str]:
    """The runs with the most test accuracy per 100 MiB, within one source of memory figures."""
    for (model, dataset, source), group in results.done.by("model", "dataset", "compared_source").items():
        group = usual_length(group)
        ranked = sorted(
            (r for r in group if r.efficiency_per_100mib is not None), key=lambda r: -r.efficiency_per_100mib
        )
        if not ranked:
            continue
        heading = "## " if form is as_markdown else ""
        yield f"{heading}Memory efficiency leaders"
        yield ""
        yield f"{model} on {dataset}: last test accuracy (percent) per 100 MiB of {source}."
        yield ""
        rows = [
            [str(i), r.id, f"{r.efficiency_per_100mib:.2f}", f"{r.test_accuracy_last:.2f}", f"{r.compared_memory:.2f}"]
            for i, r in enumerate(ranked[:LEADERS], 1)
        ]
        yield from form(["rank", "run", "per 100 MiB", "test last", "MiB"], rows)
        yield ""


def inference(results: Results, form: Callable) -> Iterator[str]:
    """Latency and throughput of the runs that measured them."""
    for (model, dataset), group in results.done.by("model", "dataset").items():
        rows = [
            [r.id, str(m.batch), f"{m.latency_ms:.2f}", f"{m.samples_per_s:.1f}", mib(m.memory_mib)]
            for r in group
            for m in r.inference or ()
        ]
        if rows:
            heading = "## " if form is as_markdown else ""
            yield f"{heading}Inference: {model} on {dataset}"
            yield ""
            yield f"The last weights in dense matrices, zeros and all; medians. {conditions(group)}"
            yield ""
            yield from form(["run", "batch", "latency ms", "samples/s", "MiB peak"], rows)
            yield ""


def mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def samples(results: Results, form: Callable) -> Iterator[str]:
    """What language models write."""
    found = [r for r in results.done if r.sample]
    if found:
        yield f"{'## ' if form is as_markdown else ''}Sampled text"
        yield ""
    for r in found:
        lines = r.sample.replace("\r", "").split("\n")
        yield f"{r.id}, from an end of text on:"
        yield ""
        yield from (f"    {line}" for line in lines)
        yield ""


def audited(results: Results, form: Callable) -> Iterator[str]:
    """Which scores of state pruning are one method under two names, where `make audit` has been run."""
    try:
        record = audit.load(results.root)
        found = [*audit.findings(record)] if record else []
    except InputError as e:
        found = [f"{e}; run `make audit` again"]
    if found:
        heading = "## " if form is as_markdown else ""
        yield f"{heading}Audit of the scores"
        yield ""
        yield from (f"- {line}" for line in found)
        yield ""


def usual_length(group: Results) -> Results:
    """Without the runs of another length than most have."""
    steps = statistics.mode(r.steps for r in group)
    return group.where(steps=steps)


def provenance(results: Results, form: Callable) -> Iterator[str]:
    p = results.provenance
    heading = "## " if form is as_markdown else ""
    yield f"{heading}Provenance"
    yield ""
    if p is None:
        yield "unknown"
        return
    versions = ", ".join(f"{k} {v}" for k, v in p.versions.items() if v)
    commit = f"{p.commit or 'unknown'}{f' with local changes {p.dirty}' if p.dirty else ''}"
    yield f"commit {commit}; Python {p.python}; {versions}; {p.system}; {p.cpu}."
    for choice, reason in p.not_compiled.items():
        yield ""
        yield f"{choice}_AUTO did without torch.compile, which could not be used: {reason}."


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
    yield from ("| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows)
