"""Records of pruning methods. The tensor code is in lib/prune/kernel and imported only inside `build`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lib.config import InputError, Steps, choice, number
from lib.registry import Registry


@dataclass(frozen=True)
class PruningOptions:
    """What all methods share."""

    pruning_schedule: str = choice("cubic")
    pruning_warmup: Steps = Steps("")
    pruning_ramp_end: Steps = Steps("75%")
    pruning_frequency: Steps = Steps("")
    pruning_distribution: str = choice("global")
    pruning_nm: str = "2:4"
    pruning_layer_floor: float = number(0.0, low=0, below=1)
    pruning_drop_fraction: float = number(0.3, above=0, below=1)
    pruning_audit: bool = False

    def pattern(self) -> tuple[int, int]:
        """(N, M) of PRUNING_NM. Raises InputError unless 1 <= N < M."""
        parts = self.pruning_nm.split(":")
        if len(parts) == 2 and all(p.strip().isdecimal() for p in parts):
            n, m = map(int, parts)
            if 1 <= n < m:
                return n, m
        raise InputError(f'PRUNING_NM="{self.pruning_nm}": give N:M with 1 <= N < M, such as "2:4" (2 of 4 stay)')


@dataclass(frozen=True)
class Method:
    """One pruning method.

    build(weights, plan) makes its pruner (see lib/prune/kernel/pruner.py) for the prunable weights, a list of
    (name, parameter); None for a method that prunes nothing.
    needs: state tensors of the optimizer that its score reads; with variants, those of the variant count.
    pairs_with: the optimizers it pairs with; None is any.
    holds: what it keeps between steps besides a mask: the pruner's attribute, a dict of tensors, -> bytes per
    prunable weight.
    reversible: whether it takes weights back, so that an optimizer's state cannot be its mask.
    has_variant: whether it is multiplied by ADAMWPRUNE_VARIANT_*.
    schedule: the shape of its ramp where that is part of the method; "" is PRUNING_SCHEDULE_*.
    distributions: those it can take, the first in the place of global; None is any.
    whole_layers: whether it needs them, so that processes cannot each have a part of a weight.
    """

    name: str
    build: Callable | None
    needs: frozenset[str] = frozenset()
    pairs_with: frozenset[str] | None = None
    holds: Mapping[str, int] = field(default_factory=dict)
    reversible: bool = False
    has_variant: bool = False
    schedule: str = ""
    distributions: tuple[str, ...] | None = None
    whole_layers: bool = False

    @property
    def sparse(self) -> bool:
        return self.build is not None

    def mask(self, holds_masks: bool) -> int:
        """Bytes per prunable weight of its mask, on an optimizer that can or cannot hold it in its state."""
        return 0 if not self.sparse or (holds_masks and not self.reversible) else 1

    def kept(self, holds_masks: bool) -> int:
        """Bytes per prunable weight that it keeps between steps."""
        return sum(self.holds.values()) + self.mask(holds_masks)


class NotFinite(ValueError):
    """Training has diverged: there are no scores to prune by, for weights or the optimizer's state are not finite."""


PRUNERS: Registry[Method] = Registry("pruning method", "lib.prune")
