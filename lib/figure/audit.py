"""How far the scores of state pruning agree: a heat map a sparsity, and one of rank correlation, from audit.json."""

from lib import audit
from lib.config import InputError
from lib.figure.base import Skip, families, figure
from lib.figure.draw import page
from lib.prune.importance import IMPORTANCE
from lib.records import Audit, RunScores
from lib.results import Results
from lib.spec import percent

MAP = "cividis"  # ordered in lightness, so that it reads the same with any colour vision
SIDE = 4.9  # inches of a panel
COLUMNS = 2


@figure("audit_overlap")
def audit_overlap(results: Results):
    """The state with the most live weights, which a dense run's is: the first of those in the matrix's order."""
    if not results.done.runs:
        raise Skip("no run has finished")
    try:
        record = audit.load(results.root)
    except InputError as e:
        raise Skip(f"{e}; run `make audit` again") from None
    if record is None:
        raise Skip(f"no {audit.FILE}: run `make audit`")
    runs = {r.id: (family, r) for family in families(results) for r in family.results}
    states = [s for s in record.states if s.run in runs]
    if not states:
        raise Skip(f"{audit.FILE} is of runs that are not here: run `make audit`")
    state = max(states, key=lambda s: s.live)
    family, run = runs[state.run]
    panels = [(f"Kept sets at {percent(at.sparsity)}%: Jaccard", at.jaccard_kept, 0) for at in state.at]
    panels.append(("All weights: Spearman's rank correlation", state.spearman, -1))
    rows = -(-len(panels) // COLUMNS)
    foot = family.alone(run).foot(*notes(state, record))
    title = f"What the scores would prune: {run.id}, step {state.step}"
    fig = page(COLUMNS * (SIDE + 1), rows * (SIDE + 0.5), title, foot)
    axes = list(fig.subplots(rows, COLUMNS, squeeze=False).flat)
    for ax, (heading, values, low) in zip(axes, panels, strict=False):
        heat(ax, heading, state.scores, values, low)
    for ax in axes[len(panels) :]:
        ax.remove()
    yield "audit_overlap", fig


def notes(state: RunScores, record: Audit) -> list[str]:
    """What a reader of the figure must know."""
    n = len(record.states)
    asked = f"Every score prunes the same share of the {state.live} live weights of {state.weights}"
    own = [name for name in state.scores if name in IMPORTANCE and IMPORTANCE[name].distribution]
    asked += f"; {audit.listed(own)} by its own distribution over the layers" if own else ""
    scale = '"=": exactly 1. Digits are cut, not rounded; dark is 0 (Spearman: -1), light is 1'
    audited = f"Audited with commit {(record.commit or 'unknown')[:7]}"
    audited += " with local changes" if record.provenance.dirty else ""
    others = f"; {audit.FILE} has {n - 1} more state{'s' * (n > 2)}" if n > 1 else ""
    return [asked, scale, audited + others]


def heat(ax, heading: str, names: list[str], values: list[list], low: float) -> None:
    """A matrix in colours and numbers; `low` is the darkest value, 1 the lightest."""
    from matplotlib import colormaps

    shown = [[low if v is None else v for v in row] for row in values]
    ax.imshow(shown, cmap=MAP, vmin=low, vmax=1)
    for i, row in enumerate(values):
        for j, v in enumerate(row):
            red, green, blue, _ = colormaps[MAP]((shown[i][j] - low) / (1 - low))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            ax.text(j, i, cell(v), ha="center", va="center", size=7.5, color="white" if dark else "black")
    ax.set_title(heading)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def cell(value: float | None) -> str:
    """Two decimals without the zero before them."""
    if value is None or value == 1:
        return "-" if value is None else "="
    whole = int(100 * value)
    return f"{'-' * (whole < 0)}.{abs(whole):02d}" if abs(whole) < 100 else "-1"
