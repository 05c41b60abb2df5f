"""State pruning: scores from the optimizer's own moments."""

import torch

from lib.prune import importance
from lib.prune.kernel.mask import chunks
from lib.prune.kernel.pruner import Pruner
from lib.prune.state import DEFAULT_VARIANT


class State(Pruner):
    """Of the optimizer's state a score gets what it `needs`; a weight that has had no gradient may have none yet."""

    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        self.importance = importance.IMPORTANCE[plan.variant or DEFAULT_VARIANT]
        self.rms, self.updates = {}, {}

    def prepare(self):
        """Each tensor's own updates and beta1; where the score reads it, the root mean square of its live weights: the
        pruned ones are 0 and add nothing. Raises ValueError where no weight has what the score reads."""
        optimizer = self.optimizer
        known = {n for _, p in self.weights for n in optimizer.state.get(p, {})}
        if missing := self.importance.needs - known:
            raise ValueError(
                f"{self.importance.name} reads {', '.join(sorted(missing))}, and the optimizer keeps "
                f"{', '.join(sorted(known)) or 'nothing'}"
            )
        group = {p: g for g in optimizer.param_groups for p in g["params"]}
        self.updates = {n: (optimizer.updates_of(p, group[p]), group[p].get("beta1", 0.0)) for n, p in self.weights}
        if not self.importance.relative:
            return
        for (name, p), size, gone in zip(self.weights, self.sizes, self.known(), strict=True):
            squares = self.plan.group.sum(sum(p.detach()[rows].double().square().sum() for rows in chunks(p)))
            self.rms[name] = (squares / max(1, size - gone)).sqrt().float()

    def score(self, name, p, rows):
        state, (step, beta1) = self.optimizer.state.get(p, {}), self.updates[name]
        w = p.detach()[rows].float()
        read = {n: state[n][rows].float() if n in state else torch.zeros_like(w) for n in self.importance.needs}
        seen = importance.State(**read, step=max(1, step), beta1=beta1, rms=self.rms.get(name))
        return self.importance.score(w, seen)
