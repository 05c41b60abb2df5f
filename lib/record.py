"""What a run says of itself: lines for a person who reads along, and the figures of its summary that come from its
evaluations. No torch."""

import math
import statistics
from collections.abc import Iterator

from lib.rundir import SCHEMA

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
        "first_epoch_s": epochs[0]["train_s"] if epochs else None,
        "first_epoch_steps": epochs[0]["step"] if epochs else None,
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


def start(run) -> dict:
    """The first row of a run's metrics; `run` is its Trainer."""
    s = run.schedule
    return {
        "event": "start",
        "steps": run.length.steps,
        "steps_per_epoch": run.length.steps_per_epoch,
        "evaluations": run.length.evaluations,
        "scale": run.length.scale,
        "batching": run.batching,
        "device": str(run.device),
        "prunable": run.prunable,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "pruning": {"warmup": s.warmup, "ramp_end": s.ramp_end, "frequency": s.frequency, "events": len(s.events)},
    }


def summary(run, status: str, why: str | None, elapsed: float, tests: dict) -> dict:
    """summary.json of a run, from its Trainer."""
    parameters = sum(p.numel() for p in run.model.parameters())
    last = run.epochs[-1] if run.epochs else {}
    achieved = last.get("sparsity") if run.sparse else 0.0
    return {
        "schema": SCHEMA,
        "status": status,
        "reason": why,
        **run.spec.dict(),
        "metric": run.task.metric,
        "achieved_sparsity": achieved,
        "achieved_sparsity_of_all": None if achieved is None else achieved * run.prunable / parameters,
        **curve(run.epochs, run.best),
        **BLANK,
        **tests,
        "stopped": run.stopped,
        "steps": run.step,
        "epochs": len(run.epochs),
        "planned_steps": run.length.steps,
        "skipped_steps": run.skipped,
        "batch_size": run.recipe.batch_size,
        "model_parameters": parameters,
        "prunable_parameters": run.prunable,
        "precision": "bf16" if run.training.precision == "bf16" else "fp32",
        "compiled": run.training.compile == "yes",
        "data_hash": run.data.hash,
        **run.data.facts,
        "flops_per_token": run.task.flops_per_token(run.model),
        "ledger": run.footprint.report() | {"predicted": run.predicted},
        "device": run.device_name,
        "devices": run.world.size,
        "gpus": run.gpus,
        "threads": run.threads,
        "elapsed_s": elapsed,
        "train_s": sum(r["train_s"] for r in run.epochs),
        "provenance": run.provenance,
    }


def finite(row: dict) -> dict:
    """JSON has no nan and no infinity: what is not finite is written as null."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
