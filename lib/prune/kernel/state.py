"""State pruning: scores from the optimizer's own moments."""

from dataclasses import replace

from lib.prune import importance
from lib.prune.kernel.pruner import Pruner
from lib.prune.state import DEFAULT_VARIANT


class State(Pruner):
    def __init__(self, weights, plan):
        self.importance = importance.IMPORTANCE[plan.variant or DEFAULT_VARIANT]
        super().__init__(weights, replace(plan, distribution=self.importance.distribution or plan.distribution))

    def score(self, name, p, optimizer):
        state, group = optimizer.state[p], optimizer.param_groups[0]
        live = int(self.keep[name].sum())
        seen = importance.State(state["exp_avg"], state["exp_avg_sq"], group["step"], group["beta1"], live)
        return self.importance.score(p.detach().float(), seen)
