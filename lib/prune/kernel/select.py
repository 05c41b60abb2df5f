"""Exact selection in constant memory: which weights have the lowest scores.

Scores come in chunks, are computed anew for each pass, and are never held together. The k-th lowest is found in one
pass and a bit: a histogram of every 64th row says between which two values it lies; everything below is counted, and
the few in between are kept. Where the guess was wrong, or they are too many, two histograms of 65,536
counts find it (radix selection over all 32 bits). Either way the counts are whole numbers and the result is exact.

Among equal scores the one that comes first, by (layer, logical row-major index), is kept, so that every device, memory
format, chunking and number of processes prunes the same weights.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 1 << 16
LOWEST = -0x7F800001  # the key of -inf, the score of what is pruned already
INFINITE = 0x7F800000
NAN = 0x7FC0  # upper bits, of either sign once flipped, from which on a key is no number
STRIDE = 64
MARGIN = 0.003  # of all scores, to each side of the guess
BATCH = 1 << 20  # keys of one histogram at least, for 65,536 counts cost something too
LARGE = 1 << 22  # scores from which on a guess pays
BUDGET = 3 << 20  # scores that are kept: 12 MiB of keys

Chunks = Callable[[int], Iterable[Tensor]]  # stride -> float32 scores of every stride-th row of each chunk


class Alone:
    """One process has all the scores. Another group adds up and orders what several processes have: see Group."""

    rank = 0

    def sum(self, counts: Tensor) -> Tensor:
        return counts

    def gather(self, counts: Tensor) -> list[Tensor]:
        """Every process's counts, by rank."""
        return [counts]


class Group(Alone):
    """Processes of torch.distributed that hold consecutive rows of every layer, in the order of their ranks."""

    def __init__(self, group=None):
        self.group, self.rank = group, torch.distributed.get_rank(group)

    def sum(self, counts):
        torch.distributed.all_reduce(counts, group=self.group)
        return counts

    def gather(self, counts):
        found = [torch.empty_like(counts) for _ in range(torch.distributed.get_world_size(self.group))]
        torch.distributed.all_gather(found, counts, group=self.group)
        return found


@dataclass(frozen=True)
class Cut:
    """Where to cut: everything below `key` goes, and of the `ties` scores equal to it all but the first `kept`.

    below: scores under the threshold. blind: every live score is 0, so that only position would decide. Counts are
    over all processes.
    """

    key: int
    below: int
    ties: int
    kept: int
    blind: bool = False

    @property
    def value(self) -> float:
        """The score that the key stands for."""
        return float_of(self.key)

    @property
    def threshold(self) -> float | None:
        """The highest score that goes, or None where nothing live does."""
        return None if self.key <= LOWEST else self.value


NOTHING = Cut(LOWEST - 1, 0, 0, 0)


def keys(scores: Tensor) -> Tensor:
    """int32 that sort as the float32 scores do, -0 as 0."""
    bits = (scores + 0.0).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def float_of(key: int) -> float:
    k = torch.tensor(key, dtype=torch.int32)
    return (k ^ ((k >> 31) & 0x7FFFFFFF)).view(torch.float32).item()


def histogram(half: Tensor) -> Tensor:
    """Counts of values 0..65,535, on the CPU as int64. numpy's is much faster than torch's on a CPU."""
    if half.device.type == "cpu":
        return torch.from_numpy(np.bincount(half.numpy(), minlength=BINS))
    return torch.bincount(half, minlength=BINS).cpu()


def upper(k: Tensor) -> Tensor:
    """The upper 16 bits of keys as they are, 0..65,535: those of negative keys come last."""
    if k.device.type == "cpu":
        return torch.from_numpy(k.numpy().view(np.uint16)[int(np.little_endian) :: 2])
    return (k >> 16) & 0xFFFF


def counts_by_upper(chunks: Iterable[Tensor], group: Alone) -> Tensor:
    """How many keys have which upper bits, in the keys' order. Raises ValueError on NaN."""
    high = torch.zeros(BINS, dtype=torch.int64)
    for found in batched(chunks):
        high += histogram(upper(found))
        high[0x7FFF] += int(((found > INFINITE) | (found < LOWEST)).sum())  # some NaN have infinity's upper bits
    high = group.sum(high.roll(BINS // 2))  # negative keys come first
    if high[: BINS - (NAN | 0x8000)].any() or high[NAN | 0x8000 :].any():
        raise ValueError("a pruning score is not a number")
    return high


def batched(chunks: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same in longer pieces."""
    held, size = [], 0
    for c in chunks:
        held.append(c)
        size += len(c)
        if size >= BATCH:
            yield torch.cat(held)
            held, size = [], 0
    if held:
        yield torch.cat(held)


def find(chunks: Chunks, k: int, total: int, group: Alone | None = None) -> Cut:
    """The cut that prunes exactly the `k` lowest of `total` scores (of all processes).

    Raises ValueError on NaN, and where there are fewer than k scores.
    """
    group = group or Alone()
    if k <= 0:
        return NOTHING
    if k > total:
        raise ValueError(f"{k} of {total} scores cannot be the lowest")
    return (guessed(chunks, k, total, group) if total >= LARGE else None) or radix(
        lambda: map(keys, chunks(1)), k, group
    )


def guessed(chunks: Chunks, k: int, total: int, group: Alone) -> Cut | None:
    """The cut by way of a guess, or None where the guess does not hold it."""
    between = bracket(counts_by_upper(map(keys, chunks(STRIDE)), group), k / total)
    if between is None:
        return None
    low, high = between
    below, held, size, nan = 0, [], 0, 0
    for scores in chunks(1):
        nan += int(bool(scores.sum().isnan()) and bool(scores.isnan().any()))  # the sum alone may be inf - inf
        fewer, some = split(scores, low, high)
        below, size = below + fewer, size + len(some)
        if size <= BUDGET:
            held.append(keys(some))
    below, size, over, nan = group.sum(torch.tensor([below, size, size > BUDGET, nan])).tolist()
    if nan:
        raise ValueError("a pruning score is not a number")
    if over or not below < k <= below + size:
        return None
    cut = radix(lambda: held, k - below, group)
    return None if cut.key == 0 else Cut(cut.key, below + cut.below, cut.ties, cut.kept)


def bracket(sample: Tensor, q: float) -> tuple[float, float] | None:
    """(low, high) such that the quantile q of a sampled histogram lies well within low <= score < high."""
    up_to = sample.cumsum(0)
    n = int(up_to[-1])
    first = int(torch.searchsorted(up_to, max(1, round((q - MARGIN) * n))))
    last = int(torch.searchsorted(up_to, min(n, max(1, round((q + MARGIN) * n)))))
    if not n or last >= BINS:
        return None
    low = float_of(max((first - BINS // 2) << 16, LOWEST + 1))  # above what is pruned already
    high = float_of((last + 1 - BINS // 2) << 16)
    return None if np.isnan(low) or np.isnan(high) else (low, high)


def split(scores: Tensor, low: float, high: float) -> tuple[int, Tensor]:
    """How many scores are below `low`, and those from there to below `high`."""
    if scores.device.type == "cpu":
        a = scores.numpy()
        under = a < low
        inside = np.less(a, high)
        return int(np.count_nonzero(under)), torch.from_numpy(a[np.flatnonzero(np.logical_xor(inside, under, inside))])
    under = scores < low
    return int(under.sum()), scores[(scores < high) ^ under]


def radix(chunks: Callable[[], Iterable[Tensor]], k: int, group: Alone) -> Cut:
    """The cut at the k-th lowest of keys that come in chunks, twice."""
    high = counts_by_upper(chunks(), group)
    up_to = high.cumsum(0)
    place = int(torch.searchsorted(up_to, k))
    before, top = int(up_to[place] - high[place]), place - BINS // 2
    low = torch.zeros(BINS, dtype=torch.int64)
    for found in batched(chunks()):
        same = found[(found >> 16) == top]
        low += histogram(same & 0xFFFF)
    low = group.sum(low)
    up_to = low.cumsum(0)
    bottom = int(torch.searchsorted(up_to, k - before))
    ties, key = int(low[bottom]), (top << 16) | bottom
    below = before + int(up_to[bottom]) - ties
    kept = ties - (k - below)
    dead = int(high[: (LOWEST >> 16) + BINS // 2 + 1].sum())
    return Cut(key, below, ties, kept, key == 0 and kept > 0 and ties == int(high.sum()) - dead)


class Apply:
    """Turns scores into what stays, chunk after chunk in order, counting the ties that have gone by."""

    def __init__(self, cut: Cut, seen: int = 0):
        self.cut, self.seen = cut, seen

    def __call__(self, scores: Tensor) -> Tensor:
        """float32 of the shape of `scores`: 1 where the weight stays, 0 where it goes. A number and not a bool, for a
        product is many times faster than a masked fill."""
        if self.cut is NOTHING:
            return torch.ones_like(scores)
        keep = torch.gt(scores, self.cut.value, out=torch.empty(scores.shape, device=scores.device))
        if self.cut.kept:
            equal = (scores == self.cut.value).reshape(-1).nonzero().squeeze(1)
            keep.view(-1)[equal[: max(0, self.cut.kept - self.seen)]] = 1.0
            self.seen += len(equal)
        return keep


def ties_before(layers: list[Iterable[Tensor]], cut: Cut, group: Alone) -> list[int]:
    """For each layer, how many scores equal to the cut's come before this process's part of it."""
    mine = torch.tensor([sum(int((s == cut.value).sum()) for s in chunks) for chunks in layers])
    by_rank = torch.stack(group.gather(mine))
    earlier_layers = by_rank.sum(0).cumsum(0) - by_rank.sum(0)
    return (earlier_layers + by_rank[: group.rank].sum(0)).tolist()
