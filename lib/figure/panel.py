"""The panels that figures have in common: a row a setting, curves over epochs, and small panels an arm each."""

from collections.abc import Callable, Iterator, Sequence

from lib.figure.base import Family, Setting, average, marker
from lib.figure.draw import DENSE, STYLE, fill, line_style
from lib.records import Epoch
from lib.results import Run

FAINT = 0.3  # how strong a single seed is drawn
ROW = 0.19  # inches a row of bars
POINTS = 600  # of a line over time; more cannot be seen
COLUMNS = 4  # of small panels

Value = Callable[[Epoch], float | None]


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


def each_row(family: Family, axis: str) -> Iterator[tuple[float, Setting, str]]:
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
    end = high + 0.2 * (high - low)
    ax.set_xlim(low, end)
    if field == family.quality.test:
        most = 100 if family.quality.word == "accuracy" else end
        ax.set_xticks([t for t in ax.get_xticks() if low <= t <= min(end, most)])  # the room for numbers goes on
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


def close(family: Family, values: Sequence[float]) -> tuple[float, float]:
    """Limits around what runs are compared by."""
    return percents(values) if family.quality.word == "accuracy" else padded(values, 0.07, 5e-3)


def percents(values: Sequence[float]) -> tuple[float, float]:
    """Limits for accuracies: close around them, and not above what there can be."""
    low, high = padded(values, 0.07, 5e-3)
    return max(low, -0.5), min(high, 100.4)


def series(r: Run, value: Value) -> dict[int, float]:
    """epoch -> value, where there is one."""
    return {e.epoch: v for e in r.evaluations if (v := value(e)) is not None}


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

    low, high = ax.get_xlim()
    if high - low < 1:  # one epoch: no fractions of it beside it
        ax.set_xlim((low + high) / 2 - 0.6, (low + high) / 2 + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def loss_axis(ax, what: str = "loss") -> None:
    """A logarithmic axis with plain numbers, where losses or perplexities spread enough for one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    every = [v for line in ax.get_lines() for v in line.get_ydata() if v > 0]
    spread = max(every, default=1) / min(every, default=1)
    ax.set_ylabel(f"{what}, log scale" if spread > 5 else what)
    if spread > 5:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if spread < 100 else (1,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_locator(NullLocator())


def panel_columns(n: int) -> int:
    """How many of n small panels stand in a row, so that the fewest places stay empty."""
    return n if n <= COLUMNS else min((COLUMNS, COLUMNS - 1), key=lambda c: -n % c)


def panels(fig, grid, n: int, above: int = 0) -> list:
    """n equal panels with common axes, labelled at the left and below, under so many rows of others."""
    made, across = [], panel_columns(n)
    for i in range(n):
        first = made[0] if made else None
        ax = fig.add_subplot(grid[above + i // across, i % across], sharex=first, sharey=first)
        ax.tick_params(labelleft=i % across == 0, labelbottom=i + across >= n)
        made.append(ax)
    return made


def small_titles(axes: Sequence, texts: Sequence[str]) -> None:
    """Titles of small panels, all smaller where the longest would not fit."""
    size = STYLE["axes.titlesize"] * min(1, 30 / max(map(len, texts)))
    for ax, text in zip(axes, texts, strict=True):
        ax.set_title(text, fontsize=size)


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


def thinned(points: list[tuple[float, float]]) -> tuple[list, list]:
    """Seconds and values of at most about POINTS of them: of each stretch the highest, so that no peak is lost."""
    step = -(-len(points) // POINTS)
    kept = [max(points[i : i + step], key=lambda p: p[1]) for i in range(0, len(points), max(1, step))]
    return [t for t, _ in kept], [v for _, v in kept]
