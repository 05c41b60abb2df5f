"""Records of optimizers. The tensor code is in lib/optim/kernel and imported only inside `build`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib.config import choice, number
from lib.registry import Registry

MOMENTS = {"exp_avg": 4, "exp_avg_sq": 4}  # bytes per parameter: float32
MAXIMUM = {"max_exp_avg_sq": 4}  # AMSGrad's
Read = Callable[[type], Any]  # a settings class -> its values from the run's config


@dataclass(frozen=True)
class Hyper:
    """What a recipe says to an optimizer: learning rate, decay of tensors of two or more dimensions, betas, clip."""

    lr: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 0.0


@dataclass(frozen=True)
class Resets:
    """An optimizer that zeroes its moments every `interval` steps and then needs `wait` steps to rebuild them."""

    interval: int
    wait: int


@dataclass(frozen=True)
class Optim:
    """One optimizer.

    build(groups, hyper, read, base) makes it; `read` gives the settings classes in `options` their values, `base` is
    the base optimizer's name for the one optimizer that has one.
    family: whose learning rate, decay and betas of the recipe it takes ("sgd" or "adam").
    keeps: the names of the state tensors a pruning score may read.
    holds_masks: whether its state alone can tell a pruned weight, w = 0 and exp_avg_sq = 0, as lib/optim/kernel/adam.py
    can; None is wherever it keeps exp_avg_sq.
    Both are the base's, where there is one: see state_owner.
    pairs_with: the pruning methods it pairs with; None is any.
    replaces: recipe settings that its definition fixes, for a given base.
    resets(read, base): when it zeroes its moments, or None.
    state(read, base): what it keeps of every parameter, name -> bytes.
    check(read, base): raises InputError where its settings cannot be had, before anything is run.
    """

    name: str
    build: Callable
    options: tuple[type, ...] = ()
    family: str = "adam"
    keeps: frozenset[str] = frozenset({"exp_avg", "exp_avg_sq"})
    pairs_with: frozenset[str] | None = None
    replaces: Callable[[str], Mapping[str, Any]] = field(default=lambda base: {})
    resets: Callable[[Read, str], Resets | None] = field(default=lambda read, base: None)
    state: Callable[[Read, str], Mapping[str, int]] = field(default=lambda read, base: MOMENTS)
    check: Callable[[Read, str], None] = field(default=lambda read, base: None)
    has_base: bool = False
    holds_masks: bool | None = None

    def __post_init__(self):
        if self.holds_masks is None:
            object.__setattr__(self, "holds_masks", "exp_avg_sq" in self.keeps)

    def state_owner(self, base: str = "") -> "Optim":
        """The record of the optimizer whose state this one has: its base's, where it has one."""
        return OPTIMIZERS[base] if self.has_base and base else self


@dataclass(frozen=True)
class AdamOptions:
    adam_eps: float = number(1e-8, low=1e-12)


@dataclass(frozen=True)
class UpdateOptions:
    """How the Adam family's update runs. "auto" is decided before a run starts (lib/resolve.py)."""

    update: str = choice("auto")


OPTIMIZERS: Registry[Optim] = Registry("optimizer", "lib.optim")


def compiled(read: Read) -> bool:
    return read(UpdateOptions).update == "compiled"


def decay_groups(named_parameters, weight_decay: float) -> list[dict]:
    """Two parameter groups: decay for tensors of two or more dimensions, none for biases and norms. A tensor that the
    model holds twice (a tied embedding) is in one group, once."""
    unique = {id(p): p for _, p in named_parameters}.values()
    decay = [p for p in unique if p.ndim >= 2]
    rest = [p for p in unique if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return [g for g in groups if g["params"]]
