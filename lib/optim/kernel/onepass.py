"""The Adam family's update as one compiled reading of memory, and the masked norm as another.

Each large tensor is one call of a kernel compiled for any length (torch.compile, so C++ on a CPU and Triton on a GPU).
What changes from step to step goes in as three 0-dim tensors, folded beforehand: as Python numbers they would be
compiled anew, as more tensors they would be loaded in the loop. Small tensors are left to the eager form, which is as
fast there.
"""

import math
import os
import shutil
import types
from dataclasses import dataclass
from functools import cache
from itertools import count

import torch
from torch import Tensor

from lib.config import InputError
from lib.optim.kernel.adam import Numbers, folded
from lib.optim.kernel.flat import alike, flat
from lib.optim.kernel.spam import TINY

ROW = 1024
SMALL = 16384  # elements: below it the call costs more than the memory
HUGE = 1 / TINY  # v * HUGE >= 1 for every normal v, and what holds its mask is normal or 0: min(1, .) is the mask
names = count()
OFF = torch.finfo(torch.float32).max  # a spike limit that no gradient meets


@dataclass(frozen=True)
class Rule:
    """What a kernel is compiled for. mask: "none", "state" (pruned where v = 0) or "stored"."""

    beta1: float = 0.9
    beta2: float = 0.999
    l2: float = 0.0
    amsgrad: bool = False
    mask: str = "none"
    spikes: bool = False
    clip: bool = False


@dataclass
class Views:
    """Flat views of what stays from step to step of one parameter, and what they were made from."""

    state: dict
    keep: Tensor | None
    held: bool
    address: int
    mask: str
    tensors: tuple[Tensor | None, ...]  # w, m, v, top, keep
    usable: bool


class OnePass:
    """Kernels for the parameters of one Adam. Raises InputError where nothing can be compiled."""

    def __init__(self, optimizer):
        self.optimizer, self.views = optimizer, {}
        try:
            squares_kernel("none")
        except Exception as e:
            found = shutil.which(os.environ.get("CXX", "g++")) or "none"
            raise InputError(
                f"UPDATE_COMPILED is set, and torch.compile fails here (C++ compiler: {found}; {type(e).__name__}): "
                f"install a compiler or choose UPDATE_EAGER"
            ) from e

    def __getstate__(self):
        return {"optimizer": self.optimizer, "views": {}}

    def view(self, p: Tensor) -> Views:
        """The views of `p`, made anew when its state, its storage or its mask is another."""
        state, keep, address = self.optimizer.state[p], self.optimizer.masks.get(p), p.data_ptr()
        held, old = state.get("held", False), self.views.get(p)
        if old and old.state is state and old.keep is keep and old.held == held and old.address == address:
            return old
        whole = (p, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq"), keep)
        usable = p.numel() >= SMALL and alike(*(t for t in whole if t is not None))
        flats = tuple(None if t is None else flat(t) for t in whole) if usable else ()
        mask = "stored" if keep is not None else "state" if held else "none"
        found = self.views[p] = Views(state, keep, held, address, mask, flats, usable)
        return found

    def takes(self, p: Tensor) -> bool:
        return self.view(p).usable and p.grad.stride() == p.stride()

    def left(self, params: list[Tensor]) -> list[Tensor]:
        """The parameters that are not for these kernels."""
        return [p for p in params if not self.takes(p)]

    def norms(self, params: list[Tensor], dense: bool) -> list[Tensor]:
        found = []
        for p in params:
            if self.takes(p):
                mask = "none" if dense else self.view(p).mask
                _, _, v, _, keep = self.view(p).tensors
                found.append(norm(mask, flat(p.grad), {"none": None, "state": v, "stored": keep}[mask]))
        return found

    def update(self, params: list[Tensor], n: Numbers, clip: Tensor | None) -> None:
        params = [p for p in params if self.takes(p)]
        if not params:
            return
        device, spam = params[0].device, self.optimizer.spam
        decay, rate, eps = (torch.full((), x, device=device) for x in folded(n))
        theta, spike = (torch.full((), x, device=device) for x in limits(n)) if spam else (None, None)
        l2 = 0.0 if n.decoupled else n.weight_decay
        for p in params:
            w, m, v, top, keep = self.view(p).tensors
            rule = Rule(n.beta1, n.beta2, l2, top is not None, self.view(p).mask, spam is not None, clip is not None)
            kernel(rule)(w, flat(p.grad), m, v, top, keep, decay, rate, eps, clip, theta, spike)


def limits(n: Numbers) -> tuple[float, float]:
    """(theta, factor): SPAM's clip takes g^2 to at most theta * v, and so |g| to at most factor * sqrt(v_new)."""
    theta = n.spike_theta
    return (math.inf, math.inf) if theta is None else (theta, (theta / (n.beta2 + (1 - n.beta2) * theta)) ** 0.5)


@cache
def kernel(rule: Rule):
    """f(w, g, m, v, top, keep, decay, rate, eps, clip, theta, spike): one step in place, on flat tensors alike."""
    beta1, beta2, l2 = rule.beta1, rule.beta2, rule.l2

    def step(w, g, m, v, top, keep, decay, rate, eps, clip, theta, spike):
        g, x = g.float(), w.float()
        if rule.clip:
            g = g * clip
        g = masked(rule.mask, g, keep if rule.mask == "stored" else v)
        if l2:  # never with SPAM, which is AdamW's
            g = g + l2 * x
        square = g * g
        if rule.spikes:
            no_limit = (2 * TINY - v).clamp_min(0.0) * HUGE * OFF  # infinite for a v that has seen no gradient yet
            square = torch.minimum(square, (v + TINY) * theta + no_limit)  # 0 x inf would be nan
        v_new = v * beta2 + square * (1 - beta2)
        if rule.mask == "state":
            v_new = torch.maximum(v_new, v.clamp_max(TINY))
        if rule.spikes:  # where g is clipped v_new is v (beta2 + (1 - beta2) theta), so one root serves both
            limit = (v_new.sqrt() + TINY) * spike + no_limit
            g = torch.maximum(torch.minimum(g, limit), -limit)
        m_new = m + (g - m) * (1 - beta1)
        top_new = torch.maximum(top, v_new) if rule.amsgrad else v_new
        w.copy_(x * decay - m_new / (top_new.sqrt() + eps) * rate)
        m.copy_(m_new)
        v.copy_(v_new)
        if rule.amsgrad:
            top.copy_(top_new)

    n = 2 * SMALL
    t = [torch.ones(n) for _ in range(4)]
    top = torch.ones(n) if rule.amsgrad else None
    keep = torch.ones(n, dtype=torch.bool) if rule.mask == "stored" else None
    used = (True, True, True, rule.clip, rule.spikes, rule.spikes)
    numbers = [torch.ones(()) if u else None for u in used]  # each its own: one tensor twice would be a guard
    return compiled(step, *t, top, keep, *numbers)


def norm(mask: str, g: Tensor, by: Tensor | None) -> Tensor:
    """The Euclidean norm of the live elements of flat `g`; `by` is v or the stored mask."""
    whole = len(g) // ROW * ROW
    squares = squares_kernel(mask)(rows(g[:whole]), None if by is None else rows(by[:whole])).sum()
    if whole < len(g):
        squares += masked(mask, g[whole:].float(), None if by is None else by[whole:]).square().sum()
    return squares.sqrt()


def rows(t: Tensor) -> Tensor:
    return t.view(-1, ROW)


@cache
def squares_kernel(mask: str):
    """f(g, by): the sum of squares of the live elements of each row. One sum over everything is half as fast: it is
    compiled with compensation for its length, which rows do without."""

    def squares(g, by):
        return masked(mask, g.float(), by).square().sum(1)

    n = 2 * SMALL
    by = {"none": None, "state": torch.ones(n), "stored": torch.ones(n, dtype=torch.bool)}[mask]
    return compiled(squares, rows(torch.ones(n)), None if by is None else rows(by))


def masked(mask: str, g: Tensor, by: Tensor | None) -> Tensor:
    if mask == "state":
        return g * (by * HUGE).clamp_max(1.0)
    return g * by if mask == "stored" else g


def compiled(f, *example):
    """`f` compiled for every length from SMALL on, by calling it once with `example`. Under a name of its own: torch
    would take two rules for one function called with other numbers, and make the numbers inputs."""
    own = f"{f.__name__}_{next(names)}"
    code = f.__code__.replace(co_name=own)
    result = torch.compile(types.FunctionType(code, f.__globals__, own, f.__defaults__, f.__closure__), fullgraph=True)
    for t in example:
        if t is not None and t.ndim:
            torch._dynamo.mark_dynamic(t, 0, min=SMALL // t[0].numel())
    with torch.no_grad():
        result(*example)
    return result
