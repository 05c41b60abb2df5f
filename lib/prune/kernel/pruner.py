"""The one mechanism behind every pruning method: schedule, scores, exact selection, application, record.

A method is its score. Scores are computed chunk by chunk, as often as the selection passes over them, and are never
held together, so that an event needs a few MiB beside the model.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lib.config import InputError
from lib.prune.base import NotFinite
from lib.prune.distribution import DISTRIBUTIONS, OWN, allocate, most, target_count
from lib.prune.kernel import pattern
from lib.prune.kernel.mask import StateMask, StoredMask, chunks
from lib.prune.kernel.select import Alone, Apply, Cut, find, ties_before
from lib.prune.schedule import Schedule

TIE_WARNING = 0.01  # of all prunable weights
INF = float("inf")


@dataclass(frozen=True)
class Plan:
    """What a run asks of its pruner. begin, record: called before and after an event. seed: of what a method draws at
    random. group: the processes that share the weights, each with consecutive rows of every layer."""

    schedule: Schedule
    distribution: str = "global"
    variant: str = ""
    begin: Callable[[], None] = field(default=lambda: None)
    record: Callable[[dict], None] = field(default=lambda event: None)
    floor: float = 0.0
    pattern: tuple[int, int] = (2, 4)
    drop: float = 0.3
    seed: int = 0
    group: Alone = field(default_factory=Alone)
    audit: Callable[["Pruner", float], dict | None] | None = None


def dead_last(scores: Tensor, live: Tensor) -> Tensor:
    """The scores, and -inf where `live` is 0."""
    if live.device.type == "cpu":  # 0 or -inf is added: seven times as fast
        found = scores + nn.functional.threshold(live, 0.0, -INF).clamp_(max=0.0)
        if not found.sum().isnan():  # inf - inf: what is pruned may have any score
            return found
    return torch.where(live > 0, scores, -INF)


def prunable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """(name, weight) of every Linear and Conv2d, in the model's order; not one that an Embedding shares (a tied head),
    and each tensor once."""
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear | nn.Conv2d) and id(m.weight) not in tied and m.weight.numel():
            found.setdefault(id(m.weight), (f"{name}.weight" if name else "weight", m.weight))
    return list(found.values())


class Pruner:
    """Pruning by a score: the base of every method. `not_finite` counts the weights, kept or not, that were infinite or
    no number at the last event: whoever trains has to end there, for what was pruned of them is 0 now.

    score(name, p, rows) gives float32 scores of the shape of `p[rows]`; higher is kept. Within an event it has to give
    the same again however often it is asked, and for whatever rows: what it needs besides, `prepare` makes. `attach`
    hangs the pruner on an optimizer; after that every `optimizer.step()` does what is due. `weights` are those that the
    plan's distribution can prune.
    """

    reversible = False  # whether a pruned weight can come back

    def __init__(self, weights: list[tuple[str, nn.Parameter]], plan: Plan, score: Callable | None = None):
        self.weights = pattern.divisible(weights, plan.pattern) if plan.distribution == "nm" else weights
        self.plan = plan
        if score is not None:
            self.score = score
        self.sizes = plan.group.sum(torch.tensor([p.numel() for _, p in self.weights], dtype=torch.int64)).tolist()
        rest = [p.shape[1:] for _, p in self.weights]  # of one row; the rows themselves may be with several processes
        self.shapes = [(n // r.numel(), *r) for n, r in zip(self.sizes, rest, strict=True)]
        self.total = sum(self.sizes)
        self.caps = [most(n, plan.floor) for n in self.sizes]
        if target_count(plan.schedule.target, self.total) > sum(self.caps):
            raise InputError(
                f"PRUNING_LAYER_FLOOR={plan.floor:g}: in whole weights the layers can give up {sum(self.caps)} of "
                f"{self.total}, and TARGET_SPARSITY={plan.schedule.target:g} is more: lower one of them"
            )
        self.next_event, self.last, self.not_finite = 0, [], 0
        self.optimizer = self.mask = None

    def score(self, name: str, p: nn.Parameter, rows: slice) -> Tensor:
        raise NotImplementedError

    def attach(self, optimizer) -> None:
        self.optimizer = optimizer
        in_state = optimizer.holds_masks and not self.reversible
        self.mask = (StateMask if in_state else StoredMask)(optimizer, self.weights)
        optimizer.on_updated.append(self.on_updated)
        self.on_updated()  # an event at step 0

    @property
    def keep(self) -> dict[str, Tensor]:
        """Name -> bool, True where a weight is live; made when asked for."""
        gone = {n: self.mask.pruned(p) for n, p in self.weights}
        return {n: torch.ones_like(p, dtype=torch.bool) if gone[n] is None else ~gone[n] for n, p in self.weights}

    def due(self) -> float | None:
        """The share that the last event due by now asks for, or None where none is due."""
        events = self.plan.schedule.events[self.next_event :]
        return next((share for t, share in reversed(events) if t <= self.optimizer.updates), None)

    @torch.no_grad()
    def on_updated(self) -> None:
        if self.next_event and self.mask.lost():
            raise ValueError(
                "pruning has begun, and the optimizer's state holds no mask: load it with the pruner's state"
            )
        share = self.due()
        if share is not None:
            while not self.finished and self.plan.schedule.events[self.next_event][0] <= self.optimizer.updates:
                self.next_event += 1
            self.event(share)

    @torch.no_grad()
    def finish(self) -> None:
        """At the end of a run: the last event is still owed where skipped steps have kept it from its turn."""
        if not self.finished:
            self.next_event = len(self.plan.schedule.events)
            self.event(self.plan.schedule.events[-1][1])

    @property
    def finished(self) -> bool:
        """Whether the last event is over, so that the sparsity is the target's."""
        return self.next_event == len(self.plan.schedule.events)

    def event(self, share: float) -> None:
        """Prune to exactly round(share * N) weights."""
        self.plan.begin()
        before = sum(self.known())
        try:
            self.prepare()
            cuts = self.cuts(share)
        except ValueError as e:
            raise NotFinite(str(e)) if self.diverged() else e from None
        self.check(cuts)
        audited = self.plan.audit(self, share) if self.plan.audit else None
        counts, digests = [0] * len(self.weights), [hashlib.sha256() for _ in self.weights]
        self.not_finite = self.count_not_finite()
        for layers, cut in cuts:
            for i, choose in zip(layers, self.appliers(layers, cut), strict=True):
                name, p = self.weights[i]
                for rows in chunks(p):
                    keep = choose(self.live_scores(name, p, rows))
                    counts[i] += keep.numel() - int(keep.sum(dtype=torch.float64))
                    digests[i].update(np.packbits((keep > 0).cpu().numpy()).tobytes())
                    self.apply(name, p, rows, keep)
        self.mask.settle()
        counts = self.last = self.plan.group.sum(torch.tensor(counts, dtype=torch.int64)).tolist()
        digest = hashlib.sha256(b"".join(d.digest() for d in digests)).hexdigest()[:16]
        self.record(share, [cut for _, cut in cuts], counts, before, digest, audited)

    def count_not_finite(self) -> int:
        """Weights that are infinite or not a number."""
        parts = (p.detach()[rows] for _, p in self.weights for rows in chunks(p))
        found = sum(int((~part.isfinite()).sum()) for part in parts if not part.sum().isfinite())
        return int(self.plan.group.sum(torch.tensor(found)))

    def diverged(self) -> bool:
        """Whether a weight or what the optimizer remembers of it is not finite."""
        states = [self.optimizer.state.get(p, {}).values() for _, p in self.weights]
        bad = any(not t.isfinite().all() for s in states for t in s if torch.is_tensor(t))
        return bool(self.plan.group.sum(torch.tensor(int(bad)))) or self.count_not_finite() > 0

    def prepare(self) -> None:
        """Whatever a score needs to know of whole tensors, before an event."""

    def details(self) -> dict:
        """What a method has to say of an event beyond what all say."""
        return {}

    def live_scores(self, name: str, p: nn.Parameter, rows: slice) -> Tensor:
        """The scores, and -inf where a weight is pruned already: it stays so, whatever its score would be."""
        scores = self.score(name, p, rows)
        live = None if self.reversible else self.mask.live(p, rows)
        if live is not None:
            scores = dead_last(scores, live)
        if self.plan.distribution == "nm":
            spared = pattern.spared(scores, *self.plan.pattern)
            scores = scores.masked_fill(spared & ~scores.isnan(), INF)  # what is not a number has to be seen
        return scores

    def stream(self, layers: list[int], stride: int = 1) -> Iterator[Tensor]:
        """Flat scores of these layers, chunk after chunk; of every stride-th row."""
        for i in layers:
            name, p = self.weights[i]
            for rows in chunks(p):
                yield self.live_scores(name, p, slice(rows.start, rows.stop, stride)).reshape(-1)

    def find(self, layers: list[int], k: int) -> tuple[list[int], Cut]:
        total = sum(self.sizes[i] for i in layers)
        return layers, find(lambda stride: self.stream(layers, stride), k, total, self.plan.group)

    def cuts(self, share: float) -> list[tuple[list[int], Cut]]:
        """One cut for all layers, or one a layer, as the distribution says; (layers, cut), in the layers' order."""
        k = target_count(share, self.total)
        name = self.plan.distribution
        shares = OWN.get(name) or DISTRIBUTIONS[name]
        everything = list(range(len(self.weights)))
        if shares is None:
            return [self.find(everything, k)] if not self.plan.floor else self.above_floor(k, self.caps)
        low = [0] * len(self.sizes) if self.reversible else self.known()
        counts = allocate(shares(self.shapes, share), self.sizes, k, low, self.caps)
        return [self.find([i], counts[i]) for i in everything]

    def above_floor(self, k: int, caps: list[int]) -> list[tuple[list[int], Cut]]:
        """One cut, but no layer gives up more than its cap: what it would is taken from the others, until all agree."""
        capped: set[int] = set()
        while True:
            free = [i for i in range(len(caps)) if i not in capped]
            layers, cut = self.find(free, k - sum(caps[i] for i in capped))
            over = {i for i, n in zip(free, self.tally(free, cut), strict=True) if n > caps[i]}
            if not over:
                rest = [self.find([i], caps[i]) for i in sorted(capped)]
                return [(layers, cut), *rest]
            capped |= over

    def tally(self, layers: list[int], cut: Cut) -> list[int]:
        """How many weights of each layer a cut takes."""
        counts = []
        for i, choose in zip(layers, self.appliers(layers, cut), strict=True):
            counts.append(sum(s.numel() - int(choose(s).sum(dtype=torch.float64)) for s in self.stream([i])))
        return self.plan.group.sum(torch.tensor(counts, dtype=torch.int64)).tolist()

    def appliers(self, layers: list[int], cut: Cut) -> list[Apply]:
        """What applies a cut to each layer: one thing, counting the ties that have gone by; or, with other processes
        in between, each with the ties that come before its part."""
        if type(self.plan.group) is Alone or not cut.kept:
            return [Apply(cut)] * len(layers)
        before = ties_before([self.stream([i]) for i in layers], cut, self.plan.group)
        return [Apply(cut, seen) for seen in before]

    def check(self, cuts: list[tuple[list[int], Cut]]) -> None:
        choosing = [cut for _, cut in cuts if cut.threshold is not None]
        if choosing and all(cut.blind for cut in choosing):
            raise ValueError(f"at step {self.optimizer.calls} every pruning score is 0, so there is nothing to go by")

    def apply(self, name: str, p: nn.Parameter, rows: slice, keep: Tensor) -> None:
        """Make the mask what `keep`, of 0 and 1, says; what goes becomes 0 in the weights and the optimizer's state."""
        self.mask.write(p, rows, keep)

    def counts(self) -> list[int]:
        """Pruned weights a layer."""
        found = []
        for _, p in self.weights:
            parts = (self.mask.pruned(p, rows) for rows in chunks(p))  # a list of them would be a whole mask
            found.append(sum(int(part.sum()) for part in parts if part is not None))
        return self.plan.group.sum(torch.tensor(found, dtype=torch.int64)).tolist()

    def known(self) -> list[int]:
        """The same, as the last event left it: nothing changes a mask in between."""
        return self.last or self.counts()

    def count(self) -> int:
        """How many weights are pruned."""
        return sum(self.counts())

    def record(self, share, cuts: list[Cut], counts: list[int], before: int, digest: str, audited=None) -> None:
        thresholds = [cut.threshold for cut in cuts if cut.threshold is not None]
        ties = sum(cut.ties for cut in cuts if cut.threshold is not None)
        layers = {n: c / s for (n, _), c, s in zip(self.weights, counts, self.sizes, strict=True)}
        least = max(layers, key=layers.get)
        warnings = [f"layer {n} is pruned entirely" for n, s in layers.items() if s == 1]
        if self.not_finite:
            warnings.append(f"{self.not_finite} of {self.total} weights were not finite")
        if ties > max(1, TIE_WARNING * self.total):
            warnings.append(f"{ties} of {self.total} weights have the threshold's score: position decided")
        event = {
            "event": "prune",
            "step": self.optimizer.calls,
            "target_sparsity": share,
            "pruned": sum(counts),
            "prunable": self.total,
            "newly_pruned": sum(counts) - before,
            "threshold": max(thresholds, default=None),
            "ties": ties,
            "layers": layers,
            "least_dense": {"layer": least, "density": 1 - layers[least]},
            "mask": digest,
            "warnings": warnings,
        }
        self.plan.record(event | self.details() | ({"audit": audited} if audited else {}))

    def state_dict(self) -> dict:
        return {**self.mask.state_dict(), "next_event": self.next_event}

    def load_state_dict(self, state: dict) -> None:
        self.mask.load_state_dict(state)
        self.last = []
        self.next_event = state["next_event"]
