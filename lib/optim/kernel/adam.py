"""The Adam family. One update function serves adam, adamw, adamwadv, adamwspam and adamwprune on each of them."""

import math

import torch
from torch import Tensor

from lib.optim.kernel.base import Base
from lib.optim.kernel.spam import Spam, clip_spikes


def adam_update(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    spike_theta: float | None = None,
    adam_scale: float = 1.0,
) -> None:
    """One step of Adam(W) on lists of tensors, in place, in the order of operations of torch.optim.AdamW.

    A weight that is 0 with both moments 0 and gradient 0 stays 0 with both moments 0, for eps > 0: decay multiplies
    it, and 0 / (0 + eps) = 0. Masking the gradient is therefore all that pruning asks of the update.
    max_exp_avg_sqs is empty without AMSGrad. spike_theta: SPAM's clip, against the second moment before this step.
    adam_scale: factor on the Adam part of the step alone, not on decoupled decay.
    """
    if spike_theta is not None:
        grads = clip_spikes(grads, exp_avg_sqs, spike_theta)
    if weight_decay and decoupled:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    elif weight_decay:
        grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
    if max_exp_avg_sqs:
        torch._foreach_maximum_(max_exp_avg_sqs, exp_avg_sqs)
    denominators = torch._foreach_sqrt(max_exp_avg_sqs or exp_avg_sqs)
    torch._foreach_div_(denominators, math.sqrt(1 - beta2**step))
    torch._foreach_add_(denominators, eps)
    torch._foreach_addcdiv_(params, exp_avgs, denominators, -lr / (1 - beta1**step) * adam_scale)


class Adam(Base):
    """State per parameter: exp_avg, exp_avg_sq and, with AMSGrad, max_exp_avg_sq; float32 whatever the weights are."""

    def __init__(self, groups, hyper, eps: float, decoupled=True, amsgrad=False, spam: Spam | None = None):
        defaults = {
            "lr": hyper.lr,
            "beta1": hyper.beta1,
            "beta2": hyper.beta2,
            "eps": eps,
            "weight_decay": hyper.weight_decay,
            "decoupled": decoupled,
            "amsgrad": amsgrad,
        }
        super().__init__(groups, defaults, hyper.clip_norm)
        self.spam = spam
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * amsgrad
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {n: torch.zeros_like(p, dtype=torch.float32) for n in names}

    def begin(self):
        if self.spam and self.spam.resets(self.param_groups[0]["step"]):
            for state in self.state.values():
                torch._foreach_zero_(list(state.values()))

    def update(self, group, params, grads):
        spam, step = self.spam, group["step"]
        grads = [g.float() for g in grads]  # the moments' dtype; the same tensor where it is float32 already
        states = [self.state[p] for p in params]
        adam_update(
            params,
            grads,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [s["max_exp_avg_sq"] for s in states] if group["amsgrad"] else [],
            step=step,
            lr=group["lr"],
            beta1=group["beta1"],
            beta2=group["beta2"],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            decoupled=group["decoupled"],
            spike_theta=spam.theta if spam and spam.clips(step) else None,
            adam_scale=spam.scale(step) if spam else 1.0,
        )
