"""Runs side by side: all of them by memory, and those of one optimizer by everything."""

from operator import attrgetter

from lib.figure.accuracy import AXIS, by_optimizer, split
from lib.figure.base import QUALITY, Family, average, families, figure, marker
from lib.figure.draw import fill, has_dense, hue_legend, line_legend, line_style, marker_legend, page, shade_legend
from lib.figure.memory import COMPARED, MEAN, PEAK, about_seeds, compared_in_mib, in_mib, scatter
from lib.figure.panel import close, curve, loss_axis, padded, rows, rows_height, star, whole_epochs
from lib.measure import TENSORS
from lib.results import Results
from lib.spec import percent

LEADERS = 10
SHARE = "% of the prunable weights"
EFFICIENCY = "efficiency_per_100mib"
PER_MIB = "test accuracy, %, per 100 MiB"
TABLE = ((0.04, "right"), (0.07, "left"), (0.74, "right"), (0.87, "right"), (1.0, "right"))


# What stands beside the memory that runs are compared by: its peak, or where that is of tensors the processes' own.
BESIDE = {
    False: lambda family: (PEAK, ".1f", "Peak memory", in_mib(family, "peak")),
    True: lambda family: (MEAN, ".1f", "Memory of the process", in_mib(family, "mean")),
}


@figure("training_memory_comparison")
def training_memory_comparison(results: Results):
    for family in families(results, COMPARED, QUALITY):
        legends = [hue_legend(family, "optimizer"), marker_legend(family), shade_legend(family)]
        above, below = rows_height(family, "optimizer"), 3.3
        fig = page(
            14,
            above + below,
            "Training memory of every run",
            family.foot(*about_seeds(family), *family.memory_notes()),
            legends,
        )
        grid = fig.add_gridspec(2, 1, height_ratios=(above, below))
        what = (
            (COMPARED, ".2f", "Memory", compared_in_mib(family)),
            BESIDE[family.source == TENSORS](family),
            (EFFICIENCY, ".2f", "Accuracy per 100 MiB", PER_MIB),
        )
        what = [w for w in what if all(getattr(r, w[0]) is not None for r in family.results)]
        all_rows(grid[0].subgridspec(1, len(what)).subplots(sharey=True), family, "optimizer", what)
        efficient = [leaders] if len(what) == 3 else []
        lower = [against_quality, *([by_method] if family.sparsities else []), *efficient]
        places = grid[1].subgridspec(1, len(lower), wspace=0.05).subplots(squeeze=False)[0]
        for ax, draw in zip(places, lower, strict=True):
            draw(ax, family)
        yield f"training_memory_comparison{family.suffix}", fig


def all_rows(axes, family: Family, axis: str, what: tuple) -> None:
    """Panels of rows beside each other, labelled at the left. Accuracy or perplexity alone is not drawn from zero."""
    for ax, (field, form, title, xlabel) in zip(axes, what, strict=True):
        rows(ax, family, axis, field, form, zero=field != family.quality.test)
        ax.set(title=title, xlabel=xlabel)
    for ax in axes[1:]:
        ax.tick_params(labelleft=False)


def against_quality(ax, family: Family) -> None:
    scatter(ax, family, 36)
    ax.set_title(f"{family.quality.word.capitalize()} against memory")


def by_method(ax, family: Family) -> None:
    """Memory at equal sparsity, a column a method; the columns of state pruning are shaded."""
    hues, at, ticks = family.hues("optimizer"), 0.0, []
    levels = sorted({r.target_sparsity for r in family.results})
    for share in levels:
        level = [s for s in family.settings if s.r.target_sparsity == share]
        methods = list(dict.fromkeys(s.r.pruning_method for s in level))
        ticks.append((at + (len(methods) - 1) / 2, f"{percent(share)}%" if share else "dense"))
        for method in methods:
            column = [s for s in level if s.r.pruning_method == method]
            if method == "state":
                ax.axvspan(at - 0.45, at + 0.45, color="#ececec", linewidth=0, zorder=0)
            ax.plot(
                [at - 0.35, at + 0.35], [average([s.mean(COMPARED) for s in column])] * 2, color="black", linewidth=1.2
            )
            for s in column:
                style = fill(family, s.r, hues[family.name(s.r, "optimizer")])
                ax.scatter(at, s.mean(COMPARED), s=36, marker=marker(family.results, method), zorder=3, **style)
            at += 1
        at += 0.6
    ax.set_xticks(*zip(*ticks, strict=True))
    ax.set_xlim(-0.8, at - 0.8)
    ax.grid(visible=False, axis="x")
    ax.set_ylim(padded([s.mean(COMPARED) for s in family.settings], 0.06, 1e-3))
    state = "state" in family.results.by("pruning_method")
    ax.set_title("State pruning (shaded) and the others" if state else "Memory by sparsity and method")
    ax.set(xlabel="sparsity asked; stroke: mean of a method", ylabel=compared_in_mib(family))


def leaders(ax, family: Family) -> None:
    """The settings with the most accuracy per MiB, as text."""
    ax.axis("off")
    ax.set_title("The most accuracy per 100 MiB")
    ranked = sorted(family.settings, key=lambda s: -s.mean(EFFICIENCY))[:LEADERS]
    table = [("", "", "per 100 MiB", "test, %", "MiB")]
    for i, s in enumerate(ranked, 1):
        numbers = f"{s.mean(EFFICIENCY):.2f}", f"{s.mean(family.quality.test):.2f}", f"{s.mean(COMPARED):.1f}"
        table.append((str(i), family.name(s.r) + star(family, s), *numbers))
    for i, row in enumerate(table):
        y, weight = 0.97 - i / (LEADERS + 1), "normal" if i else "bold"
        for (x, side), text in zip(TABLE, row, strict=True):
            ax.text(x, y, text, ha=side, va="top", transform=ax.transAxes, weight=weight, size=8)


@figure("model_comparison")
def model_comparison(results: Results):
    for optimizer, family in by_optimizer(results):
        what = columns(family)
        above, below = 2.7, rows_height(family, AXIS)
        notes = [] if family.source else ["Memory is not shown: it was not recorded, or from more than one source"]
        legends = [hue_legend(family, AXIS), line_legend(family, AXIS)]
        title = f"{optimizer}: its runs side by side"
        fig = page(14, above + below, title, family.foot(*notes, *about_seeds(family), *family.memory_notes()), legends)
        grid = fig.add_gridspec(2, 1, height_ratios=(above, below))
        curves(fig, grid[0], family)
        lower = grid[1].subgridspec(1, len(what), wspace=0.04).subplots(sharey=True, squeeze=False)
        all_rows(lower[0], family, AXIS, what)
        yield f"{optimizer}_model_comparison{family.suffix}", fig


def columns(family: Family) -> list[tuple]:
    """The panels of rows that there are numbers for."""
    q = family.quality
    what = [
        (q.test, ".2f", f"Final {q.word}", f"test {q.unit}, last weights, not from zero"),
        ("elapsed_s", ".1f", "Time", "seconds, the whole run"),
    ]
    if family.source:
        what += [(COMPARED, ".2f", "Memory", compared_in_mib(family)), (EFFICIENCY, ".2f", "Efficiency", PER_MIB)]
    return [w for w in what if all(getattr(r, w[0]) is not None for r in family.results)]


def curves(fig, place, family: Family) -> None:
    """Accuracy or perplexity, loss and sparsity over epochs, and the first against sparsity, as far as recorded."""
    data, q = split(family), family.quality
    losses = "validation" if data == "validation" else "train"
    what = [
        (lambda e: q.of(e, data), f"{data} {q.word}", q.unit) if data else None,
        (attrgetter(f"{losses}_loss"), f"{losses.replace('train', 'training')} loss", "loss"),
        (lambda e: 100 * e.sparsity, "sparsity achieved", SHARE) if family.sparsities else None,
    ]
    what = [w for w in what if w]
    sparse = bool(family.sparsities) and all(getattr(r, q.test) is not None for r in family.results)
    axes = list(place.subgridspec(1, len(what) + sparse).subplots(squeeze=False)[0])
    hues = family.hues(AXIS)
    for ax, (value, title, unit) in zip(axes, what, strict=False):
        for s in family.settings:
            style = line_style(family, s.r, hues[family.name(s.r, AXIS)])
            curve(ax, s, value, **style)
        ax.set(title=title.capitalize(), ylabel=unit, xlabel="epoch")
        if unit == SHARE:
            ax.set_ylim(-4, 104)
        if unit in ("loss", "perplexity"):
            loss_axis(ax, unit)
        whole_epochs(ax)
    if sparse:
        against_sparsity(axes[-1], family)


def against_sparsity(ax, family: Family) -> None:
    """Test accuracy or perplexity of every method at each sparsity, and of the dense run as a line across."""
    hues, methods, test = family.hues(AXIS), {}, family.quality.test
    for s in family.settings:
        methods.setdefault(family.name(s.r, AXIS), []).append(s)
    for name, settings in methods.items():
        if not settings[0].r.target_sparsity:
            ax.axhline(settings[0].mean(test), **line_style(family, settings[0].r, hues[name]))
            continue
        settings = sorted(settings, key=lambda s: s.r.target_sparsity)
        x, y = [100 * s.mean("achieved_sparsity") for s in settings], [s.mean(test) for s in settings]
        ax.plot(x, y, color=hues[name], linewidth=1.5)
        for s, at in zip(settings, x, strict=True):
            shape = marker(family.results, s.r.pruning_method)
            if len(s.runs) > 1:
                every = s.values(test)
                ax.scatter([at] * len(every), every, s=12, marker=shape, color=hues[name], alpha=0.3, linewidth=0)
            ax.scatter(at, s.mean(test), s=36, marker=shape, zorder=3, **fill(family, s.r, hues[name]))
    ax.set_ylim(close(family, [getattr(r, test) for r in family.results]))
    dense = "; line across: dense" if has_dense(family) else ""
    ax.set(title=f"{family.quality.word.capitalize()} against sparsity", ylabel=f"test {family.quality.unit}")
    ax.set_xlabel(f"{SHARE}{dense}")
    ax.set_xticks([100 * s for s in family.sparsities], [percent(s) for s in family.sparsities])
    ax.set_xlim(padded([100 * s for s in family.sparsities], 0.08, 0.05))
