"""What a person watches while a matrix runs: a bar for each run, from its own metrics, and one for the matrix, with the
time that is left. Where the output is no terminal, a line a run."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from lib.forecast import Forecast, Running, duration
from lib.ids import shorten
from lib.record import held_out
from lib.rundir import RunDir
from lib.terminal import interactive, make_console, measure

EVERY = 0.2  # seconds between two drawings
MARGIN = 3  # letters that stay free: the terminal writes ^C at the cursor, which must not wrap
SHORTEST_BAR, LONGEST_BAR = 8, 40
SHORTEST_ID, USUAL_ID = 12, 38  # letters of a run's id: at least, and before there is room for all that is known


class Progress:
    """Follow the jobs of a matrix, any number at a time: `poll(job)` while one runs, `ended(job, status)` once it has
    ended. costs: what each run is expected to cost beside the others, by its id."""

    def __init__(
        self,
        total: int,
        costs: Mapping[str, float] | None = None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.stream, self.clock = stream or sys.stderr, clock
        self.forecast = Forecast(total, costs or {}, clock)
        self.total, self.count, self.failed = total, 0, 0
        self.runs: dict = {}  # job -> Running, of those that run now
        self.live = interactive(self.stream)
        self.drawn = 0.0

    def __enter__(self):
        if self.live:
            self.console = make_console(self.stream)
            self.bars = Bars(self)
            # Drawn by poll, not by a thread of its own: nothing runs beside forks and signals.
            self.display = Live(
                self.bars,
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
                vertical_overflow="crop",
            )
            self.display.start()
            self.console.show_cursor(True)  # a kill cannot leave it hidden
            self._draw()
        return self

    def __exit__(self, *exc):
        if self.live:
            self._resize()
            self.display.stop()

    def poll(self, job) -> None:
        """Read what a run has added to its metrics since the last look."""
        self._read(job)
        if self.live and self.clock() - self.drawn >= EVERY:
            self._draw()

    def restart(self, job) -> None:
        """Forget what was read of a run that is to be run again from its start."""
        self._read(job).restart()

    def _read(self, job) -> Running:
        if job not in self.runs:
            self.runs[job] = self.forecast.begin(job.run_dir.name)
        run = self.runs[job]
        path = RunDir(job.run_dir).metrics
        try:  # whatever is in the file, a bar is no reason to end a matrix
            if path.is_file():
                with path.open("rb") as f:
                    f.seek(run.offset)
                    while (line := f.readline()).endswith(b"\n"):
                        run.offset = f.tell()
                        self._note(run, line)
        except OSError:
            pass
        return run

    def _note(self, run: Running, line: bytes) -> None:
        try:
            row = json.loads(line)
            if row["event"] == "start":
                run.start(int(row["steps"]), self.clock())
            elif run.steps:
                run.advance(int(row["step"]), self.clock())
                if row["event"] == "epoch" and row["validation_loss"] is not None:
                    found = held_out(row["validation_loss"], row["validation_accuracy"])
                    run.quality = f"val {found.strip().replace('perplexity', 'ppl')}"
                    run.sparsity = f"at {100 * row['sparsity']:.0f}%"
        except (ValueError, KeyError, TypeError):
            pass

    def _draw(self) -> None:
        self.drawn = self.clock()
        self._resize()
        self.display.refresh()

    def _resize(self) -> None:
        measure(self.console)
        self.bars.reflow(self.console)

    def ended(self, job, status) -> None:
        run = self._read(job)
        self.count += 1
        self.failed += status.state != "done"
        self.forecast.end(run, status.state == "done")
        del self.runs[job]
        if not self.live:
            print(self._line(job, run, status), file=self.stream, flush=True)
            return
        if status.state != "done":
            self._resize()
            self.console.print(Text(self._line(job, run, status), style="red"), soft_wrap=True)
        self._draw()

    def _line(self, job, run: Running, status) -> str:
        """What is said of a run that has ended."""
        where = RunDir(job.run_dir)
        if status.state != "done":
            what = f"{status.state}; see {where.error if where.error.exists() else where.log}"
        else:
            what = f"{run.quality} {run.sparsity} sparsity" if run.quality else "done"
        left = self.forecast.seconds_left()
        more = f"; {duration(left)} left" if left and self.count < self.total else ""
        return f"[{self.count}/{self.total}] {where.path.name}: {what} ({run.elapsed():.1f} s{more})"


class Bars:
    """The live view: a line for each run that is under way, and one for the matrix. It takes the width that the
    terminal has at each drawing."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.width, self.lines = 0, []  # of the terminal at the last drawing, and of each line drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table(max(1, options.max_width - MARGIN), max(1, console.height - 2))
        lines = console.render_lines(table, options, pad=False)
        self.width, self.lines = options.max_width, [Segment.get_line_length(line) for line in lines]
        for i, line in enumerate(lines):
            yield from line
            if i < len(lines) - 1:
                yield Segment.line()

    def reflow(self, console: Console) -> None:
        """Erase the lines that came into being when a narrower window broke those drawn before."""
        width = console.width
        if not self.width or width >= self.width:
            return
        more = sum(max(0, -(-length // width) - 1) for length in self.lines)
        erase_up = (ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)
        console.control(Control(*erase_up * more))
        self.width = width

    def _table(self, width: int, height: int) -> Table:
        rows = [self._run(run) for run in self.progress.runs.values()]
        if len(rows) > height - 1:
            hidden = len(rows) - max(0, height - 2)
            rows = [*rows[: max(0, height - 2)], (f"and {hidden} more runs", None, "", "", "", "")]
        rows.append(self._matrix())
        texts = [0, 2, 3, 4, 5]  # name, steps, time, quality, sparsity
        longest = {i: max(len(row[i]) for row in rows) for i in texts}
        shown, name, bar = lay_out(longest, width)
        table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(width=name, no_wrap=True)
        if bar:
            table.add_column(width=bar)
        for i in shown:
            table.add_column(width=longest[i], justify="left" if i > 3 else "right", no_wrap=True)
        for row in rows:
            share = row[1]
            drawn = Text() if share is None else ProgressBar(100, 100 * share, width=bar, complete_style="cyan")
            table.add_row(Text(shorten(row[0], name)), *([drawn] if bar else []), *(Text(row[i]) for i in shown))
        return table

    def _run(self, run: Running) -> tuple:
        """Name, share done, steps, time left, quality, sparsity."""
        steps = f"{run.step}/{run.steps}" if run.steps else "starting"
        return run.name, run.share(), steps, left(self.progress.forecast.run_left(run)), run.quality, run.sparsity

    def _matrix(self) -> tuple:
        p = self.progress
        bad = f"{p.failed} failed" if p.failed else ""
        share = p.forecast.share()
        return "matrix", share, f"{p.count}/{p.total} runs", left(p.forecast.seconds_left()), bad, ""


def left(seconds: float | None) -> str:
    return "" if seconds is None else f"{duration(seconds)} left"


def lay_out(longest: dict[int, int], width: int) -> tuple[list[int], int, int]:
    """Return which of the columns 2 to 5 are shown, the letters of the name and those of the bar, for a width."""
    name = longest[0]
    for shown, enough in (
        ([2, 3, 4, 5], min(name, USUAL_ID)),
        ([2, 3, 4], min(name, USUAL_ID)),
        ([2, 3], min(name, SHORTEST_ID)),
        ([3], min(name, SHORTEST_ID)),
        ([], 0),
    ):
        shown = [i for i in shown if longest[i]]
        room = width - sum(longest[i] + 1 for i in shown) - 1
        if room >= enough + SHORTEST_BAR:
            break
    name = max(0, min(name, room - SHORTEST_BAR))
    if not name:
        return [], max(1, min(longest[0], width)), 0
    return shown, name, min(LONGEST_BAR, room - name)
