"""What the report says of a run's memory, class by class and phase by phase, and of its energy."""

from collections.abc import Callable, Iterator

from lib import ledger
from lib.results import Results, Run

MIB = 1024 * 1024
HEADS = {  # of the ledger's classes
    "exp_avg": "m",
    "exp_avg_sq": "v",
    "max_exp_avg_sq": "max v",
    "momentum_buffer": "momentum",
    "frozen": "kept values",
    "start": "initial weights",
}
PHASES = ("train", "prune", "evaluate", "checkpoint", "test", "inference")
ABOUT = (
    "What each byte of training is for, MiB of tensors as measured between a backward pass and its update, and as "
    "predicted (parameters times what optimizer and method keep; no buffers). x weights: what stays from step to "
    "step (weights, optimizer, pruning) as a multiple of the weights. Less than movement: than with movement "
    "pruning, as implemented here, on the same optimizer. Activations: what one backward pass saves. Then peaks "
    "of training, as far as they are reported: the allocator's, with workspace, what it held beyond tensors and "
    "activations; of the run's processes, sampled; and of the whole device."
)


def memory(results: Results, form: Callable, heading: str) -> Iterator[str]:
    """One row a run, then one a run by phase."""
    for (model, dataset), group in results.done.by("model", "dataset").items():
        found = [r for r in group if r.ledger]
        if found:
            yield f"{heading}Memory ledger: {model} on {dataset}"
            yield ""
            many = max(r.devices or 1 for r in found)
            yield ABOUT + (f" Tensors and allocator are those of the first of {many} processes." if many > 1 else "")
            yield ""
            yield from classes(found, form)
            yield ""
            yield from phases(found, form)
            yield ""
            yield from told(found)


def classes(runs: list[Run], form: Callable) -> Iterator[str]:
    measured = [tensors(r) for r in runs]
    names = list(dict.fromkeys(n for found in measured for n in found if n != "data"))
    steps = [step for step in ledger.LADDER if step != "tensors" and any(ladder(r)[step] is not None for r in runs)]
    head = ["run", *(HEADS.get(n, n) for n in names), "tensors", "predicted", "x weights", "less than movement %"]
    head += ["activations"] + ["workspace"] * ("allocated" in steps)
    rows = []
    for r, found in zip(runs, measured, strict=True):
        mine = {n: v for n, v in found.items() if n != "data"}
        predicted = r.ledger.predicted
        rows.append(
            [
                r.id,
                *(mib(mine.get(n)) for n in names),
                mib(sum(mine.values())),
                mib(sum(predicted.classes.values())),
                f"{predicted.multiple:.2f}",
                f"{predicted.less_than_movement_pct:.1f}",
                mib(r.ledger.activations),
                *([workspace(r)] if "allocated" in steps else []),
                *(text(ladder(r)[step]) for step in steps),
            ]
        )
    yield from form([*head, *steps], rows)


def workspace(r: Run) -> str:
    """MiB that the allocator held at its peak of training beyond all tensors and activations."""
    peak, saved = ladder(r)["allocated"], r.ledger.activations
    return "-" if peak is None or saved is None else text(peak - (sum(tensors(r).values()) + saved) / MIB)


def phases(runs: list[Run], form: Callable) -> Iterator[str]:
    """Tensors, the allocator's peak and the processes' peak in each phase."""
    seen = [p for p in PHASES if any(p in r.ledger.phases for r in runs)]
    each = [
        s for s in ("tensors", "allocated", "process") if any(ladder(r, p)[s] is not None for r in runs for p in seen)
    ]
    yield f"By phase: {' / '.join(each)}, MiB, with the data set's tensors; - is not reported."
    yield ""
    rows = [[r.id, *(" / ".join(text(ladder(r, p)[s]) for s in each) for p in seen)] for r in runs]
    yield from form(["run", *seen], rows)


def told(runs: list[Run]) -> Iterator[str]:
    """Where measurement and prediction part, and where the ladder breaks; and how much there was to compare."""
    lines = [f"{r.id}: {what}" for r in runs for what in ledger.unequal(r.ledger)]
    lines += [f"{r.id}: in training {what}" for r in runs for what in ledger.broken(climbed(r))]
    measured = [r for r in runs if tensors(r)]
    steps = sorted({s for r in runs for s, v in climbed(r).items() if v is not None}, key=ledger.LADDER.index)
    if measured and not lines:
        lines.append(f"tensors are as predicted, to the byte, in {len(measured)} of {len(runs)} runs (buffers aside)")
    lines.append(
        f"compared: {' <= '.join(steps)}" if len(steps) > 1 else "nothing was reported to compare tensors with"
    )
    yield from (f"- {line}" for line in lines)
    yield ""


def tensors(r: Run) -> dict[str, int]:
    return r.ledger.tensors()


def ladder(r: Run, phase: str = "train") -> dict[str, float | None]:
    peaks = (r.memory_phases or {}).get(phase, {})
    return ledger.ladder(r.ledger, peaks.get("process"), peaks.get("device"), phase)


def climbed(r: Run) -> dict[str, float | None]:
    """The ladder as it can be checked: data on a device is a tensor, too; on a host, where files in memory are shared,
    the last step is no bound."""
    steps = ladder(r)
    return steps if steps["allocated"] is not None else steps | {"device": None}


def mib(size: int | None) -> str:
    return "-" if size is None else f"{size / MIB:.2f}"


def text(size: float | None) -> str:
    return "-" if size is None else f"{size:.1f}"


def energy(results: Results, form: Callable, heading: str) -> Iterator[str]:
    """Joules a run, and for each point of test accuracy, where a device reports them."""
    for (model, dataset), group in results.done.by("model", "dataset").items():
        found = [r for r in group if r.energy_j is not None]
        if found:
            yield f"{heading}Energy: {model} on {dataset}"
            yield ""
            yield "Of the devices that a run trained on, with whatever else ran on them, from its start to its end."
            yield ""
            rows = [[r.id, f"{r.energy_j:.0f}", text(r.energy_per_accuracy_point), f"{r.elapsed_s:.1f}"] for r in found]
            yield from form(["run", "joules", "J per accuracy point", "time s"], rows)
            yield ""
            yield f"Joules {' or '.join(dict.fromkeys(r.energy_source for r in found))}."
            yield ""
