"""Four panels a run: accuracy or perplexity, loss, sparsity, time."""

from lib.figure.base import PALETTE, QUALITIES, Family, families, figure
from lib.figure.draw import page
from lib.figure.panel import Value, loss_axis, percents, whole_epochs
from lib.records import Epoch, Prune
from lib.results import Results, Run

VALIDATION, TRAIN, TEST = PALETTE[0], PALETTE[1], PALETTE[5]
TIME = PALETTE[4]
BAND = "#f1f1f1"  # from the first pruning event to the last


@figure("run")
def run(results: Results):
    for family in families(results):
        for r in family.results:
            yield r.id, four(family, r)


def four(family: Family, r: Run):
    foot = family.alone(r).foot(*(["Shaded: from the first pruning event to the last"] if r.events else []))
    fig = page(9.5, 5.2, r.id, foot, layout=None)
    axes = fig.subplots(2, 2, sharex=True)
    for ax, draw in zip(axes.flat, (quality, loss, sparsity, seconds), strict=True):
        draw(ax, r)
        if r.events:
            ax.axvspan(epoch(r, r.events[0]), epoch(r, r.events[-1]), color=BAND, linewidth=0, zorder=0)
        beside_title(ax)
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    axes[0, 0].set_xlim(0, 1.02 * epoch(r, r.evaluations[-1]))
    if epoch(r, r.evaluations[-1]) >= 1:  # MAX_ITERS can end a run within its first epoch
        whole_epochs(axes[0, 0])
    return fig


def epoch(r: Run, row: Epoch | Prune) -> float:
    """Where a row of metrics stands in epochs; a pruning event may be between two."""
    return row.step / r.start.steps_per_epoch


def beside_title(ax) -> None:
    """The legend above the panel, where it covers nothing."""
    entries = len(ax.get_legend_handles_labels()[0])
    if not entries:
        return
    ax.legend(
        loc="lower right", bbox_to_anchor=(1, 0.985), ncols=entries, frameon=False, fontsize=7.5, borderaxespad=0.2,
        handlelength=1.5, columnspacing=1.0, handletextpad=0.4,
    )  # fmt: skip


def line(ax, r: Run, value: Value, hue: str, label: str) -> None:
    found = [(epoch(r, e), v) for e in r.evaluations if (v := value(e)) is not None]
    if found:
        few = "o" if len(found) <= 30 else None
        ax.plot(*zip(*found, strict=True), color=hue, linewidth=1.4, marker=few, markersize=2.5, label=label)


def quality(ax, r: Run) -> None:
    q = QUALITIES[r.metric]
    line(ax, r, lambda e: q.of(e, "validation"), VALIDATION, "validation")
    line(ax, r, lambda e: q.of(e, "test"), TRAIN, "test at each epoch")
    last = getattr(r, q.test)
    if last is not None:
        at, label = epoch(r, r.evaluations[-1]), f"test, last weights: {last:.2f}"
        ax.plot(at, last, "D", color=TEST, markersize=5, label=label, zorder=4)
    shown = [v for one in ax.get_lines() for v in one.get_ydata()]
    ax.set(title=q.word.capitalize(), ylabel=q.unit)
    if not shown:
        ax.text(0.5, 0.5, f"no {q.word} was recorded", ha="center", va="center", transform=ax.transAxes)
    elif q.word == "accuracy":
        ax.set_ylim(percents(shown))
    else:
        loss_axis(ax, q.unit)


def loss(ax, r: Run) -> None:
    line(ax, r, lambda e: e.train_loss, TRAIN, "training")
    line(ax, r, lambda e: e.validation_loss, VALIDATION, "validation")
    loss_axis(ax)
    ax.set_title("Loss")


def sparsity(ax, r: Run) -> None:
    """What was asked from event to event, and what the weights had at every epoch."""
    asked = [(0.0, 0.0), *((epoch(r, e), 100 * e.target_sparsity) for e in r.events)]
    asked.append((epoch(r, r.evaluations[-1]), asked[-1][1]))
    ax.step(*zip(*asked, strict=True), where="post", color=TRAIN, linewidth=2.4, label=f"asked: {asked[-1][1]:.2f}")
    line(ax, r, lambda e: 100 * e.sparsity, VALIDATION, f"achieved: {100 * r.achieved_sparsity:.2f}")
    ax.set(title="Sparsity", ylabel="% of the prunable weights", ylim=(-4, 104))


def seconds(ax, r: Run) -> None:
    """Time of every epoch: training, and on top of it evaluation and checkpoints."""
    ends = [e.elapsed_s for e in r.evaluations]
    whole = [b - a for a, b in zip([0.0, *ends], ends, strict=False)]
    train, edges = [e.train_s for e in r.evaluations], [0.0, *(epoch(r, e) for e in r.evaluations)]
    upper = [max(w, t) for w, t in zip(whole, train, strict=True)]
    ax.stairs(upper, edges, baseline=train, fill=True, color="#bbbbbb", label="evaluation, checkpoints")
    ax.stairs(train, edges, fill=True, color=TIME, label="training")
    ax.set(title="Time", ylabel="seconds an epoch")
    ax.set_ylim(bottom=0)
