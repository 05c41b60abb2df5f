"""What all figures share: the registry, one style, and colours and markers that mean the same thing everywhere."""

from collections.abc import Callable, Iterable
from pathlib import Path

from lib.config import Config
from lib.registry import Registry
from lib.results import Results, Run
from lib.spec import percent

# key (GRAPH_* in Kconfig) -> function(results) -> (stem, matplotlib Figure) pairs
FIGURES: Registry[Callable[[Results], Iterable]] = Registry("graph", "lib.figure")

# Okabe and Ito's colours, which people with any colour vision can tell apart, and then Tol's muted set.
PALETTE = (
    "#0072B2 #E69F00 #009E73 #CC79A7 #56B4E9 #D55E00 #332288 #999933 #882255 #44AA99 #AA4499 #117733 #661100 #888888"
).split()
MARKERS = "osD^vP*X<>hpd8"


class Skip(Exception):
    """Raised by a figure that cannot be drawn from these results; the message says what is missing."""


def figure(key: str):
    """Register a figure: a function of Results that yields (stem, Figure), or raises Skip with the reason."""

    def register(function):
        return FIGURES.add(key, function)

    return register


def colour(results: Results, axis: str, member: str) -> str:
    """The colour of a member of an axis: by its place in Kconfig, so that it is the same in every figure."""
    return PALETTE[results.order(axis).index(member) % len(PALETTE)]


def marker(results: Results, method: str) -> str:
    return MARKERS[results.order("pruning_method").index(method) % len(MARKERS)]


def label(r: Run) -> str:
    """A run in a few words: what is varied, without the model."""
    words = [r.optimizer]
    words += [r.adamwprune_base] if r.adamwprune_base not in ("", "adamw") else []
    words += [r.adamwprune_variant or r.pruning_method]
    words += [f"{percent(r.target_sparsity)}%"] if r.target_sparsity else []
    return " ".join(words)


def new(width: float, height: float, rows: int = 1, columns: int = 1, **kwargs):
    """A matplotlib Figure and its axes, off screen, in the common style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, rcParams

    rcParams.update(
        {"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
    )
    return pyplot.subplots(rows, columns, figsize=(width, height), layout="constrained", **kwargs)


def selected(config: Config) -> list[str]:
    return config.on("GRAPH")


def render_all(results: Results) -> tuple[list[Path], list[tuple[str, str]]]:
    """Draw every selected graph into graphs/; the files, and (graph, reason) for each that was skipped."""
    folder = results.root / "graphs"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    files, skipped = [], []
    for key in selected(results.config):
        try:
            for stem, fig in FIGURES[key](results):
                files.append(save(fig, folder / f"{stem}.png"))
        except Skip as why:
            skipped.append((key, str(why)))
    return files, skipped


def save(fig, path: Path) -> Path:
    from matplotlib import pyplot

    part = path.with_name(f".{path.name}")
    fig.savefig(part, dpi=120, format="png")
    pyplot.close(fig)
    return part.replace(path)
