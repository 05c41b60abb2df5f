"""What a run says of itself: lines for a person who reads along, and the figures of its summary that come from its
evaluations. No torch."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict

from lib.batching import Batching
from lib.records import Epoch, LeastDense, Ledger, Metric, NoScores, Prune, PruningWindow, ScoresState, Start, Summary
from lib.schema import parse

LATE = 10  # evaluations that `std_last10` is over
HUGE = 1e100  # a perplexity of a model that has diverged: its square would leave what a float holds
# What a run that was not tested has not, and what only some runs have.
UNTESTED = dict.fromkeys(f"test_{what}_{which}" for which in ("last", "best") for what in ("accuracy", "loss"))
UNTESTED |= {"inference": None, "sample": None, "damaged_images": 0}


def perplexity(loss: float | None) -> float | None:
    """Of a mean cross-entropy in nats; infinite above what a float holds."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf


def said(name: str, row: Metric) -> Iterator[str]:
    """The lines of a log for a row of metrics."""
    if isinstance(row, Epoch):
        found = held_out(row.validation_loss, row.validation_accuracy)
        yield (
            f"{name}  epoch {row.epoch:3d}  step {row.step:6d}  train loss {row.train_loss:.4f}  "
            f"validation {found}  sparsity {100 * row.sparsity:6.2f}%  {row.train_s:.2f} s"
        )
    for warning in row.warnings if isinstance(row, Prune) else ():
        yield f"{name}  warning at step {row.step}: {warning}"


def held_out(loss: float | None, accuracy: float | None) -> str:
    """An evaluation on validation data, in words."""
    if loss is None:
        return "not held out"
    return f"perplexity {perplexity(loss):.2f}" if accuracy is None else f"{accuracy:6.2f}%"


def quality(row: Epoch, metric: str) -> float | None:
    """How good an evaluation is, higher is better: what runs of this metric are compared by; None where nothing was
    held out, or the loss is not finite."""
    if metric == "accuracy":
        return row.validation_accuracy
    found = perplexity(row.validation_loss)
    return None if found is None or found > HUGE else -found


def curve(epochs: list[Epoch], best: Epoch | None, metric: str) -> dict:
    """What a summary says of the evaluations.

    best: the row of the best one among those at the final sparsity. The peak is the best of the whole run, denser
    evaluations included. std_last10 is the standard deviation over the last ten evaluations and peak_to_final how much
    worse the last one is than the peak: in points of validation accuracy, or in validation perplexity.
    """
    last = epochs[-1] if epochs else None
    known = [(q, row) for row in epochs if (q := quality(row, metric)) is not None]
    top, peak = max(known, key=lambda pair: pair[0], default=(None, None))
    late = [q for q, _ in known[-LATE:]]
    tested = [r.test_accuracy for r in epochs if r.test_accuracy is not None]
    losses = [r.test_loss for r in epochs if r.test_loss is not None]
    return {
        "first_epoch_s": epochs[0].train_s if epochs else None,
        "first_epoch_steps": epochs[0].step if epochs else None,
        "final_accuracy": last and last.validation_accuracy,
        "final_loss": last and last.validation_loss,
        "best_accuracy": best and best.validation_accuracy,
        "best_loss": best and best.validation_loss,
        "best_epoch": best and best.epoch,
        "peak_accuracy": peak and peak.validation_accuracy,
        "peak_loss": peak and peak.validation_loss,
        "peak_epoch": peak and peak.epoch,
        "test_accuracy_optimistic": max(tested, default=None),
        "test_loss_optimistic": min(losses, default=None),
        "std_last10": statistics.stdev(late) if len(late) > 1 else None,
        "peak_to_final": top - late[-1] if late else None,
    }


def start(run) -> Start:
    """The first row of a run's metrics; `run` is its Trainer."""
    s = run.schedule
    return Start(
        steps=run.length.steps,
        steps_per_epoch=run.length.steps_per_epoch,
        evaluations=run.length.evaluations,
        scale=run.length.scale,
        batching=run.batching and Batching(**run.batching),
        device=str(run.device),
        prunable=run.prunable,
        parameters=sum(p.numel() for p in run.model.parameters()),
        pruning=PruningWindow(warmup=s.warmup, ramp_end=s.ramp_end, frequency=s.frequency, events=len(s.events)),
    )


def prune(event: dict) -> Prune:
    """The row of a pruning event, from what the pruner says of it."""
    audit = event.get("audit")
    if audit is not None:
        event = event | {"audit": parse(NoScores if "error" in audit else ScoresState, audit)}
    return Prune(**event | {"least_dense": LeastDense(**event["least_dense"])})


def summary(run, status: str, why: str | None, elapsed: float, tests: dict) -> Summary:
    """summary.json of a run, from its Trainer."""
    parameters = sum(p.numel() for p in run.model.parameters())
    last = run.epochs[-1] if run.epochs else None
    achieved = (last and last.sparsity) if run.sparse else 0.0
    return Summary(
        status=status,
        reason=why,
        **asdict(run.spec),
        metric=run.task.metric,
        achieved_sparsity=achieved,
        achieved_sparsity_of_all=None if achieved is None else achieved * run.prunable / parameters,
        **curve(run.epochs, run.best, run.task.metric),
        **UNTESTED | tests,
        stopped=run.stopped,
        steps=run.step,
        epochs=len(run.epochs),
        planned_steps=run.length.steps,
        skipped_steps=run.skipped,
        batch_size=run.recipe.batch_size,
        model_parameters=parameters,
        prunable_parameters=run.prunable,
        precision="bf16" if run.training.precision == "bf16" else "fp32",
        compiled=run.training.compile == "yes",
        data_hash=run.data.hash,
        **run.data.facts,
        flops_per_token=run.task.flops_per_token(run.model),
        ledger=Ledger(**run.footprint.report(), predicted=run.predicted),
        device=run.device_name,
        devices=run.world.size,
        gpus=run.gpus,
        threads=run.threads,
        elapsed_s=elapsed,
        train_s=sum(r.train_s for r in run.epochs),
        provenance=run.provenance,
        files=run.rundir.digests(),
    )
