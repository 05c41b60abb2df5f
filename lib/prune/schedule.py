"""When to prune and how far: one schedule, the same for every method. Pure arithmetic.

A step t of 1..T is pruned *after* its update, so the weights that are evaluated after step t are the pruned ones.
"""

from dataclasses import dataclass

from lib.config import InputError

SHAPES = {
    "cubic": lambda p: 1 - (1 - p) ** 3,  # Zhu and Gupta 2017, eq. 1
    "linear": lambda p: p,
    "cubic_late": lambda p: p**3,
    "one_shot": lambda p: float(p >= 1),
}


@dataclass(frozen=True)
class Schedule:
    """Pruning events: (step, share of the prunable weights) with both strictly rising (the share stays where the shape
    is constant); the last has the target."""

    events: tuple[tuple[int, float], ...]
    warmup: int
    ramp_end: int
    frequency: int
    shape: str = "cubic"
    target: float = 0.0

    def asked(self, step: int) -> float:
        """Sparsity in force after step `step`."""
        return max((s for t, s in self.events if t <= step), default=0.0)


def schedule(options, target: float, total: int, scale: float = 1.0, resets=None, own: str = "") -> Schedule:
    """The events of a run of `total` steps.

    options: a PruningOptions. scale: the factor on lengths given in steps, for a shortened run. resets: the Resets of
    the optimizer (momentum set to 0 every `interval` steps, `wait` to recover), or None. own: the method's own shape,
    in the place of PRUNING_SCHEDULE_*; "constant" has its first event at step 0.
    Raises InputError where the lengths do not fit each other.
    """
    ramp_end = max(
        1, options.pruning_ramp_end.resolve(total, scale) if options.pruning_ramp_end else round(total * 0.75)
    )
    if options.pruning_warmup:
        warmup = options.pruning_warmup.resolve(total, scale)
    else:
        warmup = min(round(100 * scale), total // 10)
    if not 0 <= warmup < ramp_end <= total:
        raise InputError(
            f"PRUNING_WARMUP={options.pruning_warmup!r} and PRUNING_RAMP_END={options.pruning_ramp_end!r} give steps "
            f"{warmup} and {ramp_end}, which do not fit a run of {total} steps: 0 <= warm-up < ramp end <= steps"
        )
    ramp = ramp_end - warmup
    if options.pruning_frequency:
        frequency = max(1, options.pruning_frequency.resolve(total, scale))
    else:
        frequency = max(1, min(round(50 * scale), ramp // 10))
    name = own or options.pruning_schedule
    steps = sorted({*range(warmup + frequency, ramp_end, frequency), ramp_end})
    *before, last = _avoid(steps, resets)
    if name == "constant":
        events = tuple((t, target) for t in (0, *before, last))
        return Schedule(events, warmup, ramp_end, frequency, name, target)
    shape = SHAPES[name]
    events: list[tuple[int, float]] = []
    for t in before:
        share = target * shape((t - warmup) / ramp)
        # Rounding can bring a share next to the ramp's end up to the target, which belongs to the last event.
        if (events[-1][1] if events else 0.0) < share < target:
            events.append((t, share))
    events.append((last, target))
    return Schedule(tuple(events), warmup, ramp_end, frequency, name, target)


def _avoid(steps: list[int], resets) -> list[int]:
    """Keep events away from the steps after a momentum reset, whose scores would be all but 0: an event due on a reset
    step goes right before it, one due while the moments recover waits, and the last goes before the reset it meets."""
    if resets is None:
        return steps
    if resets.interval <= resets.wait:
        raise InputError(
            f"SPAM_DELTA_T={resets.interval} with SPAM_WARMUP={resets.wait} leaves no step on which to prune: with "
            f"pruning SPAM_DELTA_T must be more than SPAM_WARMUP"
        )
    last = steps[-1]
    moved = set()
    for t in steps:
        since = t % resets.interval if t >= resets.interval else resets.wait
        if since == 0 or (since < resets.wait and t == last):
            t -= since + 1
        elif since < resets.wait:
            t += resets.wait - since
        moved.add(t)
    end = last if last in moved else max(t for t in moved if t <= last)
    return sorted(t for t in moved if t <= end)
