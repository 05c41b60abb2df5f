"""The live view's table of processes: all of a device, those of runs first, in an order and through a filter."""

from rich.text import Text
from textual.binding import Binding
from textual.widgets import DataTable

from lib.gputop import show
from lib.ids import shorten
from lib.monitor.users import User

# Head of a column -> (what it is sorted by, whether the highest come first).
ORDERS = {
    "memory": (lambda u: u.memory or 0.0, True),
    "busy": (lambda u: u.utilization or 0.0, True),
    "run": (lambda u: u.run or "", False),
    "user": (lambda u: u.owner, False),
    "command": (lambda u: u.command, False),
    "pid": (lambda u: u.pid, False),
}
OWNER, RUN, COMMAND = 10, 34, 200  # letters of these columns
MOST = 1000  # rows


class ProcessTable(DataTable):
    """Who uses a device. order: the head it is sorted by; backwards: the other way round; wanted: words that a row has
    to hold."""

    BINDINGS = [
        Binding("home", "scroll_top", "first", show=False),
        Binding("end", "scroll_bottom", "last", show=False),
    ]

    def __init__(self, **options):
        super().__init__(cursor_type="row", show_cursor=False, **options)
        self.users: list[User] = []
        self.lines: list[list[str]] = []
        self.order, self.backwards, self.wanted = "memory", False, ""

    def show(self, users: list[User]) -> None:
        self.users = users
        chosen = arrange(matching(users, self.wanted), self.order, self.backwards)[:MOST]
        runs = min(RUN, self.app.size.width // 3) if any(u.run for u in chosen) else 1
        self.lines = []
        for u in chosen:
            pid, owner, run, memory, busy, command = show.user(u)
            self.lines.append([pid, owner[:OWNER], shorten(run, runs), memory, busy, command[:COMMAND]])
        self.draw()

    def draw(self) -> None:
        """Set the rows that are on the screen, and those a page away."""
        page = max(1, self.size.height)
        first = round(self.scroll_y) - page
        fill(self, show.USER_HEADS, self.lines, range(first, first + 3 * page))

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self.draw()

    def next_order(self) -> None:
        heads = list(ORDERS)
        self.order = heads[(heads.index(self.order) + 1) % len(heads)]
        self.again()

    def turn(self) -> None:
        self.backwards = not self.backwards
        self.again()

    def keep(self, wanted: str) -> None:
        """Show the processes that hold these words alone."""
        self.wanted = wanted
        self.again()

    def again(self) -> None:
        self.show(self.users)
        self.scroll_home(animate=False)

    def order_words(self) -> str:
        """Return what differs from all processes by memory, for the top line."""
        order = f"by {self.order}{' backwards' * self.backwards}" if (self.order, self.backwards) != FIRST else ""
        return "  ".join(filter(None, (order, f"filter: {self.wanted}" if self.wanted else "")))

    def on_focus(self) -> None:
        self.show_cursor = True

    def on_blur(self) -> None:
        self.show_cursor = False


FIRST = ("memory", False)


def matching(users: list[User], wanted: str) -> list[User]:
    """Return the users whose pid, owner, run or command hold every word, whatever its case."""
    words = wanted.lower().split()
    return [u for u in users if all(w in f"{u.pid} {u.owner} {u.run or ''} {u.command}".lower() for w in words)]


def arrange(users: list[User], order: str, backwards: bool = False) -> list[User]:
    """Return the users of runs, then the others, each sorted by a column; equals stay as they are."""
    key, highest = ORDERS[order]
    found = sorted(users, key=key, reverse=highest != backwards)
    return sorted(found, key=lambda u: u.run is None)


def fill(table: DataTable, heads: tuple[str, ...], rows: list[list[str]], shown: range | None = None) -> None:
    """Set the rows of a table; cells that are there are overwritten, so that it does not flicker, of the rows `shown`
    alone where there may be many. They are Text, for a plain word in brackets would be taken for a style."""
    if not table.columns:
        for head in heads:
            table.add_column(head, key=head)
    there = min(table.row_count, len(rows))
    for i in range(len(rows), table.row_count):
        table.remove_row(str(i))
    for i in shown or range(there):
        for head, cell in zip(heads, rows[i], strict=True) if 0 <= i < there else ():
            if table.get_cell(str(i), head).plain != cell:
                # looks through all rows for the widest, so only where it grows
                wider = len(cell) > table.columns[head].content_width
                table.update_cell(str(i), head, Text(cell), update_width=wider)
    for i in range(there, len(rows)):
        table.add_row(*map(Text, rows[i]), key=str(i))
