"""The Adam family's update as one compiled reading of memory, and the masked norm as another.

Each large tensor is one call of a kernel compiled for any length (torch.compile, so C++ on a CPU and Triton on a GPU).
What changes from step to step goes in as three 0-dim tensors, folded beforehand: as Python numbers they would be
compiled anew, as more tensors they would be loaded in the loop. Small tensors are left to the eager form, which is as
fast there. Between two kernels nothing is done that can be done before the first: they leave the caches full of
tensors, and Python is several times slower then.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.optim.kernel.adam import Numbers, folded
from lib.optim.kernel.flat import alike, flat
from lib.optim.kernel.inductor import compile_once
from lib.optim.kernel.spam import SEED, TINY

ROW, WIDE = 1024, 4096
SMALL = 16384  # elements: below it the call costs more than the memory
HUGE = 1 / TINY  # v * HUGE >= 1 for every normal v, and what holds its mask is normal or 0: min(1, .) is the mask
CPU = torch.device("cpu")
MOST = 1 << 31  # elements that a GPU kernel can index in 32 bits
OFF = torch.finfo(torch.float32).max  # a spike limit that no gradient meets


@dataclass(frozen=True)
class Rule:
    """What a kernel is compiled for. mask: "none", "state" (pruned where v = 0) or "stored". threads: of a CPU."""

    beta1: float = 0.9
    beta2: float = 0.999
    l2: float = 0.0
    amsgrad: bool = False
    mask: str = "none"
    spikes: bool = False
    clip: bool = False
    weight: torch.dtype = torch.float32
    grad: torch.dtype = torch.float32
    device: torch.device = CPU
    threads: int = 1


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
    """Kernels for the parameters of one Adam. Raises CannotCompile where nothing can be compiled."""

    def __init__(self, optimizer):
        self.optimizer, self.views = optimizer, {}
        device = optimizer.param_groups[0]["params"][0].device
        squares_kernel("none", torch.float32, device, torch.get_num_threads())

    def __getstate__(self):
        return {"optimizer": self.optimizer, "views": {}}

    def view(self, p: Tensor) -> Views:
        """The views of `p`, made anew when its state, its storage or its mask is another."""
        state, keep, address = self.optimizer.state[p], self.optimizer.masks.get(p), p.data_ptr()
        held, old = state.get("held", False), self.views.get(p)
        if old and old.state is state and old.keep is keep and old.held == held and old.address == address:
            return old
        whole = (p, state["exp_avg"], state["exp_avg_sq"], state.get("max_exp_avg_sq"), keep)
        usable = SMALL <= p.numel() < MOST and whole[1].dtype == torch.float32
        usable = usable and alike(*(t for t in whole if t is not None))
        flats = tuple(None if t is None else flat(t) for t in whole) if usable else ()
        mask = "stored" if keep is not None else "state" if held else "none"
        found = self.views[p] = Views(state, keep, held, address, mask, flats, usable)
        return found

    def takes(self, p: Tensor) -> bool:
        return self.view(p).usable and p.grad.stride() == p.stride() and "missed" not in self.optimizer.state[p]

    def left(self, params: list[Tensor]) -> list[Tensor]:
        """The parameters that are not for these kernels."""
        return [p for p in params if not self.takes(p)]

    def norms(self, params: list[Tensor], dense: bool) -> list[Tensor]:
        """One norm over all that these kernels take, if any."""
        threads, calls, rest = torch.get_num_threads(), [], []
        for p in filter(self.takes, params):
            view, g = self.view(p), flat(p.grad)
            mask = "none" if dense else view.mask
            by = {"none": None, "state": view.tensors[2], "stored": view.tensors[4]}[mask]
            whole = len(g) // WIDE * WIDE
            if whole:
                f = squares_kernel(mask, g.dtype, g.device, threads)
                calls.append((f, wide(g[:whole]), None if by is None else wide(by[:whole])))
            if whole < len(g):
                tail = masked(mask, g[whole:].float(), None if by is None else by[whole:])
                rest.append(tail.square().sum().view(1))
        squares = [f(*given)[0] for f, *given in calls]
        return [torch.cat(squares + rest).sum(dtype=torch.float64).sqrt().float()] if squares or rest else []

    def update(self, params: list[Tensor], n: Numbers, clip: Tensor | None) -> list[Tensor]:
        """One step of those that these kernels take; returns the others."""
        others = self.left(params)
        if len(others) == len(params):
            return others
        device, spam, threads = params[0].device, self.optimizer.spam, torch.get_num_threads()
        numbers = [torch.full((), x, device=device) for x in folded(n)]
        numbers += [clip, *(torch.full((), x, device=device) if spam else None for x in limits(n))]
        l2, calls = 0.0 if n.decoupled else n.weight_decay, []
        for p in filter(self.takes, params):
            view, g = self.view(p), flat(p.grad)
            w, m, v, top, keep = view.tensors
            asked = (top is not None, view.mask, spam is not None, clip is not None)
            rule = Rule(n.beta1, n.beta2, l2, *asked, w.dtype, g.dtype, w.device, threads)
            calls.append((kernel(rule), (w, g, m, v, top, keep, *numbers)))
        for f, given in calls:
            f(*given)
        return others


def limits(n: Numbers) -> tuple[float, float]:
    """(theta, factor): SPAM's clip takes g^2 to at most theta * v, and so |g| to at most factor * sqrt(v_new)."""
    theta = n.spike_theta
    return (math.inf, math.inf) if theta is None else (theta, (theta / (n.beta2 + (1 - n.beta2) * theta)) ** 0.5)


@functools.cache
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
            no_limit = (2 * SEED - v).clamp_min(0.0) * (1 / SEED) * OFF  # for a v that has seen no gradient yet
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

    def ones(*shape, dtype=torch.float32, used=True):
        return torch.ones(shape, dtype=dtype, device=rule.device) if used else None

    n = 2 * SMALL
    tensors = [ones(n, dtype=rule.weight), ones(n, dtype=rule.grad), ones(n), ones(n), ones(n, used=rule.amsgrad)]
    keep = ones(n, dtype=torch.bool, used=rule.mask == "stored")
    used = (True, True, True, rule.clip, rule.spikes, rule.spikes)
    return compile_once(step, *tensors, keep, *(ones(used=u) for u in used), shortest=SMALL, longest=MOST - 1)


def wide(t: Tensor) -> Tensor:
    return t.view(-1, WIDE // ROW, ROW)


@functools.cache
def squares_kernel(mask: str, dtype: torch.dtype, device: torch.device, threads: int):
    """f(g, by): sums of squares of the live elements, one of each WIDE. Of a row, because one sum over everything is
    compiled with compensation for its length, and is half as fast; of rows side by side, because several streams are
    read faster than one."""

    def squares(g, by):
        sides = (by if by is None else by.unbind(1)) or [None] * (WIDE // ROW)
        return sum(masked(mask, x.float(), y).square() for x, y in zip(g.unbind(1), sides, strict=True)).sum(1)

    n = 2 * SMALL
    by = {"none": None, "state": torch.float32, "stored": torch.bool}[mask]
    by = None if by is None else wide(torch.ones(n, dtype=by, device=device))
    given = wide(torch.ones(n, dtype=dtype, device=device))
    return compile_once(squares, given, by, shortest=SMALL, longest=MOST - 1)


def masked(mask: str, g: Tensor, by: Tensor | None) -> Tensor:
    if mask == "state":
        return g * (by * HUGE).clamp_max(1.0)
    return g * by if mask == "stored" else g
