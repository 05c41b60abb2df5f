"""N:M sparsity: of every M weights in a row along the input dimension N stay (Mishra et al. 2021, arXiv 2104.08378).

It is a limit on which weights may go: in each group only the M - N with the lowest scores. One threshold over all of
them, at a share that rises to 1 - N/M, ends with exactly N of every M, and takes the least important first.
"""

from torch import Tensor, nn


def divisible(weights: list[tuple[str, nn.Parameter]], pattern: tuple[int, int]) -> list[tuple[str, nn.Parameter]]:
    """The weights whose input dimension M divides; the others stay dense. Raises ValueError where none is left."""
    found = [(n, p) for n, p in weights if p.shape[1] % pattern[1] == 0]
    if not found:
        raise ValueError(
            f"no layer has an input dimension that {pattern[1]} divides: {pattern[0]}:{pattern[1]} is moot"
        )
    return found


def spared(scores: Tensor, n: int, m: int) -> Tensor:
    """Bool of the shape of `scores` (out, in) or (out, in, height, width): True for the n highest of every m along
    `in`; among equals the first."""
    last = scores.movedim(1, -1)
    groups = last.reshape(-1, m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    high = scores.new_zeros(groups.shape, dtype=bool).scatter_(1, order[:, :n], True)
    return high.reshape(last.shape).movedim(-1, 1)
