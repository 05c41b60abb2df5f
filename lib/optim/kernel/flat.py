"""Tensors as flat pieces that fit a cache, for what goes over them elementwise."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1 << 18  # elements: found with scripts/bench_core.py; half and double are within 5%


def alike(first: Tensor, *rest: Tensor) -> bool:
    """Whether all have one memory layout without gaps, so that their flat views agree element by element."""
    if first.is_contiguous():  # nearly always, and many times faster to ask
        return all(t.is_contiguous() for t in rest)
    return torch.ops.aten.is_non_overlapping_and_dense(first) and all(t.stride() == first.stride() for t in rest)


def flat(t: Tensor) -> Tensor:
    """A one-dimensional view of a tensor without gaps, in the order of its memory."""
    return t.detach().as_strided((t.numel(),), (1,), t.storage_offset())


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Matching views of at most CHUNK elements of tensors of one shape; the tensors themselves where their layouts
    differ, or on a device where the launch of a kernel costs more than memory does."""
    first = tensors[0]
    if first.device.type != "cpu" or first.numel() <= CHUNK or not alike(*tensors):
        yield tuple(t.detach() for t in tensors)
        return
    views = [flat(t) for t in tensors]
    for start in range(0, first.numel(), CHUNK):
        yield tuple(v[start : start + CHUNK] for v in views)
