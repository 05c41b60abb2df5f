"""Accuracy or perplexity over training, a figure an optimizer."""

from collections.abc import Iterator

from lib.figure.base import Family, Setting, Skip, families, figure
from lib.figure.draw import entry, line_legend, page
from lib.figure.memory import about_seeds
from lib.figure.panel import (
    COLUMNS,
    Value,
    arm_style,
    arms,
    close,
    curve,
    outer,
    panel_columns,
    panels,
    small_titles,
    whole_epochs,
)
from lib.results import Results

AXIS = "pruning_method"
OTHERS = "#d0d0d0"
LATE = 0.8  # of the epochs: what the closer view is scaled to
ONCE = "one evaluation a run is no evolution"
UNRECORDED = "nothing was evaluated over epochs (FULL_TRAIN holds nothing out)"


def by_optimizer(results: Results) -> Iterator[tuple[str, Family]]:
    """The finished runs of every optimizer; Skip at the end names the optimizers that have none."""
    absent = []
    for family in families(results):
        for optimizer in family.found.by("optimizer"):
            own = family.of(optimizer=optimizer)
            if own.results.runs:
                yield optimizer, own
            else:
                absent.append(f"{optimizer}{family.suffix}: no run has finished")
    if absent:
        raise Skip("; ".join(absent))


def split(family: Family) -> str | None:
    """The data on which every run was evaluated at every epoch: validation, else test, else None."""
    epochs = [e for r in family.results for e in r.evaluations]
    whole = (s for s in ("validation", "test") if all(family.quality.of(e, s) is not None for e in epochs))
    return next(whole, None)


@figure("accuracy_evolution")
def accuracy_evolution(results: Results):
    bare: dict[str, list[str]] = {}
    for optimizer, family in by_optimizer(results):
        stem = f"{optimizer}_accuracy_evolution{family.suffix}"
        data = split(family)
        if data is None:
            bare.setdefault(UNRECORDED, []).append(stem)
        elif max(len(r.evaluations) for r in family.results) < 2:
            bare.setdefault(ONCE, []).append(stem)
        else:
            yield stem, evolution(optimizer, family, data)
    if bare:
        raise Skip("; ".join(f"{', '.join(stems)}: {why}" for why, stems in bare.items()))


def evolution(optimizer: str, family: Family, data: str):
    """Few arms: the whole range above, and a closer view below. Many: the closer view alone."""
    found, q = arms(family), family.quality
    title = f"{optimizer}: {data} {q.word} over training"
    views = 2 if len(found) <= COLUMNS else 1
    across = panel_columns(len(found))
    down = -(-len(found) // across)
    cut = "The closer view" if views > 1 else "The axis"
    note = f"{cut} is scaled to the last 20% of epochs; what is {q.worse} is cut off"
    heading, handles = line_legend(family, AXIS)
    handles += [entry("the others", color=OTHERS, linestyle="solid", linewidth=1)] if views == 1 else []
    size = max(7, 3.6 * across), 2.3 * views * down + 0.5
    fig = page(*size, title, family.foot(note, *about_seeds(family)), [(heading, handles)])
    grid = fig.add_gridspec(views * down, across)
    for view in range(views):
        axes = panels(fig, grid, len(found), view * down)
        closer = view == views - 1
        means = draw(axes, found, family, lambda e: q.of(e, data), context=views == 1)
        if closer:
            axes[0].set_ylim(close(family, [v for m in means for v in m[int(LATE * len(m)) :]]))
        suffix = ", closer" if closer and views > 1 else ""
        small_titles(axes, [name.removeprefix(f"{optimizer} ") + suffix for name in found])
        outer(axes, "epoch" if closer else "", f"{data} {q.unit}")
    return fig


def draw(axes: list, found: dict, family: Family, value: Value, context: bool) -> list[list[float]]:
    """Every arm in its panel, with `context` before a seed of all the others. Returns the means."""
    hues, means = family.hues(AXIS), []
    for ax, settings in zip(axes, found.values(), strict=True):
        for s in (s for s in family.settings if context and s not in settings):
            curve(ax, Setting(s.runs[:1]), value, color=OTHERS, linewidth=0.7, zorder=1)
        for s in settings:
            style = arm_style(family, s, settings, hues, AXIS)
            means.append(curve(ax, s, value, **style))
        whole_epochs(ax)
    return means
