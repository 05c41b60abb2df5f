"""The scores of state pruning: each one pure function of a weight tensor and the optimizer's state of it.

w, m = exp_avg and v = exp_avg_sq are float32 tensors of one shape, the raw moments; the result has that shape, and a
higher score is kept. Each element is a function of its own w, m and v and of numbers, so that a tensor can be scored in
parts. There is no additive eps under a root and no half precision: with small gradients either turns the score into
|w|. v >= 0, 0^(1/4) = 0, and a quotient by sqrt(v) is 0 where v = 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lib.registry import Registry

Tensor = Any  # torch is not imported here: these functions call only methods of the tensors they get


@dataclass(frozen=True)
class State:
    """What a score may read of a tensor, or of a part of it: the raw moments that it `needs`, the tensor's own updates
    t >= 1, beta1 (0 where the optimizer has none), and the root mean square of the whole tensor's live weights, a 0-dim
    tensor."""

    exp_avg: Tensor = None
    exp_avg_sq: Tensor = None
    step: int = 1
    beta1: float = 0.9
    rms: Tensor = None


@dataclass(frozen=True)
class Importance:
    name: str
    score: Callable[[Tensor, State], Tensor]
    needs: frozenset[str]
    distribution: str | None = None  # a score that brings its own, in the place of global
    relative: bool = False  # whether it reads the root mean square of its tensor


IMPORTANCE: Registry[Importance] = Registry("adamwprune variant", "lib.prune")


def importance(name: str, needs: set[str], distribution: str | None = None, relative: bool = False):
    if unknown := set(needs) - {"exp_avg", "exp_avg_sq"}:
        raise ValueError(f"{name} needs {', '.join(sorted(unknown))}: a score can read exp_avg and exp_avg_sq")

    def register(score):
        IMPORTANCE.add(name, Importance(name, score, frozenset(needs), distribution, relative))
        return score

    return register


def root(x: Tensor, times: int = 1) -> Tensor:
    """sqrt(x) of x >= 0, `times` over, by way of 1 where x is 0: torch's own takes 30 times as long over a 0 on a CPU,
    and most of a sparse v is 0."""
    above = x.sign()
    y = (1.0 - above).add_(x)
    for _ in range(times):
        y.sqrt_()
    return y.mul_(above)


def over_root(x: Tensor, v: Tensor) -> Tensor:
    """x / sqrt(v), and 0 where v = 0."""
    return (x / root(v)).where(v > 0, 0.0)


@importance("bitter0", {"exp_avg", "exp_avg_sq"})
def bitter0(w, s):
    """|w m| * |w| / sqrt(v): the original hybrid."""
    return (w * s.exp_avg).abs() * over_root(w.abs(), s.exp_avg_sq)


@importance("bitter1", set())
def bitter1(w, s):
    """|w|: magnitude."""
    return w.abs()


@importance("bitter2", set(), relative=True)
def bitter2(w, s):
    """|w| / rms(W), the root mean square over the live weights of the tensor; 0 for a tensor that is all 0."""
    return (w.abs() / s.rms).where(s.rms > 0, 0.0)


@importance("bitter3", {"exp_avg"})
def bitter3(w, s):
    """|w| * sqrt(|m|)."""
    return w.abs() * root(s.exp_avg.abs())


@importance("bitter4", {"exp_avg"}, distribution="depth")
def bitter4(w, s):
    """bitter3, with a sparsity that grows with depth (lib/prune/distribution.py)."""
    return bitter3(w, s)


@importance("bitter5", {"exp_avg", "exp_avg_sq"})
def bitter5(w, s):
    """sign(w) * m / sqrt(v) + 0.1 |w|, as published: since Adam steps along -m this keeps what moves towards zero."""
    return over_root(w.sign() * s.exp_avg, s.exp_avg_sq) + 0.1 * w.abs()


@importance("bitter5_away", {"exp_avg", "exp_avg_sq"})
def bitter5_away(w, s):
    """bitter5 with the direction reversed: keeps what moves away from zero."""
    return 0.1 * w.abs() - over_root(w.sign() * s.exp_avg, s.exp_avg_sq)


@importance("bitter6", {"exp_avg", "exp_avg_sq"})
def bitter6(w, s):
    """|w| * sqrt(|m|) * |m| / sqrt(v): coherence-weighted."""
    return bitter3(w, s) * over_root(s.exp_avg.abs(), s.exp_avg_sq)


@importance("bitter7", {"exp_avg_sq"})
def bitter7(w, s):
    """|w| * v^(1/4): recommended."""
    return w.abs() * root(s.exp_avg_sq, 2)


@importance("bitter8", {"exp_avg"})
def bitter8(w, s):
    """|w| * sqrt(|m_hat|), m_hat = m / (1 - beta1^t): ranks as bitter3 does wherever t is shared."""
    return w.abs() * root((s.exp_avg / (1 - s.beta1**s.step)).abs())


@importance("bitter9", {"exp_avg", "exp_avg_sq"})
def bitter9(w, s):
    """bitter3 + 0.1 * sign(w) * m / sqrt(v); the remark on bitter5 holds here too."""
    return bitter3(w, s) + 0.1 * over_root(w.sign() * s.exp_avg, s.exp_avg_sq)


@importance("bitter9_away", {"exp_avg", "exp_avg_sq"})
def bitter9_away(w, s):
    """bitter9 with the direction reversed."""
    return bitter3(w, s) - 0.1 * over_root(w.sign() * s.exp_avg, s.exp_avg_sq)


@importance("fisher", {"exp_avg_sq"})
def fisher(w, s):
    """|w| * sqrt(v): JaxPruner's adam-fisher, Squisher (arXiv 2507.18807)."""
    return w.abs() * root(s.exp_avg_sq)
