"""The live view's graphs: one reading of one device over time, in characters."""

import plotext
from rich.text import Text
from textual.widgets import Static

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
GIB = 1024
COMPACT = 7  # lines up to which a graph has no axis of time


class Graph(Static):
    """One reading of one device over time."""

    points: list[tuple[float, float | None]] = []
    name_, top, span = "utilization", None, 60.0

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
        now = f"{known[-1][1]:z.{int(unit == 'GiB')}f} {unit}" if reported else "not reported"
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
    plotext.yticks(ticks, [f"{v:z.0f}" for v in ticks])
    plotext.xticks([], [])
    if points:
        # plotext walks a line that leaves the picture to its end, however far: a sensor may be a little below 0
        plotext.plot([t for t, _ in points], [min(max(v, 0.0), high) for _, v in points], marker="braille")
    drawn = plotext.uncolorize(plotext.build()).rstrip("\n")
    start = f"   -{span:.0f} s"
    return "\n".join([title.center(width), drawn, *([f"{start}{'now':>{width - len(start)}}"] if roomy else [])])
