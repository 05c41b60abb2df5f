"""The live view: devices, the history of one of them, who uses it. Keys choose, pause, help and quit."""

import asyncio
import contextlib
import platform
import signal
import textwrap
import time
from collections.abc import Callable

import plotext
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Grid
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from lib.gputop import show
from lib.gputop.watch import Watch
from lib.monitor.base import Device, Sample
from lib.monitor.users import User

# Reading -> (title, unit, colour, what the highest value can be: fixed, of the device, or None: the highest seen).
# Colours are of Okabe and Ito's set, which the colour-blind can tell apart.
GRAPHS = {
    "utilization": ("utilization", "%", "#56B4E9", 100.0),
    "memory_used": ("memory", "MiB", "#E69F00", "memory_total"),
    "temperature": ("temperature", "C", "#D55E00", 100.0),
    "power": ("power", "W", "#009E73", "power_limit"),
    "clock": ("clock", "MHz", "#CC79A7", None),
    "pcie_rx": ("PCIe in", "MiB/s", "#F0E442", None),
    "memory_clock": ("memory clock", "MHz", "#CC79A7", None),
    "fan": ("fan", "%", "#56B4E9", 100.0),
}
MOST = 4  # graphs at a time
MAIN = ("utilization", "memory_used", "temperature", "power")  # the others fill up
USERS = 2.0  # seconds between two looks at all processes, of which there may be thousands
GIB = 1024
KEPT = "\N{NO-BREAK SPACE}"  # one detail stays on one line
SPANS = (60, 300, 1800)  # seconds of history
BESIDE = 69  # columns that a device's line takes beside its name
COMPACT = 7  # lines up to which a graph has no axis of time
LOW = 8  # lines of all graphs below which there is one row of them


class Graph(Static):
    """One reading of one device over time."""

    points: list[tuple[float, float | None]] = []
    name_, top, span = "utilization", None, float(SPANS[0])

    def show(self, points: list[tuple[float, float | None]], name: str, top: float | None, span: float) -> None:
        """points: (seconds, at most 0, value). top: the highest that there can be, if that is known."""
        self.points, self.name_, self.top, self.span = points, name, top, span
        self.refresh()

    def render(self) -> Text:
        """When it is asked for, so at the size it has then."""
        title, unit, colour, _ = GRAPHS[self.name_]
        width, height = self.size.width, self.size.height
        if width < 12 or height < 3:
            return Text()
        known = thinned([(t, v) for t, v in self.points if v is not None], 2 * width)
        seen = max([v for _, v in known] + [1e-9])
        high = max(self.top, seen) if self.top else seen * 1.05
        if unit == "MiB" and high >= 10 * GIB:
            unit, high, known = "GiB", high / GIB, [(t, v / GIB) for t, v in known]
        reported = self.points and self.points[-1][1] is not None
        now = f"{known[-1][1]:.{int(unit == 'GiB')}f} {unit}" if reported else "not reported"
        drawn = picture(known, high, self.span, width, height, f"{title}: {now}")
        return Text(drawn, style=colour, no_wrap=True)


def thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """About `most` of them: of each stretch the highest, so that no peak is lost, and the newest."""
    step = max(1, -(-len(points) // most))
    return [max(points[i : i + step], key=lambda p: p[1]) for i in range(0, len(points) - 1, step)] + points[-1:]


def picture(points: list[tuple[float, float]], high: float, span: float, width: int, height: int, title: str) -> str:
    """A graph in characters, `height` lines of `width`. plotext draws what is between title and axis of time."""
    roomy = height > COMPACT
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, height - 1 - roomy)
    plotext.xaxes(False, False)
    plotext.yaxes(True, False)
    plotext.xlim(-span, 0)
    plotext.ylim(0, high)
    ticks = [0, high / 2, high] if roomy else [0, high]
    plotext.yticks(ticks, [f"{v:.0f}" for v in ticks])
    plotext.xticks([], [])
    if points:
        plotext.plot([t for t, _ in points], [v for _, v in points], marker="braille")
    drawn = plotext.uncolorize(plotext.build()).rstrip("\n")
    start = f"   -{span:.0f} s"
    return "\n".join([title.center(width), drawn, *([f"{start}{'now':>{width - len(start)}}"] if roomy else [])])


class Help(ModalScreen):
    """What the keys and the columns mean."""

    BINDINGS = [("escape,question_mark,h,q", "dismiss", "close")]
    TEXT = """[b]gputop[/b]: every device of every vendor, and who uses it

up, down    choose a device: graphs and processes are its own
p, space    pause and go on; reading, and a record of it, go on meanwhile
+, -        sample more or less often
t           a longer or shorter stretch of time in the graphs
?, h        this page
q           quit

-           a dash means that the device does not report it
run         the run of a results directory that a process belongs to
out, in     what the device sends and receives

any of ?, h, q or escape closes this"""

    def compose(self) -> ComposeResult:
        yield Static(self.TEXT, id="help")


class Gputop(App):
    """`record(t, samples)` is called with every reading."""

    TITLE = "gputop"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #top { height: 1; text-style: bold; }
    #devices { height: auto; max-height: 9; }
    #graphs { grid-size: 2; grid-rows: 1fr; grid-gutter: 0 1; height: 1fr; min-height: 6; }
    Graph { height: 100%; width: 100%; }
    #graphs.one { grid-size: 1; }
    #details { height: auto; max-height: 2; }
    #users { height: auto; max-height: 25%; overflow-x: hidden; scrollbar-size-vertical: 0; }
    #devices { overflow-x: hidden; scrollbar-size-vertical: 0; }
    Help { align: center middle; }
    #help { width: auto; max-width: 100%; height: auto; max-height: 100%; border: round; padding: 0 2; }
    """
    BINDINGS = [
        Binding("p,space", "pause", "pause"),
        Binding("plus,equals_sign", "faster", "+", show=False),
        Binding("minus", "slower", "-", show=False),
        Binding("t", "span", "time"),
        Binding("question_mark,h", "help", "help"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def __init__(self, watch: Watch, interval: float = 1.0, record: Callable[[list[Sample]], None] | None = None):
        super().__init__()
        self.watch, self.every, self.record, self.paused, self.span = watch, interval, record, False, SPANS[0]
        self.chosen: Device | None = None
        self.asked: tuple[Device, float] | None = None
        self.users: list[User] = []

    def compose(self) -> ComposeResult:
        yield Static(id="top")
        yield DataTable(id="devices", cursor_type="row")
        with Grid(id="graphs"):
            for i in range(MOST):
                yield Graph(id=f"graph{i}")
        yield Static(id="details")
        yield DataTable(id="users", cursor_type="none", show_cursor=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#devices", DataTable).focus()
        self.query_one("#users", DataTable).can_focus = False
        self.timer = self.set_interval(self.every, self.tick)
        self.watch.tick()
        self.call_after_refresh(self.show)
        for number in (signal.SIGTERM, signal.SIGHUP):  # the terminal is to be left as it was
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not the main thread
                asyncio.get_running_loop().add_signal_handler(number, self.exit)

    def on_resize(self) -> None:
        self.call_after_refresh(self.show)

    def tick(self) -> None:
        samples = self.watch.tick()
        if self.record:
            self.record(samples)
        if not self.paused:
            self.show()

    def show(self) -> None:
        """Everything anew from what was read last."""
        if not self.is_mounted or isinstance(self.screen, Help):
            return
        self.show_top()
        self.show_devices()
        if self.chosen:
            self.show_graphs(self.chosen)
            self.show_details(self.chosen)
            self.show_users(self.chosen)

    def show_top(self) -> None:
        state = "PAUSED" if self.paused else f"every {self.every:g} s"
        note = f"  note: {self.watch.said[-1]}" if self.watch.said else ""
        note = note if self.watch.devices else "  no device answers: neither a GPU's driver nor the host"
        self.query_one("#top", Static).update(
            Text(f"gputop  {platform.node()}  {time.strftime('%H:%M:%S')}  {state}{note}", no_wrap=True)
        )

    def show_devices(self) -> None:
        table, devices = self.query_one("#devices", DataTable), self.watch.devices
        if not devices:
            return
        self.chosen = self.chosen if self.chosen in devices else devices[0]
        room = max(8, self.size.width - BESIDE)
        rows = [show.row(self.watch, d) for d in devices]
        fill(table, show.HEADS, [[r[0], r[1][:room], *r[2:]] for r in rows])
        table.move_cursor(row=devices.index(self.chosen), animate=False)

    def show_graphs(self, device: Device) -> None:
        history = list(self.watch.history.get(device, ()))
        now = self.watch.clock()
        recent = [(t - now, s) for t, s in history if now - t <= self.span]
        reported = [n for n in GRAPHS if any(getattr(s, n) is not None for _, s in recent)][:MOST]
        place = self.query_one("#graphs")
        if place.size.height < LOW or (len(reported) == 3 and reported[2] not in MAIN):
            reported = reported[:2]
        place.set_class(len(reported) == 1, "one")
        for i in range(MOST):
            graph = self.query_one(f"#graph{i}", Graph)
            graph.display = i < len(reported)
            if i < len(reported):
                name = reported[i]
                top = GRAPHS[name][3]
                top = self.watch.total(device, top) if isinstance(top, str) else top
                graph.show([(t, getattr(s, name)) for t, s in recent], name, top, self.span)

    def show_details(self, device: Device) -> None:
        more = "  ".join(what.replace(" ", KEPT) for what in show.details(device, self.watch.latest(device)))
        lines = textwrap.wrap(more, max(20, self.size.width))
        self.query_one("#details", Static).update(Text("\n".join(lines).replace(KEPT, " ")))

    def show_users(self, device: Device) -> None:
        now = self.watch.clock()
        if self.asked is None or self.asked[0] is not device or now - self.asked[1] >= USERS:
            self.asked, self.users = (device, now), self.watch.users(device, 20)
        users = self.users
        runs = max((len(u.run or "") for u in users), default=0) and 34
        rows = []
        for u in users:
            pid, owner, run, memory, busy, command = show.user(u)
            rows.append([pid, owner[:10], run[: runs or 1], memory, busy, command[:200]])
        fill(self.query_one("#users", DataTable), show.USER_HEADS, rows)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        devices = self.watch.devices
        if event.data_table.id == "devices" and event.cursor_row < len(devices):
            new = devices[event.cursor_row]
            if new is not self.chosen:
                self.chosen = new
                self.call_after_refresh(self.show)

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.show_top()

    def action_faster(self) -> None:
        self.pace(max(0.1, self.every / 2))

    def action_slower(self) -> None:
        self.pace(min(60.0, self.every * 2))

    def pace(self, every: float) -> None:
        self.timer.stop()
        self.every = every
        self.timer = self.set_interval(every, self.tick)
        self.show_top()

    def action_span(self) -> None:
        self.span = SPANS[(SPANS.index(self.span) + 1) % len(SPANS)]
        self.show()

    def action_help(self) -> None:
        self.push_screen(Help(), lambda _: self.show())


def fill(table: DataTable, heads: tuple[str, ...], rows: list[list[str]]) -> None:
    """The rows of a table; cells that are there are overwritten, so that it does not flicker. They are Text, for a
    plain word in brackets would be taken for a style."""
    if not table.columns:
        for head in heads:
            table.add_column(head, key=head)
    while table.row_count > len(rows):
        table.remove_row(str(table.row_count - 1))
    for i, row in enumerate(rows):
        if i >= table.row_count:
            table.add_row(*map(Text, row), key=str(i))
        else:
            for head, cell in zip(heads, row, strict=True):
                if table.get_cell(str(i), head).plain != cell:
                    table.update_cell(str(i), head, Text(cell), update_width=True)
