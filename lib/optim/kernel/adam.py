"""The Adam family: one class and one update serve adam, adamw, adamwadv, adamwspam and adamwprune on each of them.

The update has two forms of the same formula. `eager` masks the gradients and calls torch's own fused kernel, so it
needs no compiler and, without a mask, is torch.optim.AdamW(fused=True) to the last bit. The compiled one
(kernel/onepass.py) does mask, clip, SPAM and update in one reading of memory.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.optim.kernel.base import Base
from lib.optim.kernel.flat import alike, pieces
from lib.optim.kernel.spam import SEED, TINY, Spam, clip_spikes

LIFT = 64  # updates after which no v above SEED has come down to a denormal number, for beta2 >= MIN_SAFE_BETA2
MIN_SAFE_BETA2 = 0.85  # below it a v may become denormal between lifts, and then 0: by a beta2 near 1/2, or flushed


@dataclass(frozen=True)
class Numbers:
    """What one step needs to know besides its tensors.

    spike_theta: SPAM's clip, against the second moment before this step; None is none.
    scale: factor on the Adam part of the step alone, not on decoupled decay.
    """

    step: int
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool
    spike_theta: float | None = None
    scale: float = 1.0


@dataclass
class Row:
    """The tensors of one parameter. `top` is AMSGrad's maximum or None; `held` says that its own state is its mask:
    pruned where w = v = 0; `step` counts its own updates."""

    w: Tensor
    g: Tensor
    m: Tensor
    v: Tensor
    top: Tensor | None
    held: bool
    step: int


def eager(rows: list[Row], n: Numbers, clip: Tensor | None, floor: bool = False) -> None:
    """One step of Adam(W), in place, for gradients that are masked already.

    A weight that is 0 with both moments 0 and gradient 0 stays 0 with both moments 0, for eps > 0: decay multiplies it,
    and 0 / (0 + eps) = 0. A live weight's v stays above 0: for beta2 >= MIN_SAFE_BETA2 by
    `lift`; below that, or where `floor` asks for it, it is held at the smallest normal number, which no root that eps
    is added to can show.
    """
    if clip is not None:
        torch._foreach_mul_([r.g for r in rows], clip)
    if n.spike_theta is not None:
        clip_spikes([r.g for r in rows], [r.v for r in rows], n.spike_theta, [r.held for r in rows])
    floor = floor or n.beta2 < MIN_SAFE_BETA2
    floors = [(r.v, r.v.clamp(max=TINY)) for r in rows if r.held] if floor else []
    easy, others = {}, []
    for r in rows:
        fits = r.w.dtype == r.g.dtype == r.m.dtype and alike(r.w, r.g, r.m, r.v)
        (easy.setdefault(r.m.dtype, []) if fits else others).append(r)
    for same in easy.values():
        fused(*map(list, zip(*((r.w, r.g, r.m, r.v, r.top, r.step) for r in same), strict=True)), n)
    for r in others:
        by_copy(r, n)
    for v, low in floors:
        torch.maximum(v, low, out=v)


def lift(vs: list[Tensor]) -> None:
    """The v of a live weight without gradients is brought back to SEED before it is a denormal number: a CPU takes 15
    to 20 times as long over those, and may be set to take them for 0."""
    for v in vs:
        for (x,) in pieces(v):
            torch.maximum(x, x.sign().mul_(SEED), out=x)


def by_copy(r: Row, n: Numbers) -> None:
    """The fused kernel wants the moments' type and one layout; what is otherwise goes through a copy."""
    old = [r.w, r.g, r.m, r.v, r.top]
    new = [t if t is None else t.to(r.m.dtype).contiguous() for t in old]
    fused(*([t] for t in new), [r.step], n)
    for i in (0, 2, 3, 4):
        if new[i] is not old[i]:
            old[i].copy_(new[i])


def fused(ws, gs, ms, vs, tops, steps: list[int], n: Numbers) -> None:
    """torch's own kernel: AdamW (Loshchilov and Hutter 2017, algorithm 2), or Adam with an L2 penalty."""
    kernel = torch._fused_adamw_ if n.decoupled else torch._fused_adam_
    amsgrad = tops[0] is not None
    counts = {s: torch.full((), s, dtype=torch.float32, device=ws[0].device) for s in set(steps)}
    kernel(
        ws,
        gs,
        ms,
        vs,
        tops if amsgrad else [],
        [counts[s] for s in steps],
        lr=n.lr * n.scale,
        beta1=n.beta1,
        beta2=n.beta2,
        weight_decay=n.weight_decay / n.scale if n.decoupled else n.weight_decay,
        eps=n.eps,
        amsgrad=amsgrad,
        maximize=False,
    )


class Adam(Base):
    """State per parameter: exp_avg, exp_avg_sq and, with AMSGrad, max_exp_avg_sq; float32 whatever the weights are, but
    float64 for those of float64. `missed` counts the updates that a parameter had no gradient for, where there are any:
    bias corrections are of its own updates, as torch's are; SPAM's phases are the optimizer's.

    `hold(p)` makes the state of p its own mask: from then on its weights with w = v = 0 are pruned and stay so, and the
    v of every other is above 0.
    """

    holds_masks = True
    least = SEED  # of the v of a live weight, where an event makes the state a mask

    def __init__(
        self, groups, hyper, eps: float, decoupled=True, amsgrad=False, spam: Spam | None = None, compiled=False
    ):
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
        self.spam, self.onepass = spam, None
        if compiled:
            from lib.optim.kernel.onepass import OnePass

            self.onepass = OnePass(self)

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        names = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self.defaults["amsgrad"]
        for p in self.param_groups[-1]["params"]:
            dtype = torch.float64 if p.dtype == torch.float64 else torch.float32  # a bf16 v never decays
            self.state[p] = {n: torch.zeros_like(p, dtype=dtype) for n in names}

    def hold(self, p: Tensor) -> None:
        """Let the state of `p` be its mask from now on. What is pruned has to be 0, in w and in the state, already."""
        state = self.state[p]
        state["held"] = True
        for w, v in pieces(p, state["exp_avg_sq"]):
            gone = (w == 0) & (v == 0)
            v.copy_(v.clamp(min=SEED).masked_fill_(gone, 0))

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        if self.onepass:  # it wants what holds a mask to be 0 or normal, and an eager update may have left less
            for p in filter(self.held, self.state):
                for (v,) in pieces(self.state[p]["exp_avg_sq"]):  # alone: the weights may be loaded later
                    v.copy_(v.clamp(min=TINY).mul_(v.sign()))

    def held(self, p):
        return self.state[p].get("held", False)

    def pruned(self, p: Tensor, rows: slice = slice(None)) -> Tensor:
        """Bool, of the shape of `p[rows]`: True where the weight is pruned, by the state alone."""
        w, v = p.detach()[rows], self.state[p]["exp_avg_sq"][rows]
        return (w == 0) & (v == 0) if self.held(p) else torch.zeros_like(w, dtype=torch.bool)

    def revived(self, p):
        if not self.held(p):
            return super().revived(p)
        return sum(int(((w != 0) & (v == 0)).sum()) for w, v in pieces(p, self.state[p]["exp_avg_sq"]))

    def row(self, p: Tensor, step: int) -> Row:
        s = self.state[p]
        tensors = p.detach(), p.grad, s["exp_avg"], s["exp_avg_sq"], s.get("max_exp_avg_sq")
        return Row(*tensors, s.get("held", False), step - s.get("missed", 0))

    def masked_beforehand(self, params):
        return self.onepass.left(params) if self.onepass else params

    def mask_gradients(self, params):
        super().mask_gradients(params)
        for p in params:
            if self.held(p):
                for g, v in pieces(p.grad, self.state[p]["exp_avg_sq"]):
                    g.mul_(v.sign())

    def norms(self, params, dense=False):
        if not self.onepass:
            return super().norms(params, dense)
        return self.onepass.norms(params, dense) + super().norms(self.onepass.left(params), dense)

    def begin(self):
        """Count parameters without a gradient; SPAM's reset: a live weight whose v is its mask gets SEED, not 0."""
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is None):
            self.state[p]["missed"] = self.state[p].get("missed", 0) + 1
        if self.spam and self.spam.resets(self.updates):
            for state in self.state.values():
                for name, value in state.items():
                    if name == "exp_avg_sq" and state.get("held"):
                        value.clamp_(max=SEED)
                    elif torch.is_tensor(value):
                        value.zero_()

    def end(self):
        if self.updates % LIFT == 0:  # of all, for what has a gradient now and then may never have one just here
            by_eager = (p for p in self.state if not (self.onepass and self.onepass.view(p).usable))
            lift([self.state[p]["exp_avg_sq"] for p in by_eager if self.held(p)])

    def update(self, group, params, clip):
        n = self.numbers(group)
        if self.onepass:
            params = self.onepass.update(params, n, clip)
        if params:
            eager([self.row(p, n.step) for p in params], n, clip, floor=self.onepass is not None)

    def numbers(self, group: dict) -> Numbers:
        spam, given = self.spam, {k: group[k] for k in ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled")}
        if spam:
            theta = spam.theta if spam.clips(self.updates) else None
            given |= {"spike_theta": theta, "scale": spam.scale(self.updates)}
        return Numbers(group["step"], **given)

    def updates_of(self, p, group):
        return group["step"] - self.state[p].get("missed", 0)


def folded(n: Numbers) -> tuple[float, float, float]:
    """(decay, rate, eps) such that w <- w * decay - rate * m / (sqrt(v) + eps) is the step: bias corrections, learning
    rate and SPAM's scale folded into three numbers."""
    root = math.sqrt(1 - n.beta2**n.step)
    decay = 1 - n.lr * n.weight_decay if n.decoupled else 1.0
    return decay, n.lr * n.scale * root / (1 - n.beta1**n.step), n.eps * root
