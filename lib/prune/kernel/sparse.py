"""Dynamic sparse training: sparse from the start, and at each event every layer drops weights and grows as many.

SET (Mocanu et al. 2018, arXiv 1707.04780) grows at random, RigL (Evci et al. 2020, arXiv 1911.11134) where the dense
gradient is largest. Both drop the smallest of a layer; how many falls from a fraction of its live weights to none at
the end of the ramp, by half a cosine (RigL, eq. 1). A weight that grows starts at 0; one that was dropped may grow
again at once, and then stays as it was.
"""

import math

import torch

from lib.prune.kernel.mask import chunks
from lib.prune.kernel.noise import uniform
from lib.prune.kernel.pruner import INF, Pruner
from lib.prune.kernel.select import Alone, Apply, find


class DynamicSparse(Pruner):
    """Raises ValueError for weights that processes share: its layers' counts and draws are of whole layers."""

    reversible = True

    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        if type(plan.group) is not Alone:
            raise ValueError("set and rigl need whole layers: their weights cannot be shared by processes")

    def growth(self, name, p, rows):
        """Scores of the weights that are not kept; the highest grow."""
        raise NotImplementedError

    @property
    def first(self) -> bool:
        """Whether the event under way is the one that makes the network sparse, at random."""
        return self.next_event == 1

    def score(self, name, p, rows):
        if self.first:
            return uniform(self.plan.seed, self.place(name), p, rows)
        return torch.where(self.mask.of[p][rows], INF, self.growth(name, p, rows))

    def place(self, name: str) -> int:
        return next(i for i, (n, _) in enumerate(self.weights) if n == name)

    def fraction(self) -> float:
        through = min(1.0, self.optimizer.updates / self.plan.schedule.ramp_end)
        return self.plan.drop * (1 + math.cos(math.pi * through)) / 2

    def prepare(self):
        """Drop: the mask loses the smallest live weights of each layer, whose values stay until growth has chosen."""
        self.dropped = 0
        if self.first:
            return
        for (_, p), gone in zip(self.weights, self.known(), strict=True):
            drop = round(self.fraction() * (p.numel() - gone))
            self.dropped += drop
            choose = Apply(find(lambda stride, p=p: self.magnitudes(p, stride), gone + drop, p.numel()))
            for rows in chunks(p):
                keep = choose(self.magnitude(p, rows))
                self.mask.of[p][rows] = keep > 0

    def magnitude(self, p, rows):
        return torch.where(self.mask.of[p][rows], p.detach()[rows].float().abs(), -INF)

    def magnitudes(self, p, stride):
        for rows in chunks(p):
            yield self.magnitude(p, slice(rows.start, rows.stop, stride)).reshape(-1)

    def details(self):
        return {"dropped": self.dropped}

    def finish(self):
        """The sparsity is the target's from the start, so nothing is owed."""
        self.next_event = len(self.plan.schedule.events)


class SET(DynamicSparse):
    def growth(self, name, p, rows):
        return uniform(self.plan.seed + self.next_event, self.place(name), p, rows)


class RigL(DynamicSparse):
    """Holds the dense gradients from the hook of a step with an event to the event, and at no other time."""

    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        self.gradients = {}

    def attach(self, optimizer):
        super().attach(optimizer)
        optimizer.on_gradients.append(self.hold)

    def hold(self):
        if self.due() is not None:
            self.gradients = {p: p.grad.detach().clone() for _, p in self.weights if p.grad is not None}

    def growth(self, name, p, rows):
        g = self.gradients.get(p)
        return torch.zeros_like(p[rows], dtype=torch.float32) if g is None else g[rows].float().abs()

    def event(self, share):
        super().event(share)
        self.gradients = {}
