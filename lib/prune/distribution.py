"""How many weights each layer gives up. Pure arithmetic on layer shapes.

A distribution is a function (shapes, share) -> shares per layer, or None for one threshold over all layers. `allocate`
turns shares into counts whose sum is exactly round(share * N). "nm" is one threshold too, over the weights that an N:M
pattern lets go (lib/prune/kernel/pattern.py).
"""

import math
from collections.abc import Sequence

Shape = Sequence[int]


def uniform(shapes: list[Shape], share: float) -> list[float]:
    return [share] * len(shapes)


def erk(shapes: list[Shape], share: float) -> list[float]:
    """Erdos-Renyi-Kernel (Evci et al. 2020, arXiv 1911.11134): the density of a layer is proportional to the sum of
    its dimensions over their product; layers that would be denser than 1 stay dense."""
    sizes = [math.prod(s) for s in shapes]
    raw = [sum(s) / math.prod(s) for s in shapes]
    dense: set[int] = set()
    while True:
        open_ = [i for i in range(len(shapes)) if i not in dense]
        budget = (1 - share) * sum(sizes) - sum(sizes[i] for i in dense)
        factor = budget / sum(raw[i] * sizes[i] for i in open_) if open_ else 0.0
        over = [i for i in open_ if raw[i] * factor > 1]
        if not over:
            return [0.0 if i in dense else 1 - raw[i] * factor for i in range(len(shapes))]
        dense.add(max(over, key=lambda i: raw[i]))


def depth(shapes: list[Shape], share: float) -> list[float]:
    """bitter4: layer i of L gets share * (0.7 + 0.6 i/(L-1)), at most max(0.95, (1 + share)/2); the uncapped layers are
    scaled by one factor so that the total is right."""
    sizes = [math.prod(s) for s in shapes]
    n = len(shapes)
    raw = [share * (0.7 + 0.6 * i / (n - 1) if n > 1 else 1.0) for i in range(n)]
    cap = max(0.95, (1 + share) / 2)
    capped: set[int] = set()
    while True:
        open_ = [i for i in range(n) if i not in capped]
        rest = share * sum(sizes) - cap * sum(sizes[i] for i in capped)
        factor = rest / sum(raw[i] * sizes[i] for i in open_) if open_ and share else 1.0
        over = {i for i in open_ if raw[i] * factor > cap}
        if not over:
            return [cap if i in capped else raw[i] * factor for i in range(n)]
        capped |= over


DISTRIBUTIONS = {"global": None, "uniform": uniform, "erk": erk, "nm": None}
OWN = {"depth": depth}


def target_count(share: float, total: int) -> int:
    """Weights to prune out of `total`."""
    return round(share * total)


def most(size: int, floor: float) -> int:
    """Weights that a layer may give up where the share `floor` of it stays."""
    return size - math.ceil(floor * size - 1e-9)  # 0.07 * 100 is a little above 7


def allocate(
    shares: list[float],
    sizes: list[int],
    total: int,
    at_least: list[int] | None = None,
    at_most: list[int] | None = None,
) -> list[int]:
    """Whole counts near shares * sizes that sum to exactly `total`, by largest remainder.

    at_least: counts already pruned, which no layer may fall below. at_most: counts that none may exceed. Raises
    ValueError where `total` is outside of their sums.
    """
    whole, low, sizes = sizes, at_least or [0] * len(sizes), at_most or sizes
    exact = [min(max(s * n, lo), top) for s, n, lo, top in zip(shares, whole, low, sizes, strict=True)]
    counts = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact[i], i))
    while (missing := total - sum(counts)) != 0:
        sign = 1 if missing > 0 else -1
        free = [i for i in by_remainder[::sign] if low[i] <= counts[i] + sign <= sizes[i]]
        if not free:
            raise ValueError(f"{total} weights cannot be pruned from layers of {sizes} of which {low} are pruned")
        for i in free[: abs(missing)]:
            counts[i] += sign
    return counts
