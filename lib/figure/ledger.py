"""The memory ledger: what each byte of training is for, and what stays from step to step."""

from collections.abc import Iterable

from lib.costs import HEADS, MIB, tensors
from lib.figure.base import PALETTE, Family, families, figure
from lib.figure.draw import entry, fill, hue_legend, page, shade_legend
from lib.figure.panel import each_row, number, row_axis, rows_height

# One colour a class, in the order in which they are stacked; none of an optimizer.
HUES = dict(
    zip(
        ("weights", "gradients", "buffers", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"),
        ("#bbbbbb", "#dddddd", "#888888", *PALETTE[6:10]),
        strict=True,
    )
) | dict(zip(("masks", "scores", "frozen", "start"), ("#222222", *PALETTE[10:13]), strict=True))
OTHER = PALETTE[13]  # of what an optimizer or a method keeps that has no colour yet
ABOUT = (
    "Tensors of training, the data set's and activations left out; stroke: predicted (parameters times what optimizer "
    "and method keep). Kept: weights, optimizer and pruning, without gradients"
)


@figure("memory_ledger")
def memory_ledger(results):
    for family in families(results, "memory_multiple"):
        shown = {name for r in family.results for name in tensors(r)}
        classes = [entry(HEADS.get(n, n), marker="s", color=c) for n, c in hues(shown).items() if n in shown]
        predicted = entry("predicted", marker="|", color="black", markersize=9)
        legends = [("tensors", [*classes, predicted]), hue_legend(family, "optimizer"), shade_legend(family)]
        title = "Memory ledger: what each byte of training is for"
        fig = page(10.5, rows_height(family, "optimizer"), title, family.foot(ABOUT), legends)
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1.3, 1))
        stacked(left, family)
        multiples(right, family)
        yield f"memory_ledger{family.suffix}", fig


def hues(found: Iterable[str]) -> dict[str, str]:
    """Of every class, those that are new here too, but for the data set's."""
    return HUES | {name: OTHER for name in found if name not in (*HUES, "data")}


def stacked(ax, family: Family) -> None:
    ends = []
    for y, s, _ in each_row(family, "optimizer"):
        found, end = tensors(s.r), 0.0
        for name, hue in hues(found).items():
            size = found.get(name, 0) / MIB
            ax.barh(y, size, left=end, height=0.74, color=hue, edgecolor="white", linewidth=0.4)
            end += size
        predicted = sum(s.r.ledger.predicted.classes.values()) / MIB
        ax.plot([predicted] * 2, [y - 0.45, y + 0.45], color="black", linewidth=1.2)
        number(ax, max(end, predicted), y, f"{end:.2f}", 4)
        ends.append(max(end, predicted))
    ax.set_xlim(0, 1.15 * max(ends))
    ax.set(title="Tensors, class by class", xlabel="MiB of tensors, measured")
    row_axis(ax, family, "optimizer")


def multiples(ax, family: Family) -> None:
    for y, s, hue in each_row(family, "optimizer"):
        value, less = s.mean("memory_multiple"), s.mean("memory_less_than_movement_pct")
        ax.barh(y, value, height=0.74, **fill(family, s.r, hue))
        number(ax, value, y, f"{value:.2f} | {less:.0f}%", 4)
    ax.set_xlim(0, 1.25 * max(s.mean("memory_multiple") for s in family.settings))
    ax.set(title="Kept | less than with movement", xlabel="multiple of the weights' own bytes, predicted")
    ax.tick_params(axis="y", labelleft=False, length=0)
    ax.grid(visible=False, axis="y")
