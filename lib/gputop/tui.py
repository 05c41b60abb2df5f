"""The live view: devices, the history of one of them, who uses it. Keys choose, pause, help and quit."""

import asyncio
import contextlib
import platform
import signal
import textwrap
import time
from collections.abc import Callable

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static

from lib.gputop import show
from lib.gputop.graph import GRAPHS, Graph
from lib.gputop.processes import ProcessTable, fill
from lib.gputop.watch import Frozen, View, Watch
from lib.monitor.base import Device, Sample

MOST = 4  # graphs at a time
MAIN = ("utilization", "memory_used", "temperature", "power")  # the others fill up
USERS = 2.0  # seconds between two looks at all processes, of which there may be thousands
PATIENCE = 20  # times as long as the last look took, where that is more
KEPT = "\N{NO-BREAK SPACE}"  # one detail stays on one line
SPANS = (60, 300, 1800)  # seconds of history
BESIDE = 69  # columns that a device's line takes beside its name
TALL = 24  # lines of a terminal below which the processes, when they are looked at, take the room of the graphs
LOW = 8  # lines of all graphs below which there is one row of them


class Help(ModalScreen):
    """What the keys and the columns mean."""

    BINDINGS = [("escape,question_mark,h,q", "dismiss", "close")]
    TEXT = """[b]gputop[/b]: every device of every vendor, and who uses it

up, down    choose a device, for graphs and processes
p, space    freeze what is shown; a record goes on
tab         give the processes more room, and back
pgup, pgdn  scroll the processes
s, r        sort them by another column; the other way
/           only those with some words; escape: all
+, -        sample more or less often
t           more or less time in the graphs
?, h        this page
q           quit

-           what the device does not report
run         whose process it is: runs come first
out, in     what the device sends and receives

any of ?, h, q or escape closes this"""

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):  # of a small terminal
            yield Static(self.TEXT)


class Gputop(App):
    """`record(t, samples)` is called with every reading."""

    TITLE = "gputop"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #top { height: 1; text-style: bold; }
    #devices { height: auto; max-height: 9; }
    #graphs { grid-size: 2; grid-rows: 1fr; grid-gutter: 0 1; height: 1fr; min-height: 6; }
    Graph { height: 100%; width: 100%; }
    #graphs.one { grid-size: 1; }
    #details { height: auto; max-height: 2; }
    #users { height: auto; max-height: 25%; overflow-x: hidden; scrollbar-size-vertical: 1; }
    #users:focus { height: 2fr; max-height: 100%; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #filter.open { display: block; }
    #devices { overflow-x: hidden; scrollbar-size-vertical: 0; }
    Help { align: center middle; }
    #help { width: 60; max-width: 100%; height: auto; max-height: 100%; border: round; padding: 0 2; }
    """
    BINDINGS = [
        Binding("p,space", "pause", "pause"),
        Binding("s", "sort", "sort"),
        Binding("r", "turn", "reverse", show=False),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("escape", "drop", "all", show=False),
        Binding("pageup", "scroll(-1)", "up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "down", show=False, priority=True),
        Binding("plus,equals_sign", "faster", "+", show=False),
        Binding("minus", "slower", "-", show=False),
        Binding("t", "span", "time"),
        Binding("question_mark,h", "help", "help"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
    ]

    def __init__(self, watch: Watch, interval: float = 1.0, record: Callable[[list[Sample]], None] | None = None):
        super().__init__()
        self.watch, self.every, self.record, self.span = watch, interval, record, SPANS[0]
        self.view: View = watch  # what is shown: the watch, or what it was when it was paused
        self.chosen: Device | None = None
        self.asked: tuple[Device, float, float] | None = None  # whose processes, when, and seconds until the next look
        self.now, self.stamp = 0.0, ""  # of what is shown

    @property
    def paused(self) -> bool:
        return self.view is not self.watch

    def compose(self) -> ComposeResult:
        yield Static(id="top")
        yield DataTable(id="devices", cursor_type="row")
        with Grid(id="graphs"):
            for i in range(MOST):
                yield Graph(id=f"graph{i}")
        yield Static(id="details")
        yield ProcessTable(id="users")
        yield Input(id="filter", placeholder="words of a process", select_on_focus=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#devices", DataTable).focus()
        self.processes = self.query_one("#users", ProcessTable)
        self.words = self.query_one("#filter", Input)
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
        self.now = self.view.clock()
        self.stamp = self.stamp if self.paused else time.strftime("%H:%M:%S")
        self.show_top()
        self.show_devices()
        if self.chosen:
            self.show_graphs(self.chosen)
            self.show_details(self.chosen)
            self.show_users(self.chosen)

    def show_top(self) -> None:
        state = "PAUSED" if self.paused else f"every {self.every:g} s"
        note = f"note: {self.view.said[-1]}" if self.view.said else ""
        note = note if self.view.devices else "no device answers: neither a GPU's driver nor the host"
        words = ("gputop", platform.node(), self.stamp, state, self.processes.order_words(), note)
        self.query_one("#top", Static).update(Text("  ".join(filter(None, words)), no_wrap=True))

    def show_devices(self) -> None:
        table, devices = self.query_one("#devices", DataTable), self.view.devices
        if not devices:
            return
        self.chosen = self.chosen if self.chosen in devices else devices[0]
        room = max(8, self.size.width - BESIDE)
        rows = [show.row(self.view, d) for d in devices]
        fill(table, show.HEADS, [[r[0], r[1][:room], *r[2:]] for r in rows])
        table.move_cursor(row=devices.index(self.chosen), animate=False)

    def show_graphs(self, device: Device) -> None:
        history = list(self.view.history.get(device, ()))
        now = self.now
        recent = [(t - now, s) for t, s in history if now - t <= self.span]
        reported = [n for n in GRAPHS if any(getattr(s, n) is not None for _, s in recent)][:MOST]
        place = self.query_one("#graphs")
        place.display = self.size.height >= TALL or not self.processes.has_focus
        if place.size.height < LOW or (len(reported) == 3 and reported[2] not in MAIN):
            reported = reported[:2]
        place.set_class(len(reported) == 1, "one")
        for i in range(MOST):
            graph = self.query_one(f"#graph{i}", Graph)
            graph.display = i < len(reported)
            if i < len(reported):
                name = reported[i]
                top = GRAPHS[name][3]
                top = self.view.total(device, top) if isinstance(top, str) else top
                graph.show([(t, getattr(s, name)) for t, s in recent], name, top, self.span)

    def show_details(self, device: Device) -> None:
        more = "  ".join(what.replace(" ", KEPT) for what in show.details(device, self.view.latest(device)))
        lines = textwrap.wrap(more, max(20, self.size.width))
        self.query_one("#details", Static).update(Text("\n".join(lines).replace(KEPT, " ")))

    def show_users(self, device: Device) -> None:
        """Who uses a device; asked again when the last look is old enough."""
        if self.paused:
            self.processes.show(self.view.users(device))
        elif self.asked is None or self.asked[0] is not device or self.now - self.asked[1] >= self.asked[2]:
            begun = time.perf_counter()
            self.processes.show(self.watch.users(device))
            took = time.perf_counter() - begun
            self.asked = device, self.now, max(USERS, PATIENCE * took)

    def on_descendant_focus(self) -> None:
        self.call_after_refresh(self.show)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        devices = self.view.devices
        if event.data_table.id == "devices" and event.cursor_row < len(devices):
            new = devices[event.cursor_row]
            if new is not self.chosen:
                self.chosen = new
                self.call_after_refresh(self.show)

    def action_pause(self) -> None:
        if self.paused:
            self.view, self.asked = self.watch, None
        else:
            known = {self.asked[0]: self.processes.users} if self.asked else {}
            self.view = Frozen(self.watch, self.now, known)
        self.show()

    def action_sort(self) -> None:
        self.processes.next_order()
        self.show_top()

    def action_turn(self) -> None:
        self.processes.turn()
        self.show_top()

    def action_scroll(self, pages: int) -> None:
        table = self.processes
        table.scroll_relative(y=pages * max(1, table.size.height - 2), animate=False)

    def check_action(self, action: str, parameters: tuple) -> bool:
        """The help page scrolls with the keys of the processes."""
        return action != "scroll" or not isinstance(self.screen, Help)

    def action_filter(self) -> None:
        self.words.add_class("open")
        self.words.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.processes.keep(event.value)
        self.show_top()

    def on_input_submitted(self) -> None:
        self.words.remove_class("open")
        self.query_one("#devices", DataTable).focus()

    def action_drop(self) -> None:
        """Show all processes again."""
        self.words.value = ""
        self.on_input_submitted()

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
