"""How figures are drawn: one style, pages with room for title, legends and small print, and what hues, shades, dashes
and hollow shapes mean."""

import textwrap
from collections.abc import Sequence

from lib.figure.base import METHODS, Family, marker
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
DOTTED = (0, (1, 1.5))  # dense runs, and nothing else
# By sparsity from the highest down, beside its shade.
DASHES = ("solid", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4, 1.2, 1.4)))
STRIP = 0.21  # inches a line of legend
HEADING = 0.95  # inches from the left edge to a legend's entries
LETTER = 0.065  # inches a letter of legend
SMALL = 6.5  # points of the small print
SEEDS = "Strong: mean over seeds; faint: each seed"

Legend = tuple[str, list]  # a heading and the handles


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
    all_parted = axis != "optimizer" and all(any(family.parts(r)) for r in family.results)
    parts = " and ".join(p.removeprefix("adamwprune_") for p in sorted(family.varied))
    heading = parts if all_parted else {"optimizer": "optimizer", "pruning_method": "pruning"}[axis]
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


def line_legend(family: Family, axis: str) -> Legend:
    """Sparsity as shades and dashes of lines, as strong as those that are drawn in the hues of an axis."""
    hues = family.hues(axis)
    hue = neutral([hues[family.name(r, axis)] for r in family.results if r.target_sparsity])
    found = [(f"{percent(s)}%", line_style(family, r, hue)) for s, r in one_of_each(family).items()]
    dense = [r for r in family.results if not r.target_sparsity][:1]
    found[:0] = [("dense", line_style(family, r, DENSE)) for r in dense]
    return "sparsity", [entry(name, **style) for name, style in found]


def neutral(hues: list[str]) -> str:
    """One hue itself; of several, the grey that is as dark as they are on average."""
    if len(set(hues)) < 2:
        return hues[0] if hues else GREY
    parts = [[int(h[i : i + 2], 16) for i in (1, 3, 5)] for h in set(hues)]
    luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in parts]
    return "#" + f"{round(sum(luma) / len(luma)):02x}" * 3


def one_of_each(family: Family) -> dict[float, Run]:
    return {s: next(r for r in family.results if r.target_sparsity == s) for s in family.sparsities}


def has_dense(family: Family) -> bool:
    return any(not r.target_sparsity for r in family.results)


def line_style(family: Family, r: Run, hue: str) -> dict:
    """A run's line: dotted without pruning, else darker and less broken the sparser."""
    if not r.target_sparsity:
        return {"color": hue, "linewidth": 1.5, "linestyle": DOTTED, "zorder": 6}
    above = len(family.sparsities) - 1 - family.sparsities.index(r.target_sparsity)
    look = {"color": family.shade(r, hue), "linestyle": DASHES[above % len(DASHES)]}
    return look | {"linewidth": 1.7, "zorder": 4 + family.level(r)}


def fill(family: Family, r: Run, hue: str) -> dict:
    """A run's bar or point: hollow without pruning, else darker the sparser."""
    face = family.shade(r, hue) if r.target_sparsity else "white"
    return {"facecolor": face, "edgecolor": hue, "linewidth": 1.0}
