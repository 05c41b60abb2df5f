"""How figures are drawn: one style, pages with room for title, legends and small print, and the recurring panels."""

import textwrap
from collections.abc import Callable, Sequence

from lib.figure.base import METHODS, Family, Setting, average, marker
from lib.results import Run
from lib.spec import percent

STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titley": 1.0,  # given, it is not searched for, which takes a third of the time
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.solid_capstyle": "round",
}
DENSE = METHODS[0]
GREY = "#777777"
FAINT = 0.3  # how strong a single seed is drawn
# By sparsity from the highest down, beside its shade.
DASHES = ("solid", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))
ROW = 0.19  # inches a row of bars
STRIP = 0.21  # inches a line of legend
HEADING = 0.95  # inches from the left edge to a legend's entries
LETTER = 0.065  # inches a letter of legend
SMALL = 6.5  # points of the small print
COLUMNS = 4  # of small panels
SEEDS = "Strong: mean over seeds; faint: each seed"

Legend = tuple[str, list]  # a heading and the handles
Value = Callable[[dict], float | None]  # of a row of metrics


def page(width: float, height: float, title: str, foot: str, legends: Sequence[Legend] = (), layout="constrained"):
    """A Figure with `height` inches for its panels, and around them room for the title, the legends and the small
    print. Without a layout the panels' area is given by subplots_adjust, which is twice as fast."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update(STYLE)
    lines = textwrap.wrap(foot, int(width * 18.5))
    at = 0.08 + 0.125 * len(lines)
    shapes = [(heading, handles, columns(handles, width - HEADING)) for heading, handles in legends if handles]
    bottom = at + STRIP * sum(-(-len(handles) // n) for _, handles, n in shapes) + 0.1
    total = bottom + height + 0.4
    fig = Figure(figsize=(width, total))
    if layout:
        fig.set_layout_engine(layout, rect=(0.006, bottom / total, 0.988, height / total), h_pad=0.06, w_pad=0.06)
    else:
        fig.subplots_adjust(left=0.65 / width, right=1 - 0.2 / width, hspace=0.28, wspace=0.17)
        fig.subplots_adjust(bottom=(bottom + 0.4) / total, top=1 - 0.72 / total)
    fig.text(0.12 / width, 1 - 0.12 / total, title, size=12, weight="bold", va="top")
    fig.text(0.12 / width, 0.07 / total, "\n".join(lines), size=SMALL, color="#555555", va="bottom", linespacing=1.3)
    for heading, handles, n in reversed(shapes):
        rows_ = -(-len(handles) // n)
        at += STRIP * rows_
        fig.text(0.12 / width, (at - 0.02) / total, heading, size=8, va="top")
        fig.legend(
            handles=[h for i in range(n) for h in handles[i::n]],  # matplotlib fills columns first
            ncols=n, loc="upper left", bbox_to_anchor=(HEADING / width, at / total), fontsize=8, frameon=False,
            borderpad=0, borderaxespad=0, columnspacing=1.2, labelspacing=0.72,
            handlelength=1 if handles[0].get_linestyle() == "None" else 2.4, handletextpad=0.5,
        )  # fmt: skip
    return fig


def columns(handles: list, width: float) -> int:
    """How many entries of a legend stand in a line of this many inches."""
    cells = [0.52 + LETTER * len(h.get_label()) for h in handles]
    return next((n for n in range(len(cells), 1, -1) if sum(max(cells[i::n]) for i in range(n)) <= width), 1)


def entry(label: str, **style):
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"color": GREY, "linestyle": "none", "markersize": 7, "label": label, **style})


def hue_legend(family: Family, axis: str) -> Legend:
    """What hues mean. Methods that share the hue of a base or variant are one entry, named after that."""
    heading = {"optimizer": "optimizer", "pruning_method": "pruning"}[axis]
    shared = {family.name(r, axis): " ".join(filter(None, family.parts(r))) for r in family.results}
    names = {c: (axis != "optimizer" and shared[n]) or n for n, c in family.hues(axis).items()}
    return heading, [entry(n, marker="s", color=c) for c, n in names.items()]


def marker_legend(family: Family) -> Legend:
    return "pruning", [entry(m, marker=marker(family.results, m)) for m in family.results.by("pruning_method")]


def shade_legend(family: Family) -> Legend:
    """Sparsity as shades: hollow for dense runs."""
    dense = [entry("dense", marker="s", markerfacecolor="white")] if has_dense(family) else []
    found = [(s, family.shade(r, GREY)) for s, r in one_of_each(family).items()]
    return "sparsity", [*dense, *(entry(f"{percent(s)}%", marker="s", color=c) for s, c in found)]


def line_legend(family: Family) -> Legend:
    """Sparsity as shades and dashes of lines."""
    found = [(f"{percent(s)}%", line_style(family, r, GREY)) for s, r in one_of_each(family).items()]
    found[:0] = [("dense", {"color": DENSE, "linewidth": 1.3, "linestyle": "solid"})] if has_dense(family) else []
    return "sparsity", [entry(name, **style) for name, style in found]


def one_of_each(family: Family) -> dict[float, Run]:
    return {s: next(r for r in family.results if r.target_sparsity == s) for s in family.sparsities}


def has_dense(family: Family) -> bool:
    return any(not r.target_sparsity for r in family.results)


def line_style(family: Family, r: Run, hue: str) -> dict:
    """A run's line: thin without pruning, else darker and less broken the sparser."""
    if not r.target_sparsity:
        return {"color": hue, "linewidth": 1.3 if hue == DENSE else 0.8, "linestyle": "solid", "zorder": 3}
    above = len(family.sparsities) - 1 - family.sparsities.index(r.target_sparsity)
    look = {"color": family.shade(r, hue), "linestyle": DASHES[above % len(DASHES)]}
    return look | {"linewidth": 1.7, "zorder": 4 + family.level(r)}


def fill(family: Family, r: Run, hue: str) -> dict:
    """A run's bar or point: hollow without pruning, else darker the sparser."""
    face = family.shade(r, hue) if r.target_sparsity else "white"
    return {"facecolor": face, "edgecolor": hue, "linewidth": 1.0}


def star(family: Family, s: Setting) -> str:
    return "*" * any(r.id in family.odd for r in s.runs)


def places(family: Family, axis: str) -> list[float]:
    """A row for every setting, with a gap where the hue changes."""
    found, last = [], None
    for s in family.settings:
        name = family.name(s.r, axis)
        found.append(found[-1] + (1 if name == last else 1.5) if found else 0)
        last = name
    return found


def rows_height(family: Family, axis: str) -> float:
    """Inches for a panel of rows with its title and axis."""
    return 0.8 + ROW * max(4, places(family, axis)[-1] + 1)


def each_row(family: Family, axis: str):
    """(row, setting, hue) of every setting."""
    hues = family.hues(axis)
    for y, s in zip(places(family, axis), family.settings, strict=True):
        yield y, s, hues[family.name(s.r, axis)]


def rows(ax, family: Family, axis: str, field: str, form: str = ".1f", zero: bool = True) -> None:
    """One row a setting: a bar from zero, or else a point; the number at its end, its seeds faint."""
    every = [v for s in family.settings for v in s.values(field)]
    for y, s, hue in each_row(family, axis):
        style = fill(family, s.r, hue)
        if zero:
            ax.barh(y, s.mean(field), height=0.74, **style)
        else:
            ax.scatter(s.mean(field), y, s=34, marker=marker(family.results, s.r.pruning_method), zorder=3, **style)
        seeds(ax, s.values(field), y)
        number(ax, max(s.values(field)), y, format(s.mean(field), form), 4 if zero else 7)
    low, high = (0, max(every)) if zero else padded(every, 0.06, 1e-3)
    ax.set_xlim(low, high + 0.2 * (high - low))
    row_axis(ax, family, axis)


def seeds(ax, values: list[float], y: float) -> None:
    if len(values) > 1:
        ax.plot(values, [y] * len(values), "|", color="black", alpha=FAINT, markersize=5, zorder=5)


def number(ax, x: float, y: float, text: str, away: float) -> None:
    ax.annotate(text, (x, y), xytext=(away, 0), textcoords="offset points", va="center", fontsize=7, color="#333333")


def row_axis(ax, family: Family, axis: str) -> None:
    """The labels of rows, top down, without what all have in common."""
    at = places(family, axis)
    drop = f"{family.settings[0].r.optimizer} " if axis == "pruning_method" else ""
    names = [family.name(s.r).removeprefix(drop) + star(family, s) for s in family.settings]
    ax.set_yticks(at, names, fontsize=7.5)
    middle, half = at[-1] / 2, max(4, at[-1] + 1) / 2 + 0.1
    ax.set_ylim(middle + half, middle - half)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)


def padded(values: Sequence[float], share: float, least: float) -> tuple[float, float]:
    """Limits with room beside the values: a share of their range, and at least this share of themselves."""
    low, high = min(values), max(values)
    room = max(share * (high - low), least * max(abs(low), abs(high), 1e-9))
    return low - room, high + room


def series(r: Run, value: Value) -> dict[int, float]:
    """epoch -> value, where there is one."""
    return {e["epoch"]: v for e in r.epochs if (v := value(e)) is not None}


def curve(ax, s: Setting, value: Value, **style) -> list[float]:
    """A setting over its epochs: the mean over seeds, and every seed faintly. Returns the mean."""
    found = [series(r, value) for r in s.runs]
    for one in found if len(found) > 1 else []:
        ax.plot(one.keys(), one.values(), **style | {"linewidth": 0.6, "alpha": FAINT})
    epochs = [e for e in found[0] if all(e in f for f in found)]
    mean = [average([f[e] for f in found]) for e in epochs]
    ax.plot(epochs, mean, marker="o" if len(epochs) < 4 else None, markersize=3, **style)
    return mean


def whole_epochs(ax) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def loss_axis(ax) -> None:
    """A logarithmic axis with plain numbers, where the losses spread enough for one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    every = [v for line in ax.get_lines() for v in line.get_ydata() if v > 0]
    spread = max(every, default=1) / min(every, default=1)
    ax.set_ylabel("loss, log scale" if spread > 5 else "loss")
    if spread > 5:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 100 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_locator(NullLocator())


def panel_columns(n: int) -> int:
    """How many of n small panels stand in a row, so that the fewest places stay empty."""
    return n if n <= COLUMNS else min((COLUMNS, COLUMNS - 1), key=lambda c: -n % c)


def panels(fig, grid, n: int) -> list:
    """n equal panels with common axes, labelled at the left and below."""
    made, across = [], panel_columns(n)
    for i in range(n):
        first = made[0] if made else None
        ax = fig.add_subplot(grid[i // across, i % across], sharex=first, sharey=first)
        ax.tick_params(labelleft=i % across == 0, labelbottom=i + across >= n)
        made.append(ax)
    return made


def small_title(ax, text: str) -> None:
    """A small panel's title, smaller where it would not fit."""
    ax.set_title(text, fontsize=9.5 * min(1, 29 / len(text)))


def arm_style(family: Family, s: Setting, settings: list[Setting], hues: dict[str, str], axis: str) -> dict:
    """The line of a setting in the panel of its arm: the dense run dark grey, unless the panel is its own."""
    own = s.r.target_sparsity or len(settings) == 1
    return line_style(family, s.r, hues[family.name(s.r, axis)] if own else DENSE)


def outer(axes: list, xlabel: str, ylabel: str) -> None:
    """Label panels at the left and below only."""
    across = panel_columns(len(axes))
    for i, ax in enumerate(axes):
        if i % across == 0:
            ax.set_ylabel(ylabel)
        if i + across >= len(axes):
            ax.set_xlabel(xlabel)


def arms(family: Family) -> dict[str, list[Setting]]:
    """What a small panel shows: an optimizer and a method at every sparsity, behind them the dense run of the same
    optimizer. A dense run has a panel of its own only where it would be in no other."""
    found: dict[str, list[Setting]] = {}
    for s in family.settings:
        found.setdefault(family.name(s.r, "arm"), []).append(s)
    dense = {of(s): (name, s) for name, (s, *_) in found.items() if not s.r.target_sparsity}
    shown = set()
    for settings in found.values():
        name, reference = dense.get(of(settings[0]), ("", None))
        if reference and settings[0].r.target_sparsity:
            settings.insert(0, reference)
            shown.add(name)
    return {name: settings for name, settings in found.items() if name not in shown}


def of(s: Setting) -> tuple[str, str]:
    return s.r.optimizer, s.r.adamwprune_base
