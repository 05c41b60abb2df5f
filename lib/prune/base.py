"""Records of pruning methods. The tensor code is in lib/prune/kernel and imported only inside `build`."""

from collections.abc import Callable
from dataclasses import dataclass

from lib.config import Steps, choice
from lib.registry import Registry


@dataclass(frozen=True)
class PruningOptions:
    """What all methods share."""

    pruning_schedule: str = choice("cubic")
    pruning_warmup: Steps = Steps("")
    pruning_ramp_end: Steps = Steps("75%")
    pruning_frequency: Steps = Steps("")
    pruning_distribution: str = choice("global")


@dataclass(frozen=True)
class Method:
    """One pruning method.

    build(weights, plan) makes its pruner (see lib/prune/kernel/pruner.py) for the prunable weights, a list of
    (name, parameter); None for a method that prunes nothing.
    needs: state tensors of the optimizer that its score reads.
    pairs_with: the optimizers it pairs with; None is any.
    bytes_per_param: what it keeps between steps, per prunable weight.
    has_variant: whether it is multiplied by ADAMWPRUNE_VARIANT_*.
    """

    name: str
    build: Callable | None
    needs: frozenset[str] = frozenset()
    pairs_with: frozenset[str] | None = None
    bytes_per_param: int = 0
    has_variant: bool = False

    @property
    def sparse(self) -> bool:
        return self.build is not None


PRUNERS: Registry[Method] = Registry("pruning method", "lib.prune")
