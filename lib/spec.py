"""RunSpec: what may differ between two cells of a matrix, and the id that a cell got when the matrix was expanded."""

import dataclasses
from decimal import Decimal

from lib.schema import CHECKS


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """One run. `adamwprune_base` and `adamwprune_variant` are "" where they do not apply, `target_sparsity` is a share
    of the prunable weights (0 without pruning), and `id` is set by `lib.matrix.expand`, never parsed."""

    model: str
    dataset: str
    optimizer: str
    pruning_method: str
    adamwprune_variant: str = ""
    adamwprune_base: str = ""
    target_sparsity: float = 0.0
    seed: int = 0
    id: str = ""

    __pydantic_config__ = CHECKS

    def dict(self) -> dict:
        return dataclasses.asdict(self)


def percent(share: float) -> str:
    """A share as a percentage, written shortest, of at most four decimals: 0.5 -> "50", 0.995 -> "99.5"."""
    return format(round(Decimal(repr(share)) * 100, 4).normalize(), "f")


def identify(spec: RunSpec, *, dataset: bool, base: bool, seed: bool) -> str:
    """The id of a cell; `dataset`, `base` and `seed` say whether that axis varies and so must be part of it."""
    parts = [spec.model]
    parts += [spec.dataset] if dataset else []
    parts += [spec.optimizer]
    parts += [spec.adamwprune_base] if base and spec.adamwprune_base else []
    parts += [spec.adamwprune_variant] if spec.adamwprune_variant else []
    parts += [spec.pruning_method]
    parts += [percent(spec.target_sparsity)] if spec.target_sparsity else []
    parts += [f"s{spec.seed}"] if seed else []
    return "_".join(parts)
