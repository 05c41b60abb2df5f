"""w * (w - w0): how far a weight has moved from its start, times where it is."""

from lib.prune.kernel.pruner import Pruner


class Displacement(Pruner):
    def __init__(self, weights, plan):
        super().__init__(weights, plan)
        self.start = {n: p.detach().clone() for n, p in self.weights}

    def score(self, name, p, rows):
        w = p.detach()[rows].float()
        return w * (w - self.start[name][rows].float())

    def state_dict(self):
        return {**super().state_dict(), "start": self.start}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.start = {n: v.clone() for n, v in state["start"].items()}
