"""SPAM: Spike-Aware Adam with Momentum Reset (Huang et al. 2025, arXiv 2501.06842, algorithm 1)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.optim.kernel.flat import pieces

TINY = torch.finfo(torch.float32).tiny  # the smallest normal number
SEED = 2.0**-110  # what a v of 0 becomes where 0 means pruned: no eps shows its root, and it decays long before TINY


@dataclass(frozen=True)
class Spam:
    """When SPAM does what, as a function of the step alone (1, 2, ...), so that nothing can compound."""

    theta: float = 5000.0
    delta_t: int = 500
    warmup: int = 150
    grace: int = 20

    def since_reset(self, step: int) -> int | None:
        """Steps since the last reset (0 on a reset step), or None before the first."""
        return step % self.delta_t if self.delta_t and step >= self.delta_t else None

    def resets(self, step: int) -> bool:
        return self.since_reset(step) == 0

    def clips(self, step: int) -> bool:
        since = self.since_reset(step)
        return (step if since is None else since) >= self.grace

    def scale(self, step: int) -> float:
        """Half a cosine that starts at 0.01 on the reset step, cut to 1 `warmup` steps later.

        As the authors' code has it: torch's CosineAnnealingLR over warmup + 1 steps, of which the last is left out.
        """
        since = self.since_reset(step)
        if since is None or since >= self.warmup:
            return 1.0
        return 1 - 0.99 * (1 + math.cos(math.pi * since / (self.warmup + 1))) / 2


def clip_spikes(grads: list[Tensor], exp_avg_sqs: list[Tensor], theta: float, held: list[bool]) -> None:
    """g where g^2 > theta * v and v > 0 becomes sign(g) * sqrt(theta * v), in place, without a device sync.

    held: whether the tensor's v is its mask; then SEED stands for 0.
    """
    for g, v, is_mask in zip(grads, exp_avg_sqs, held, strict=True):
        least = SEED if is_mask else 0.0
        for a, b in pieces(g, v):
            limit = (b * theta).sqrt_().masked_fill_(b <= least, float("inf")).to(a.dtype)
            torch.minimum(a, limit, out=a)
            torch.maximum(a, limit.neg_(), out=a)
