"""How long a run and a matrix will still take, from what has been seen of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)
class Running:
    """A run that is under way. steps: of the whole run, None until it has said so; step: the last one heard of; begun,
    first, latest: seconds on the clock when it began, when it started to train, and when the last step was heard of."""

    name: str
    cost: float
    clock: Callable[[], float]
    begun: float = field(init=False)
    steps: int | None = None
    step: int = 0
    first: float = 0.0
    latest: float = 0.0
    offset: int = 0  # bytes of its metrics that have been read
    quality: str = ""
    sparsity: str = ""

    def __post_init__(self):
        self.begun = self.clock()

    def restart(self) -> None:
        """Be as before the first line of its metrics."""
        self.steps, self.step, self.first, self.latest, self.offset = None, 0, 0.0, 0.0, 0
        self.quality = self.sparsity = ""

    def start(self, steps: int, now: float) -> None:
        self.steps, self.step, self.first = max(1, steps), 0, now

    def advance(self, step: int, now: float) -> None:
        if step > self.step:
            self.step, self.latest = step, now

    def elapsed(self) -> float:
        return self.clock() - self.begun

    def share(self) -> float:
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    def seconds_left(self) -> float | None:
        """Return the seconds to its last step at the pace so far; None before its second report."""
        if not self.step or self.latest <= self.first:
            return None
        pace = (self.latest - self.first) / self.step
        return max(0.0, (self.steps - self.step) * pace - (self.clock() - self.latest))


class Forecast:
    """What is left of a matrix: runs that have not begun are taken to go at the pace of those that have, each by what
    it is expected to cost beside the others (equal where that is not known)."""

    def __init__(self, total: int, costs: Mapping[str, float], clock: Callable[[], float] = time.monotonic):
        known = [c for c in costs.values() if c > 0]
        self.usual = sum(known) / len(known) if known else 1.0
        self.costs, self.clock = costs, clock
        self.work = sum(known) + self.usual * max(0, total - len(known))
        self.waiting, self.running = self.work, []
        self.done: list[tuple[Running, float]] = []  # with the seconds that each took
        self.ended_cost = 0.0
        self.first: Running | None = None
        self.together = 1  # runs at a time: the most so far, for one that ends makes room for the next

    def begin(self, name: str) -> Running:
        run = Running(name, self.costs.get(name) or self.usual, self.clock)
        self.waiting -= run.cost
        self.first = self.first or run
        self.running.append(run)
        self.together = max(self.together, len(self.running))
        return run

    def end(self, run: Running, done: bool) -> None:
        """A run that failed says nothing about how long others take."""
        self.running.remove(run)
        self.ended_cost += run.cost
        if done:
            self.done.append((run, run.elapsed()))

    def pace(self) -> float | None:
        """Return seconds of running for each unit of cost; None where nothing is known yet. The first run waits for
        imports that the others share, so it counts as long as it is the only one."""
        known = list(self.done)
        for run in self.running:
            left = run.seconds_left()
            if left is not None:
                known.append((run, run.elapsed() + left))
        known = [(run, s) for run, s in known if run is not self.first] or known
        return sum(s for _, s in known) / sum(run.cost for run, _ in known) if known else None

    def run_left(self, run: Running) -> float | None:
        """Return the seconds that a run will still take; before it reports, from the runs before it."""
        left, pace = run.seconds_left(), self.pace()
        if left is None and pace is not None:
            left = max(0.0, run.cost * pace - run.elapsed())
        return left

    def seconds_left(self) -> float | None:
        """Return the seconds that the matrix will still take with as many runs at a time as there were."""
        pace = self.pace()
        if pace is None:
            return None
        each = [self.run_left(run) for run in self.running]
        return max([*each, (sum(each) + max(0.0, self.waiting) * pace) / self.together])

    def share(self) -> float:
        """Return how much of the work is done, from 0 to 1."""
        return min(1.0, (self.ended_cost + sum(r.cost * r.share() for r in self.running)) / (self.work or 1.0))


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"
