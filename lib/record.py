"""What a run says of itself: lines for a person who reads along, and the figures of its summary that come from its
evaluations. No torch."""

import math
import statistics
from collections.abc import Iterator

# What a run that was not tested has not, and what only some runs have.
BLANK = dict.fromkeys(f"test_{what}_{which}" for which in ("last", "best") for what in ("accuracy", "loss"))
BLANK |= {"inference": None, "sample": None, "damaged_images": 0}


def perplexity(loss: float | None) -> float | None:
    """Of a mean cross-entropy in nats; infinite above what a float holds."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf


def said(name: str, row: dict) -> Iterator[str]:
    """The lines of a log for a row of metrics."""
    if row["event"] == "epoch":
        yield (
            f"{name}  epoch {row['epoch']:3d}  step {row['step']:6d}  train loss {row['train_loss']:.4f}  "
            f"validation {held_out(row)}  sparsity {100 * row['sparsity']:6.2f}%  {row['train_s']:.2f} s"
        )
    for warning in row.get("warnings", ()):
        yield f"{name}  warning at step {row['step']}: {warning}"


def held_out(row: dict) -> str:
    if row["validation_loss"] is None:
        return "not held out"
    accuracy = row["validation_accuracy"]
    return f"perplexity {perplexity(row['validation_loss']):.2f}" if accuracy is None else f"{accuracy:6.2f}%"


def curve(epochs: list[dict], best: dict | None) -> dict:
    """What a summary says of the evaluations; `best` is the row of the best one."""
    last = epochs[-1] if epochs else {}
    accuracies = [r["validation_accuracy"] for r in epochs if r["validation_accuracy"] is not None]
    tested = [r["test_accuracy"] for r in epochs if r.get("test_accuracy") is not None]
    losses = [r["test_loss"] for r in epochs if r.get("test_loss") is not None]
    highest = best and best["validation_accuracy"]
    return {
        "final_accuracy": last.get("validation_accuracy"),
        "final_loss": last.get("validation_loss"),
        "best_accuracy": highest,
        "best_loss": best and best["validation_loss"],
        "best_epoch": best and best["epoch"],
        "test_accuracy_optimistic": max(tested, default=None),
        "test_loss_optimistic": min(losses, default=None),
        "std_last10": statistics.stdev(accuracies[-10:]) if len(accuracies) > 1 else None,
        "peak_to_final": highest - accuracies[-1] if highest is not None and accuracies else None,
    }


def finite(row: dict) -> dict:
    """JSON has no nan and no infinity: what is not finite is written as null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
