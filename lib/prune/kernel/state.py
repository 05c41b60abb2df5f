"""State pruning: scores from the optimizer's own moments."""

from lib.prune import importance
from lib.prune.kernel.mask import chunks
from lib.prune.kernel.pruner import Pruner
from lib.prune.state import DEFAULT_VARIANT


class State(Pruner):
    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        self.importance = importance.IMPORTANCE[plan.variant or DEFAULT_VARIANT]
        self.rms = {}

    def prepare(self):
        """The root mean square of each tensor's live weights. The pruned ones are 0 and add nothing."""
        if not self.importance.relative:
            return
        for (name, p), size, gone in zip(self.weights, self.sizes, self.known(), strict=True):
            squares = self.plan.group.sum(sum(p.detach()[rows].double().square().sum() for rows in chunks(p)))
            self.rms[name] = (squares / max(1, size - gone)).sqrt().float()

    def score(self, name, p, rows):
        state, group = self.optimizer.state[p], self.optimizer.param_groups[0]
        m, v = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        seen = importance.State(m, v, group["step"], group["beta1"], self.rms.get(name))
        return self.importance.score(p.detach()[rows].float(), seen)
