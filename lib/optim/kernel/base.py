"""What every optimizer here does in `step()`, in this order: finite check, hooks on the dense gradients, pruned
gradients to 0, norm, clip, update, hooks on the updated weights. The training loop calls `step()` and nothing else."""

from collections.abc import Callable

import torch
from torch import Tensor


class Base(torch.optim.Optimizer):
    """A torch optimizer with masks and a gradient-norm clip.

    masks: parameter -> bool tensor of its shape, True where the weight is kept; a pruner fills it.
    on_gradients: called with no argument when the gradients are known to be finite and are still dense.
    on_updated: called with no argument after the weights have moved.
    Counters, in every parameter group and so in state_dict: `step` (updates made), `calls` (of step()), `skipped`
    (calls whose gradients were not finite: nothing changed), `skipped_in_a_row`.
    """

    def __init__(self, groups: list[dict], defaults: dict, clip_norm: float = 0.0):
        counters = {"step": 0, "calls": 0, "skipped": 0, "skipped_in_a_row": 0}
        super().__init__(groups, {**defaults, **counters, "clip_norm": clip_norm})
        self.masks: dict[Tensor, Tensor] = {}
        self.on_gradients: list[Callable[[], None]] = []
        self.on_updated: list[Callable[[], None]] = []

    @property
    def calls(self) -> int:
        return self.param_groups[0]["calls"]

    @property
    def skipped(self) -> int:
        return self.param_groups[0]["skipped"]

    @property
    def skipped_in_a_row(self) -> int:
        return self.param_groups[0]["skipped_in_a_row"]

    def update(self, group: dict, params: list[Tensor], grads: list[Tensor]) -> None:
        """Move `params` along `grads`; group["step"] already counts this update."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called once a step, before the groups are updated."""

    def clear(self, p: Tensor, where: Tensor) -> None:
        """Set what the optimizer remembers of `p` to 0 where `where` is True."""
        for value in self.state.get(p, {}).values():
            if torch.is_tensor(value) and value.shape == p.shape:
                value.masked_fill_(where, 0)

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, but what is remembered keeps its dtype: torch casts it to the weight's, and a bf16 second moment
        never decays."""
        super().load_state_dict(state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        for i, saved in state_dict["state"].items():
            here = params[i].device
            self.state[params[i]] = {k: v.to(here, copy=True) if torch.is_tensor(v) else v for k, v in saved.items()}

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        held = [(g, [p for p in g["params"] if p.grad is not None]) for g in self.param_groups]
        grads = [p.grad for _, params in held for p in params]
        finite = not grads or bool(torch.stack(torch._foreach_norm(grads, float("inf"))).isfinite().all())
        self._count(finite)
        if not finite:
            return loss
        for hook in self.on_gradients:
            hook()
        for p, keep in self.masks.items():
            if p.grad is not None:
                p.grad.mul_(keep)
        self._clip(grads)
        self.begin()
        for group, params in held:
            if params:
                self.update(group, params, [p.grad for p in params])
        for hook in self.on_updated:
            hook()
        return loss

    def _count(self, finite: bool) -> None:
        for g in self.param_groups:
            g["calls"] += 1
            g["step"] += finite
            g["skipped"] += not finite
            g["skipped_in_a_row"] = 0 if finite else g["skipped_in_a_row"] + 1

    def _clip(self, grads: list[Tensor]) -> None:
        """Scale all gradients so that their global norm is at most clip_norm, as torch's clip_grad_norm_ does."""
        clip = self.param_groups[0]["clip_norm"]
        if clip and grads:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            torch._foreach_mul_(grads, (clip / (norm + 1e-6)).clamp(max=1.0))
