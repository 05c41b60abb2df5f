"""Memory of every run: over its time, mean and peak, and against accuracy or perplexity."""

from lib.figure.base import QUALITY, Family, families, figure, marker
from lib.figure.draw import SEEDS, fill, hue_legend, line_legend, marker_legend, page, shade_legend
from lib.figure.panel import (
    FAINT,
    arm_style,
    arms,
    close,
    each_row,
    number,
    outer,
    padded,
    panel_columns,
    panels,
    row_axis,
    rows,
    rows_height,
    seeds,
    small_titles,
    thinned,
)
from lib.measure import TENSORS
from lib.results import Results, Run

TRAINING = ("train", "prune", "evaluate", "checkpoint")  # the monitor's phases between the first step and the last
STROKES = "Strong between the dots: training; thin: loading before it, tests after it"
MEAN, PEAK = "train_memory_mean", "train_memory_max"  # of the run's processes
COMPARED = "compared_memory"


def in_mib(family: Family, what: str) -> str:
    """The label of an axis for the memory of the run's processes."""
    return f"{family.process_source}, MiB, {what} over training"


def compared_in_mib(family: Family) -> str:
    """The label of an axis for the memory that runs are compared by."""
    return f"{family.source}, MiB" if family.source == TENSORS else f"{family.source}, MiB, mean over training"


def about_seeds(family: Family) -> list[str]:
    return [SEEDS] if len(family.seeds) > 1 else []


@figure("gpu_memory_comparison")
def gpu_memory_comparison(results: Results):
    for family in families(results, COMPARED):
        legends = [hue_legend(family, "optimizer"), shade_legend(family)]
        foot = family.foot(*about_seeds(family), *family.memory_notes())
        fig = page(10.5, rows_height(family, "optimizer"), "Memory of every run, mean and peak", foot, legends)
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
        if family.source == TENSORS:
            rows(left, family, "optimizer", COMPARED, ".2f", zero=True)
            left.set(title="From zero: tensors", xlabel=compared_in_mib(family))
        else:
            both(left, family, MEAN, PEAK)
            left.set(title="From zero: mean (colour), peak (grey)", xlabel=in_mib(family, "mean and peak"))
        span(right, family)
        yield f"gpu_memory_comparison{family.suffix}", fig


def both(ax, family: Family, front: str, behind: str) -> None:
    """Two memories of every setting as bars from zero: coloured, and grey behind it."""
    for y, s, hue in each_row(family, "optimizer"):
        a, b = s.mean(front), s.mean(behind)
        ax.barh(y, b, height=0.74, color="#e2e2e2", edgecolor="#999999", linewidth=0.6)
        ax.barh(y, a, height=0.5, **fill(family, s.r, hue))
        number(ax, max(a, b), y, f"{a:.1f} | {b:.1f}", 4)
    ax.set_xlim(0, 1.32 * max(s.mean(f) for s in family.settings for f in (front, behind)))
    row_axis(ax, family, "optimizer")


def span(ax, family: Family) -> None:
    """The same from mean to peak on an axis of its own, with every seed's mean."""
    for y, s, hue in each_row(family, "optimizer"):
        mean, peak = s.mean(MEAN), s.mean(PEAK)
        ax.plot([mean, peak], [y, y], color=hue, linewidth=1.4, zorder=2)
        ax.plot(peak, y, "|", color=hue, markersize=8, markeredgewidth=1.6, zorder=3)
        ax.scatter(mean, y, s=34, zorder=4, **fill(family, s.r, hue))
        seeds(ax, s.values(MEAN), y)
    ax.set_xlim(padded([v for s in family.settings for v in s.values(MEAN) + [s.mean(PEAK)]], 0.05, 2e-3))
    ax.set(title="Not from zero: mean (point), peak (stroke)", xlabel=in_mib(family, "mean and peak"))
    ax.tick_params(axis="y", labelleft=False, length=0)
    ax.grid(visible=True, axis="y")


@figure("memory_vs_accuracy_scatter")
def memory_vs_accuracy_scatter(results: Results):
    for family in families(results, COMPARED, QUALITY):
        legends = [hue_legend(family, "optimizer"), marker_legend(family), shade_legend(family)]
        fig = page(
            8,
            4.9,
            f"Test {family.quality.word} against training memory",
            family.foot(*about_seeds(family), *family.memory_notes()),
            legends,
        )
        scatter(fig.subplots(), family, 62)
        yield f"memory_vs_accuracy_scatter{family.suffix}", fig


def scatter(ax, family: Family, size: float) -> None:
    """One point a run, or with several seeds one a setting with its seeds faint; the sparser, the darker and larger."""
    for _, s, hue in each_row(family, "optimizer"):
        shape, x, y = marker(family.results, s.r.pruning_method), s.values(COMPARED), s.values(family.quality.test)
        if len(s.runs) > 1:
            ax.scatter(x, y, s=size / 3, marker=shape, color=hue, alpha=FAINT, linewidth=0, zorder=2)
        area = size * (0.7 + 0.6 * family.level(s.r)) if s.r.target_sparsity else size
        ax.scatter(
            s.mean(COMPARED), s.mean(family.quality.test), s=area, marker=shape, zorder=3, **fill(family, s.r, hue)
        )
    ax.set(xlabel=compared_in_mib(family), ylabel=f"test {family.quality.unit}, last weights")
    ax.set_xlim(padded([r.compared_memory for r in family.results], 0.05, 1e-3))
    ax.set_ylim(close(family, [getattr(r, family.quality.test) for r in family.results]))


@figure("gpu_memory_timeline")
def gpu_memory_timeline(results: Results):
    for family in families(results, MEAN):
        found = arms(family)
        across = panel_columns(len(found))
        down = -(-len(found) // across)
        foot = family.foot(STROKES, *family.memory_notes(process=True))
        legends = [hue_legend(family, "optimizer"), line_legend(family, "optimizer")]
        fig = page(max(7, 3.1 * across), 2.1 * down + 0.5, "Memory of every run over its time", foot, legends)
        axes, hues = panels(fig, fig.add_gridspec(down, across), len(found)), family.hues("optimizer")
        for ax, settings in zip(axes, found.values(), strict=True):
            for s in settings:
                for r in s.runs:
                    timeline(ax, r, arm_style(family, s, settings, hues, "optimizer"))
        small_titles(axes, list(found))
        outer(axes, "seconds from the run's start", f"{family.process_source}, MiB")
        yield f"gpu_memory_timeline{family.suffix}", fig


def timeline(ax, r: Run, style: dict) -> None:
    """A run's samples: thin all of them, strong between the dots those of training."""
    samples = r.memory()
    inside = [i for i, (_, phase, _) in enumerate(samples) if phase in TRAINING]
    first, last = inside[0], min(inside[-1] + 1, len(samples) - 1)
    ends = {"markevery": [0, -1], "marker": "o", "markersize": 3}
    whole = [(t, mib) for t, _, mib in samples]
    ax.plot(*thinned(whole), color=style["color"], linewidth=0.7)
    ax.plot(*thinned(whole[first : last + 1]), **style | {"linewidth": 1.4} | ends)
