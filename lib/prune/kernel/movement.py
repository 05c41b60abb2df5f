"""Movement pruning (Sanh, Wolf and Rush 2020, eq. 3-6): scores learned by a straight-through estimate, hard top-v.

S accumulates -lr * w * dL/dw from the first step, with the dense gradient and the dense value of every weight. A
masked weight's dense value is frozen, with its optimizer state 0, and returns with it when its score returns.
"""

import torch

from lib.prune.kernel.pruner import Pruner


class Movement(Pruner):
    reversible = True

    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        self.scores = {n: torch.zeros_like(p, dtype=torch.float32) for n, p in self.weights}
        self.frozen = {n: torch.zeros_like(p) for n, p in self.weights}

    def attach(self, optimizer):
        super().attach(optimizer)
        optimizer.on_gradients.append(self.accumulate)

    @torch.no_grad()
    def accumulate(self):
        # Looked up each time: loading the optimizer's state replaces its groups.
        lr = {p: group["lr"] for group in self.optimizer.param_groups for p in group["params"]}
        for name, p in self.weights:
            if p.grad is not None:
                dense = torch.where(self.mask.of[p], p, self.frozen[name])
                self.scores[name].addcmul_(dense, p.grad, value=-lr[p])

    def score(self, name, p, rows):
        return self.scores[name][rows]

    def apply(self, name, p, rows, keep):
        kept, frozen, w = self.mask.of[p][rows], self.frozen[name][rows], p[rows]
        stays = keep > 0
        frozen.copy_(torch.where(kept & ~stays, w, frozen))
        w.copy_(torch.where(stays & ~kept, frozen, w))
        super().apply(name, p, rows, keep)

    def state_dict(self):
        return {**super().state_dict(), "scores": self.scores, "frozen": self.frozen}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        for mine, theirs in ((self.scores, state["scores"]), (self.frozen, state["frozen"])):
            for name, value in theirs.items():
                mine[name].copy_(value)
