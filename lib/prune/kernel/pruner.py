"""The one mechanism behind every pruning method: schedule, scores, exact selection, masks, application, record.

A method is its score. Pruned is a mask of one byte a weight, hung on the optimizer, which multiplies gradients by it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib.prune.distribution import DISTRIBUTIONS, OWN, allocate, target_count
from lib.prune.kernel.select import Selection, lowest, lowest_per_layer
from lib.prune.schedule import Schedule

TIE_WARNING = 0.01  # of all prunable weights


@dataclass(frozen=True)
class Plan:
    """What a run asks of its pruner."""

    schedule: Schedule
    distribution: str = "global"
    variant: str = ""
    record: Callable[[dict], None] = field(default=lambda event: None)


def prunable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """(name, weight) of every Linear and Conv2d, in the model's order; not one that an Embedding shares (a tied head),
    and each tensor once."""
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear | nn.Conv2d) and id(m.weight) not in tied:
            found.setdefault(id(m.weight), (f"{name}.weight" if name else "weight", m.weight))
    return list(found.values())


class Pruner:
    """Irreversible pruning by a score: the base of every method.

    score(name, p, optimizer) gives float32 scores of p's shape; higher is kept. `keep[name]` is True where a weight is
    live. `attach` hangs the pruner on an optimizer; after that every `optimizer.step()` does what is due.
    """

    def __init__(self, weights: list[tuple[str, nn.Parameter]], plan: Plan, score: Callable | None = None):
        self.weights, self.plan = weights, plan
        if score is not None:
            self.score = score
        self.keep = {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights}
        self.total = sum(p.numel() for _, p in weights)
        self.next_event = 0
        self.optimizer = None

    def score(self, name: str, p: nn.Parameter, optimizer) -> Tensor:
        raise NotImplementedError

    def attach(self, optimizer) -> None:
        self.optimizer = optimizer
        optimizer.masks = {p: self.keep[n] for n, p in self.weights}
        optimizer.on_updated.append(self.on_updated)

    @torch.no_grad()
    def on_updated(self) -> None:
        """Run the last event that is due; an event that met a skipped step is made up for here."""
        events, due = self.plan.schedule.events, None
        while not self.finished and events[self.next_event][0] <= self.optimizer.calls:
            due = events[self.next_event]
            self.next_event += 1
        if due:
            self.event(due[1])

    @property
    def finished(self) -> bool:
        """Whether the last event is over, so that the sparsity is the target's."""
        return self.next_event == len(self.plan.schedule.events)

    def event(self, share: float) -> None:
        """Prune to exactly round(share * N) weights."""
        scores = [self.live_scores(n, p) for n, p in self.weights]
        if not any(bool(((s != 0) & (s != float("-inf"))).any()) for s in scores):
            raise ValueError(f"at step {self.optimizer.calls} every pruning score is 0, so there is nothing to go by")
        chosen = self.select(scores, share)
        before = self.count()
        for (name, p), pruned in zip(self.weights, chosen.pruned, strict=True):
            self.apply(name, p, pruned)
        self.record(share, chosen, before)

    def live_scores(self, name: str, p: nn.Parameter) -> Tensor:
        """The scores, and -inf where a weight is pruned already: it stays so, whatever its score would be."""
        return self.score(name, p, self.optimizer).masked_fill(~self.keep[name], float("-inf"))

    def select(self, scores: list[Tensor], share: float) -> Selection:
        k = target_count(share, self.total)
        distribution = OWN.get(self.plan.distribution) or DISTRIBUTIONS[self.plan.distribution]
        if distribution is None:
            return lowest(scores, k)
        sizes = [p.numel() for _, p in self.weights]
        shares = distribution([tuple(p.shape) for _, p in self.weights], share)
        return lowest_per_layer(scores, allocate(shares, sizes, k, self.floor()))

    def floor(self) -> list[int]:
        """Weights a layer has pruned already and cannot take back."""
        return [int((~self.keep[n]).sum()) for n, _ in self.weights]

    def apply(self, name: str, p: nn.Parameter, pruned: Tensor) -> None:
        """Make the mask what `pruned` says; what is pruned becomes 0, in the weights and in the optimizer's state."""
        self.keep[name].copy_(~pruned)
        p.masked_fill_(pruned, 0)
        self.optimizer.clear(p, pruned)

    def count(self) -> int:
        """How many weights are pruned."""
        return sum(int((~k).sum()) for k in self.keep.values())

    def record(self, share: float, chosen: Selection, before: int) -> None:
        after = self.count()
        layers = {n: 1 - self.keep[n].float().mean().item() for n, _ in self.weights}
        warnings = [f"layer {n} is pruned entirely" for n, _ in self.weights if not self.keep[n].any()]
        if chosen.ties > max(1, TIE_WARNING * self.total):
            warnings.append(f"{chosen.ties} of {self.total} weights have the threshold's score: position decided")
        self.plan.record(
            {
                "event": "prune",
                "step": self.optimizer.calls,
                "target_sparsity": share,
                "pruned": after,
                "prunable": self.total,
                "newly_pruned": after - before,
                "threshold": chosen.threshold,
                "ties": chosen.ties,
                "layers": layers,
                "warnings": warnings,
            }
        )

    def state_dict(self) -> dict:
        return {"keep": self.keep, "next_event": self.next_event}

    def load_state_dict(self, state: dict) -> None:
        for name, keep in state["keep"].items():
            self.keep[name].copy_(keep)
        self.next_event = state["next_event"]
