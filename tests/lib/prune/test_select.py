"""Exact selection against a stable sort: among equal scores the lower (layer, row-major index) is kept."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.prune.kernel.select import lowest, lowest_per_layer

# Few values, so that ties are the rule; a denormal, both zeros and -inf (a weight that is pruned already).
VALUES = [-math.inf, -1e30, -1.5, -1e-42, -0.0, 0.0, 1e-45, 1e-42, 1e-38, 0.5, 0.5000001, 3.0, 1e38]


def reference(scores, k):
    """Sort by score, and among equals by position from the end; take the first k."""
    flat = [(float(x), -i) for i, x in enumerate(x for s in scores for x in s.reshape(-1).tolist())]
    flat = [(0.0 if x == 0 else x, i) for x, i in flat]
    gone = {-i for _, i in sorted(flat)[:k]}
    out, start = [], 0
    for s in scores:
        flags = [start + i in gone for i in range(s.numel())]
        out.append(torch.tensor(flags, dtype=torch.bool).reshape(s.shape))
        start += s.numel()
    return out


shapes = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=4)
shapes |= st.lists(st.sampled_from([(1,), (0, 3), (1, 1), (2, 0), (5,)]), min_size=1, max_size=5)


tied, any_float = st.sampled_from(VALUES), st.floats(width=32, allow_nan=False)


@st.composite
def layers(draw, values):
    found = []
    for shape in draw(shapes):
        n = math.prod(shape)
        data = draw(st.lists(values, min_size=n, max_size=n))
        found.append(torch.tensor(data, dtype=torch.float32).reshape(shape))
    total = sum(s.numel() for s in found)
    return found, draw(st.integers(0, total))


@settings(max_examples=300)
@given(layers(tied) | layers(any_float))
def test_against_a_stable_sort(case):
    scores, k = case
    chosen = lowest(scores, k)
    want = reference(scores, k)
    assert all(torch.equal(a, b) for a, b in zip(chosen.pruned, want, strict=True))
    assert sum(int(p.sum()) for p in chosen.pruned) == k
    taken = [x for s, p in zip(scores, want, strict=True) for x in s[p].tolist()]
    if taken and math.isfinite(max(taken)):
        assert chosen.threshold == max(taken)
        assert chosen.ties == sum(int((s == max(taken)).sum()) for s in scores)
    else:
        assert (chosen.threshold, chosen.ties) == (None, 0)


@settings(max_examples=100)
@given(layers(tied), st.data())
def test_per_layer_against_a_stable_sort(case, data):
    scores, _ = case
    counts = [data.draw(st.integers(0, s.numel())) for s in scores]
    chosen = lowest_per_layer(scores, counts)
    for s, k, pruned in zip(scores, counts, chosen.pruned, strict=True):
        assert torch.equal(pruned, reference([s], k)[0])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_the_memory_format_does_not_matter(share):
    g = torch.Generator().manual_seed(0)
    # Rounded, so that many scores tie.
    plain = [(torch.randn((6, 4, 3, 3), generator=g) * 4).round(), (torch.randn((2, 8, 5, 5), generator=g) * 4).round()]
    last = [s.to(memory_format=torch.channels_last) for s in plain]
    turned = [s.transpose(0, 3).contiguous().transpose(0, 3) for s in plain]
    assert not last[0].is_contiguous() and not turned[0].is_contiguous()
    k = round(share * sum(s.numel() for s in plain))
    want = lowest(plain, k)
    for other in (last, turned):
        found = lowest(other, k)
        assert all(torch.equal(a, b) for a, b in zip(found.pruned, want.pruned, strict=True))
        assert (found.threshold, found.ties) == (want.threshold, want.ties)


@pytest.mark.parametrize("size", [10, 1000, 300_000])
def test_large_layers_full_of_ties(size):
    """The size at which kthvalue, a sort or a sum could go another way."""
    r = np.random.default_rng(size)
    scores = [torch.from_numpy(r.integers(-3, 4, n).astype(np.float32)) for n in (size, 1, size // 2)]
    flat = torch.cat(scores).numpy()
    for share in (0.1, 0.5, 0.9, 0.999):
        k = round(share * len(flat))
        order = np.lexsort((-np.arange(len(flat)), flat))
        want = np.zeros(len(flat), bool)
        want[order[:k]] = True
        assert np.array_equal(torch.cat(lowest(scores, k).pruned).numpy(), want)


def test_nothing_and_everything():
    scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])]
    none, all_ = lowest(scores, 0), lowest(scores, 3)
    assert not any(p.any() for p in none.pruned) and none.threshold is None
    assert all(p.all() for p in all_.pruned) and all_.threshold == 3.0
    assert lowest([], 0).pruned == []


@pytest.mark.parametrize("k", [0, 1, 3])
def test_nan_is_refused(k):
    scores = [torch.tensor([1.0, 2.0]), torch.tensor([float("nan")])]
    with pytest.raises(ValueError, match="not a number"):
        lowest(scores, k)
    with pytest.raises(ValueError, match="not a number"):
        lowest_per_layer(scores, [0, min(k, 1)])
