"""SGD with momentum, weight decay as an L2 penalty, optional Nesterov (torch.optim.SGD's formula)."""

import torch

from lib.optim.kernel.base import Base


class SGD(Base):
    def __init__(self, groups, lr: float, momentum: float = 0.9, nesterov: bool = False, clip_norm: float = 0.0):
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0}
        super().__init__(groups, defaults, clip_norm)

    def update(self, group, params, clip):
        grads = [p.grad for p in params]
        if clip is not None:
            torch._foreach_mul_(grads, clip)
        momentum = group["momentum"]
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if momentum:
            fresh = [p for p in params if "momentum_buffer" not in self.state[p]]
            for p in fresh:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, momentum)
            torch._foreach_add_(buffers, grads)
            grads = list(torch._foreach_add(grads, buffers, alpha=momentum)) if group["nesterov"] else buffers
        torch._foreach_add_(params, grads, alpha=-group["lr"])
