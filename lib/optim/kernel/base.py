"""What every optimizer here does in `step()`, in this order: finite check, hooks on the dense gradients, pruned
gradients to 0, norm, clip, update, hooks on the updated weights. The training loop calls `step()` and nothing else."""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from lib.optim.kernel.flat import pieces


class Base(torch.optim.Optimizer):
    """A torch optimizer with masks and a gradient-norm clip.

    masks: parameter -> bool tensor of its shape, True where the weight is kept; a pruner fills it.
    holds_masks: whether the optimizer can tell a pruned weight by its own state, so that no such tensor is needed.
    on_gradients: called with no argument when the gradients are known to be finite and are still dense.
    on_updated: called with no argument after the weights have moved.
    group: None; or, where several processes each hold a part of every tensor, what adds up a tensor over them: then
    norm, clip and finite check are those of the whole.
    Counters, in every parameter group and so in state_dict: `step` (updates made), `calls` (of step()), `skipped`
    (calls whose gradients were not finite: nothing changed), `skipped_in_a_row`.

    The gradients' norm is also the check that they are finite, so both cost one reading. A gradient that is not finite
    counts even where the weight is pruned. On a GPU the check is the one device sync of a step.
    """

    holds_masks = False
    group = None

    def __init__(self, groups: list[dict], defaults: dict, clip_norm: float = 0.0):
        counters = {"step": 0, "calls": 0, "skipped": 0, "skipped_in_a_row": 0}
        super().__init__(groups, {**defaults, **counters, "clip_norm": clip_norm})
        self.masks: dict[Tensor, Tensor] = {}
        self.versions: list[int] | None = None  # of all weights after the last step, to see who wrote to them since
        self.on_gradients: list[Callable[[], None]] = []
        self.on_updated: list[Callable[[], None]] = []

    def __getstate__(self):
        """torch's leaves out what a subclass adds, so that a deep copy would lose masks and hooks."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    @property
    def calls(self) -> int:
        return self.param_groups[0]["calls"]

    @property
    def updates(self) -> int:
        return self.param_groups[0]["step"]

    @property
    def skipped(self) -> int:
        return self.param_groups[0]["skipped"]

    @property
    def skipped_in_a_row(self) -> int:
        return self.param_groups[0]["skipped_in_a_row"]

    # torch's own import its compiler at their first call, to keep it out: over a second that most runs do not need.
    zero_grad, state_dict = (
        inspect.unwrap(getattr(torch.optim.Optimizer, name)) for name in ("zero_grad", "state_dict")
    )

    def add_param_group(self, param_group: dict) -> None:
        """As torch's. Raises ValueError for weights that are not real floating-point numbers."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                raise ValueError(f"a parameter of {p.dtype}: these optimizers take real floating-point numbers only")

    def update(self, group: dict, params: list[Tensor], clip: Tensor | None) -> None:
        """Move `params` along their gradients times `clip`, a 0-dim tensor (None: 1); group["step"] already counts this
        update."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called once a step, before the groups are updated."""

    def end(self) -> None:
        """Called once a step, after the groups were updated."""

    def clear(self, p: Tensor, rows: slice, keep: Tensor) -> None:
        """Set `p[rows]` and what the optimizer remembers of it to 0 where `keep`, of 0 and 1, is 0."""
        for value in (p.detach(), *self.state.get(p, {}).values()):
            if torch.is_tensor(value) and value.shape == p.shape:
                zero_dropped(value[rows], keep)

    def updates_of(self, p: Tensor, group: dict) -> int:
        """Updates that `p` of this parameter group has had."""
        return group["step"]

    def held(self, p: Tensor) -> bool:
        """Whether the state of `p` is its mask."""
        return False

    def revived(self, p: Tensor) -> int:
        """How many weights of `p` are pruned by its mask, and not 0."""
        return int((p.detach().masked_fill(self.masks[p], 0) != 0).sum()) if p in self.masks else 0

    def read_versions(self) -> list[int]:
        """How often each parameter was written to, in the groups' order: a counter that torch keeps."""
        return [p._version for group in self.param_groups for p in group["params"]]

    def check_masked(self) -> None:
        """Raise ValueError where pruned weights are not 0, for weights or a mask were loaded since the last step."""
        if self.versions is None or self.versions == (now := self.read_versions()):
            return
        params = (p for group in self.param_groups for p in group["params"])
        for p, before, after in zip(params, self.versions, now, strict=False):  # a group may have joined
            if before != after and (count := self.revived(p)):
                raise ValueError(
                    f"{count} pruned weights of a tensor of shape {tuple(p.shape)} are not 0: dense weights were "
                    f"loaded over pruned ones. Load the optimizer's and the pruner's state with them, or make both anew"
                )

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch's, but what is remembered keeps its dtype: torch casts it to the weight's, and a bf16 second moment
        never decays."""
        inspect.unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        params = [p for group in self.param_groups for p in group["params"]]
        self.versions = [-1] * len(params)
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
        params = [p for _, ps in held for p in ps]
        norm, reads_dense, overflow = None, bool(self.on_gradients), False
        self.check_masked()
        if reads_dense:
            good, overflow = self._look(params, self._whole(self.norms(params, dense=True)))
            if not self._count(good):
                return loss
            for hook in self.on_gradients:
                hook()
        self.mask_gradients(self.masked_beforehand(params))
        if params and (self.param_groups[0]["clip_norm"] or not reads_dense):
            norm = self._whole(self.norms(params))
        if not reads_dense:
            good, overflow = self._look(params, norm)
            if not self._count(good):
                return loss
        clip = self._clip(params, norm, overflow)
        self.begin()
        for group, ps in held:
            if ps:
                self.update(group, ps, clip)
        self.end()
        for hook in self.on_updated:
            hook()
        self.versions = self.read_versions()
        return loss

    def masked_beforehand(self, params: list[Tensor]) -> list[Tensor]:
        """Those of `params` whose gradients `step` masks; a subclass may leave the others' to `norms` and `update`."""
        return params

    def mask_gradients(self, params: list[Tensor]) -> None:
        """Set the gradients of pruned weights to 0."""
        for p in params:
            if p in self.masks:
                p.grad.mul_(self.masks[p])

    def norms(self, params: list[Tensor], dense: bool = False) -> list[Tensor]:
        """Euclidean norms of the gradients, 0-dim, one a parameter; of live weights only unless `dense`."""
        # By pieces: torch adds up in float32, and a tensor of 40M elements comes out 0.2% short.
        parts = [[x for (x,) in pieces(p.grad)] for p in params]
        dtype = torch.float64 if any(p.dtype == torch.float64 for p in params) else torch.float32
        each = iter(torch._foreach_norm([x for part in parts for x in part], dtype=dtype) if params else [])
        return [total([next(each) for _ in part]) for part in parts]

    def _count(self, good: bool) -> bool:
        for g in self.param_groups:
            g["calls"] += 1
            g["step"] += good
            g["skipped"] += not good
            g["skipped_in_a_row"] = 0 if good else g["skipped_in_a_row"] + 1
        return good

    def _whole(self, norms: list[Tensor]) -> Tensor:
        """One norm out of those of all parameters, and of all processes that hold parts of them."""
        norm = total(norms)
        return norm if self.group is None else self.group.sum(norm.double().square()).sqrt()

    def _look(self, params: list[Tensor], norm: Tensor | None) -> tuple[bool, bool]:
        """(whether all gradients are finite, whether their norm is not though they are), given the norm."""
        if norm is None or norm.isfinite():
            return True, False
        good = finite(params)
        if self.group is not None:
            good = int(self.group.sum(torch.tensor(int(not good)))) == 0
        return good, good

    def _clip(self, params: list[Tensor], norm: Tensor | None, overflow: bool) -> Tensor | None:
        """The factor on all gradients that brings their global norm to at most clip_norm, as in torch's
        clip_grad_norm_."""
        most = self.param_groups[0]["clip_norm"]
        if not most or norm is None:
            return None
        if overflow:
            self.mask_gradients(params)
            norm = self._whole([p.grad.double().norm() for p in params])
        return (most / (norm + 1e-6)).clamp(max=1.0).float()


def zero_dropped(t: Tensor, keep: Tensor) -> None:
    """Set `t` to 0 where `keep`, of 0 and 1, is 0, in place."""
    if t.sum().isfinite():
        t.mul_(keep).add_(0.0)  # or what is negative would be -0; masked_fill_ takes ten times as long
    else:  # inf times 0 is nan
        t.masked_fill_(keep == 0, 0.0)


def total(norms: list[Tensor]) -> Tensor:
    if len(norms) == 1:
        return norms[0]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def finite(params: list[Tensor]) -> bool:
    """Whether all gradients are finite: for those whose norm is not, which can err by overflow."""
    largest = torch._foreach_norm([p.grad for p in params if p.grad.numel()], float("inf"))
    return bool(torch.stack([n.isfinite() for n in largest]).all())
