"""The report on a terminal: tables whose columns fit its width. Where the output is no terminal it is plain text at
full width."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from lib import report
from lib.ids import shorten_ids
from lib.results import Results

# What a narrow terminal shows first. A column that is not named here comes after these, in the order of the report.
IMPORTANT = (
    *("run", "status", "sparsity %", "test last", "vs dense", "vs dense %", "MiB", "time s"),
    *("val best", "test best", "bits/byte", "per 100 MiB", "tokens/s"),
)
ESSENTIAL = 4  # of these are worth a shorter run id
SHORTEST_ID = 20  # letters of one
GAP = 2  # letters between columns
STYLES = {"failed": "red", "diverged": "red", "damaged": "red", "timeout": "red", "interrupted": "yellow"}


def interactive(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


def make_console(stream: TextIO) -> Console:
    """Return a console of the size that the terminal of a stream has now."""
    console = Console(file=stream, highlight=False)
    measure(console)
    return console


def measure(console: Console) -> None:
    """Give a console the size that its terminal has now: COLUMNS, where a shell exports it, follows no resizing."""
    with contextlib.suppress(OSError):
        columns, lines = os.get_terminal_size(console.file.fileno())
        console.size = columns or 80, lines or 24


def show_report(results: Results, written: report.Written, stream: TextIO | None = None) -> None:
    """Print what every command that makes results ends with: the tables, and where everything is."""
    stream = stream or sys.stdout
    if stream.isatty():
        print_tables(results, make_console(stream))
    else:
        print(written.table, file=stream)
    print(f"\nreport: {written.markdown}\ndata:   {written.json}", file=stream)
    if written.graphs:
        print(f"graphs: {written.graphs[0].parent} ({len(written.graphs)} files)", file=stream)
    for names, why in written.skipped:
        print(f"graphs skipped, {names}: {why}", file=stream)


def print_tables(results: Results, console: Console) -> None:
    """Print the tables of the report, with their conditions and remarks, to fit a console."""

    def fitted(head: list[str], rows: list[list[str]]) -> Iterator[RenderableType]:
        return fit_table(head, rows, console.width)

    for part in report.tables(results, fitted):
        console.print(Text(part) if isinstance(part, str) else part)


def fit_table(head: list[str], rows: list[list[str]], width: int) -> Iterator[RenderableType]:
    """Yield a table of the columns that fit `width` letters, and a line that names those left out."""
    columns = choose_columns(head, rows, width)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    cells = {}
    for i, letters in columns.items():
        words = head[i] in ("run", "status")
        table.add_column(head[i], width=letters, justify="left" if words else "right", vertical="top", overflow="fold")
        entries = [row[i] for row in rows]
        if head[i] == "run":
            entries = shorten_ids(entries, letters)
        cells[i] = [Text(e, style=STYLES.get(e, "") if head[i] == "status" else "") for e in entries]
    for row in zip(*cells.values(), strict=True):
        table.add_row(*row)
    yield table
    left_out = [h for i, h in enumerate(head) if i not in columns]
    if left_out:
        yield Text(f"not shown at this width: {', '.join(left_out)} (the report has them)", style="dim")


def choose_columns(head: list[str], rows: list[list[str]], width: int) -> dict[int, int]:
    """Return the letters of each column that is shown, by its place in `head`: the most important ones first, as long
    as they fit. Headings break between words where there is no room for all. The run's id is cut short where an
    essential column would not fit else."""
    longest = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    if sum(longest) + GAP * (len(head) - 1) <= width:
        return dict(enumerate(longest))
    needs = [max(map(len, [*h.split(), *column])) for h, *column in zip(head, *rows, strict=True)]
    known = {h: i for i, h in enumerate(IMPORTANT)}
    order = sorted(range(len(head)), key=lambda i: known.get(head[i], len(known)))
    essential = order[: ESSENTIAL + ("status" in head)]
    if "run" in head:
        others = sum(GAP + needs[i] for i in essential[1:])
        needs[order[0]] = min(needs[order[0]], max(SHORTEST_ID, width - others))
    chosen, left = set(), width + GAP
    for i in order:
        if needs[i] + GAP <= left or not chosen:
            chosen.add(i)
            left -= needs[i] + GAP
    return {i: min(needs[i], width) for i in sorted(chosen)}
