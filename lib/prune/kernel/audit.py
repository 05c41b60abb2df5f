"""The audit of the scores: what each would prune from the same weights and the same optimizer state.

Scores come one after the other. What is kept of each is a bit a live weight and sparsity, and the ranks of at most
RANKED weights, so that every pair can be compared without holding all scores at once.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.prune.distribution import DISTRIBUTIONS, OWN, allocate, target_count
from lib.prune.importance import IMPORTANCE, Importance, State
from lib.prune.kernel.select import Apply, find

RANKED = 2_000_000  # weights that are ranked at most; with more, sums of products of ranks would leave int64 as well
TINY = torch.finfo(torch.float32).tiny
FLOOR = 2.0**-110  # what an optimizer may hold the v of a live weight at: no gradient was over 1e-15


@dataclass(frozen=True)
class Layer:
    """The live weights of one tensor in row-major order: one-dimensional float32 tensors of one length. `shape` is the
    tensor's own, `rms` the root mean square of w."""

    name: str
    shape: tuple[int, ...]
    w: Tensor
    m: Tensor
    v: Tensor
    rms: Tensor

    @property
    def live(self) -> int:
        return self.w.numel()

    @property
    def dead(self) -> int:
        return math.prod(self.shape) - self.live


@torch.no_grad()
def audit_state(
    weights: Iterable[tuple[str, Tensor, Tensor, Tensor]],
    step: int,
    beta1: float,
    sparsities: Sequence[float],
    names: Sequence[str] | None = None,
) -> dict:
    """Compare all scores on one state; the result is plain data, ready for JSON.

    weights: (name, w, exp_avg, exp_avg_sq) of every prunable tensor in the model's order, the three of one shape, all
        on one device; nothing is changed. Where w and exp_avg_sq are both 0 the weight is pruned already and left out.
    step, beta1: updates made so far, at least 1, and the decay of exp_avg; the same for all weights.
    sparsities: shares of the live weights, each above 0 and below 1. A score is asked for exactly round(share * live)
        weights, with ties as in lib/prune/kernel/select.py, over all layers together; one that brings a distribution of
        its own is asked for what its pruner would take at the event that leads there.
    names: which scores, in which order; None is all.

    scores: the names; every matrix has a row and a column for each, in this order
    step, beta1, weights, live, ranked: the state, and how many weights there are, are live, and were ranked
    v_zero: share of the live weights whose exp_avg_sq is at most FLOOR, for an optimizer may hold it there; v_lost: the
        same where neither w nor exp_avg is 0, so that it has underflowed
    lost: score -> share of the live weights whose score is 0 or denormal though w and the moments it reads are not 0
    spearman: rank correlation, ties with their average rank, over every weight or (beyond RANKED) every i-th; null
        where a score has one value everywhere
    at: for each sparsity {sparsity, pruned (a count), ties (score -> live weights with exactly the threshold's score),
        jaccard_pruned, jaccard_kept (1.0 exactly where the masks are the same)}

    Raises ValueError where nothing is live, every exp_avg_sq is 0, a score is not a number, or an argument is out of
    its bounds.
    """
    layers = [layer(*row) for row in weights]
    live = sum(x.live for x in layers)
    check(layers, live, step, sparsities)
    names = list(IMPORTANCE if names is None else names)
    counts = [target_count(share, live) for share in sparsities]
    judged = [judge(IMPORTANCE[name], layers, step, beta1, counts) for name in names]
    v_zero, v_lost = (sum(found) / live for found in zip(*map(without_v, layers), strict=True))
    return {
        "scores": names,
        "step": step,
        "beta1": beta1,
        "weights": live + sum(x.dead for x in layers),
        "live": live,
        "ranked": len(judged[0].ranks) if judged else 0,
        "v_zero": v_zero,
        "v_lost": v_lost,
        "lost": {name: x.lost / live for name, x in zip(names, judged, strict=True)},
        "spearman": spearman([x.ranks for x in judged]),
        "at": [
            {
                "sparsity": share,
                "pruned": k,
                "ties": {name: x.ties[i] for name, x in zip(names, judged, strict=True)},
                **overlap([x.bits[i] for x in judged], k, live),
            }
            for i, (share, k) in enumerate(zip(sparsities, counts, strict=True))
        ],
    }


@dataclass(frozen=True)
class Judged:
    """What is kept of a score: its ranks, how many it lost to underflow, and for each count of pruned weights the
    mask's bits and how many weights tie at the threshold."""

    ranks: Tensor
    lost: int
    bits: list[Tensor]
    ties: list[int]


def judge(importance: Importance, layers: list[Layer], step: int, beta1: float, counts: list[int]) -> Judged:
    scores = [score(importance, x, step, beta1) for x in layers]
    lost = sum(underflown(importance, s, x) for s, x in zip(scores, layers, strict=True))
    chosen = [select(importance, scores, layers, k) for k in counts]
    return Judged(ranks(thinned(scores)), lost, [bits for bits, _ in chosen], [ties for _, ties in chosen])


def layer(name: str, w: Tensor, m: Tensor, v: Tensor) -> Layer:
    if not w.shape == m.shape == v.shape:
        raise ValueError(f"{name}: w, exp_avg and exp_avg_sq are of shapes {[tuple(t.shape) for t in (w, m, v)]}")
    live = ((w != 0) | (v != 0)).reshape(-1)
    flat = [t.detach().reshape(-1).float() for t in (w, m, v)]
    found = flat if bool(live.all()) else [t[live] for t in flat]
    norm = torch.linalg.vector_norm(found[0], dtype=torch.float64)
    return Layer(name, tuple(w.shape), *found, (norm / math.sqrt(max(1, len(found[0])))).float())


def check(layers: list[Layer], live: int, step: int, sparsities: Sequence[float]) -> None:
    if step < 1:
        raise ValueError(f"step {step}: no update was made, so the moments say nothing")
    for share in sparsities:
        if not 0 < share < 1:
            raise ValueError(f"sparsity {share}: give a share above 0 and below 1")
    if not live:
        raise ValueError("no weight is live: each is 0 with exp_avg_sq 0")
    if not any(bool((x.v > FLOOR).any()) for x in layers):
        raise ValueError("exp_avg_sq is 0 for every live weight: the moments say nothing")


def score(importance: Importance, x: Layer, step: int, beta1: float) -> Tensor:
    """The score of a layer's live weights, float32. Raises ValueError where one is not a number."""
    found = importance.score(x.w, State(x.m, x.v, step, beta1, x.rms))
    if bool(found.isnan().any()):
        raise ValueError(f"{importance.name}: the score of a weight in {x.name} is not a number")
    return found


def underflown(importance: Importance, scores: Tensor, x: Layer) -> int:
    """Live weights whose score is 0 or denormal though w and every moment that is read are not 0."""
    small = (scores.abs() < TINY) & (x.w != 0)
    for name, moment in (("exp_avg", x.m), ("exp_avg_sq", x.v)):
        if name in importance.needs:
            small &= moment != 0
    return int(small.sum())


def without_v(x: Layer) -> tuple[int, int]:
    small = x.v <= FLOOR
    return int(small.sum()), int((small & (x.w != 0) & (x.m != 0)).sum())


def select(importance: Importance, scores: list[Tensor], layers: list[Layer], k: int) -> tuple[Tensor, int]:
    """The bits of the k lowest of the live weights, and how many tie at the threshold. A distribution sees whole
    layers and what they have pruned already, as at an event of the pruner."""
    name = importance.distribution or "global"
    distribution = OWN.get(name) or DISTRIBUTIONS[name]
    if distribution is None:
        pruned, ties = lowest(scores, k)
        return packed(pruned), ties
    shapes, dead = [x.shape for x in layers], [x.dead for x in layers]
    sizes = [math.prod(s) for s in shapes]
    total = k + sum(dead)
    counts = allocate(distribution(shapes, total / sum(sizes)), sizes, total, dead)
    each = [lowest([s], n - gone) for s, n, gone in zip(scores, counts, dead, strict=True)]
    return packed(torch.cat([pruned for pruned, _ in each])), sum(ties for _, ties in each)


def lowest(scores: list[Tensor], k: int) -> tuple[Tensor, int]:
    """True for the k lowest of all scores together, and how many tie at the threshold."""
    cut = find(lambda stride: (s[::stride] for s in scores), k, sum(s.numel() for s in scores))
    keep = Apply(cut)
    return torch.cat([keep(s) == 0 for s in scores]), cut.ties


def packed(mask: Tensor) -> Tensor:
    """A bool vector as bits, eight to a byte."""
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).view(-1, 8)
    out = torch.zeros(len(padded), dtype=torch.uint8, device=mask.device)
    for i in range(8):
        out |= padded[:, i] << i
    return out


def in_common(a: Tensor, b: Tensor) -> int:
    """How many bits are set in both."""
    x = a & b
    x = x - ((x >> 1) & 0x55)
    x = (x & 0x33) + ((x >> 2) & 0x33)
    return int(((x + (x >> 4)) & 0x0F).sum())


def overlap(bits: list[Tensor], k: int, live: int) -> dict:
    """Jaccard's index of every two sets of k pruned weights, and of the sets that are kept; two empty sets have 1."""
    both = symmetric(bits, in_common)
    return {
        "jaccard_pruned": [[i / (2 * k - i) if k else 1.0 for i in row] for row in both],
        "jaccard_kept": [[(live - 2 * k + i) / (live - i) if k < live else 1.0 for i in row] for row in both],
    }


def thinned(scores: list[Tensor]) -> Tensor:
    """All scores as one vector, or every i-th of them so that at most RANKED are left."""
    return torch.cat(list(every(-(-sum(map(len, scores)) // RANKED), scores)))


def every(stride: int, tensors: list[Tensor]) -> Iterator[Tensor]:
    """Every stride-th entry of the vectors as if they were one."""
    start = 0
    for t in tensors:
        yield t[start::stride]
        start = (start - len(t)) % stride


def ranks(values: Tensor) -> Tensor:
    """Twice the rank of every entry, with the average rank for ties, less twice the mean rank: whole numbers (int32),
    so that sums of their products are exact."""
    in_order, order = values.sort()
    _, counts = in_order.unique_consecutive(return_counts=True)
    last = counts.cumsum(0)
    twice = (2 * last - counts - len(values)).repeat_interleave(counts)
    return torch.empty_like(twice, dtype=torch.int32).scatter_(0, order, twice.int())


def spearman(ranked: list[Tensor]) -> list[list[float | None]]:
    """The correlations of vectors of centred ranks, 1.0 exactly where two are the same."""
    dots = symmetric(ranked, lambda a, b: int((a.long() * b.long()).sum()))
    squares = [row[i] for i, row in enumerate(dots)]

    def correlation(ab: int, aa: int, bb: int) -> float | None:
        if not aa or not bb:
            return None
        return ab / (aa if aa == bb else math.sqrt(aa * bb))

    return [
        [correlation(ab, aa, bb) for ab, bb in zip(row, squares, strict=True)]
        for row, aa in zip(dots, squares, strict=True)
    ]


def symmetric(items: list[Tensor], measure) -> list[list]:
    """measure(a, b) for every two items, computed once for each pair."""
    found = [[measure(a, b) for b in items[: i + 1]] for i, a in enumerate(items)]
    return [[found[max(i, j)][min(i, j)] for j in range(len(items))] for i in range(len(items))]


def audit_event(pruner, share: float) -> dict | None:
    """The audit of a pruner's weights right before an event that asks for `share`; None where nothing new is asked."""
    optimizer, dead = pruner.optimizer, pruner.count()
    group = optimizer.param_groups[0]
    of_live = (round(share * pruner.total) - dead) / max(1, pruner.total - dead)
    if not 0 < of_live < 1:
        return None
    states = [optimizer.state.get(p, {}) for _, p in pruner.weights]
    if any(n not in s for s in states for n in ("exp_avg", "exp_avg_sq")):
        return {"error": "the optimizer does not keep exp_avg and exp_avg_sq, which the scores read"}
    moments = [(s["exp_avg"], s["exp_avg_sq"]) for s in states]
    weights = [(n, p.detach().float(), *s) for (n, p), s in zip(pruner.weights, moments, strict=True)]
    try:
        return audit_state(weights, group["step"], group["beta1"], [of_live])
    except ValueError as e:  # right after a momentum reset there is nothing to go by
        return {"error": str(e)}
