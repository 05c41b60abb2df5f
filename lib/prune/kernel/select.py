"""Exact selection: which weights have the lowest scores.

Among equal scores the one that comes first, by (layer, logical row-major index), is kept, so that every device and
memory format prunes the same weights.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """pruned: one bool tensor a layer, True where the weight goes. threshold: the highest score that goes, None if
    nothing goes. ties: how many live weights have exactly that score."""

    pruned: list[Tensor]
    threshold: float | None
    ties: int


def lowest(scores: list[Tensor], k: int) -> Selection:
    """The `k` lowest of all `scores` together. Raises ValueError on NaN."""
    shapes = [s.shape for s in scores]
    flat = torch.cat([s.reshape(-1) for s in scores]) if scores else torch.empty(0)
    if flat.isnan().any():
        raise ValueError("a pruning score is not a number")
    pruned = torch.zeros_like(flat, dtype=torch.bool)
    threshold, ties = None, 0
    if k > 0:
        kth = flat.kthvalue(k).values
        torch.lt(flat, kth, out=pruned)
        equal = (flat == kth).nonzero().squeeze(1)
        pruned[equal[len(equal) - (k - int(pruned.sum())) :]] = True
        if kth.isfinite():
            threshold, ties = kth.item(), len(equal)
    parts = pruned.split([s.numel() for s in shapes]) if scores else []
    return Selection([p.view(s) for p, s in zip(parts, shapes, strict=True)], threshold, ties)


def lowest_per_layer(scores: list[Tensor], counts: list[int]) -> Selection:
    """The `counts[i]` lowest of each layer; the threshold is the highest of theirs."""
    each = [lowest([s], k) for s, k in zip(scores, counts, strict=True)]
    found = [e.threshold for e in each if e.threshold is not None]
    return Selection([e.pruned[0] for e in each], max(found, default=None), sum(e.ties for e in each))
