"""Exact selection against a stable sort: among equal scores the lower (layer, row-major index) is kept."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib.prune.kernel import select as select_module
from lib.prune.kernel.mask import CHUNK, chunks
from lib.prune.kernel.select import Apply, find

# Few values, so that ties are the rule; denormals, both zeros, infinities and the ends of float32.
VALUES = [-math.inf, -3.4028235e38, -1.5, -1e-42, -0.0, 0.0, 1e-45, 1e-42, 1.1754944e-38, 0.5, 0.50000006, 3.0, 65536.0]
VALUES += [3.4028235e38, math.inf]
tied, any_float = st.sampled_from(VALUES), st.floats(width=32, allow_nan=False)


def tensors(lists):
    return [torch.tensor(x, dtype=torch.float32) for x in lists]


def asked(layers, k):
    """What `find` wants: the scores by stride, how many go, and of how many."""
    return lambda stride: [s[::stride] for s in layers], k, sum(map(len, layers))


def select(layers, k):
    """(masks, cut) by the selection under test, one chunk a layer; True is what goes."""
    cut = find(*asked(layers, k))
    choose = Apply(cut)
    kept = [choose(s) for s in layers]
    assert all(set(x.tolist()) <= {0.0, 1.0} for x in kept)
    return [x == 0 for x in kept], cut


def reference(layers, k):
    """Python's sort: by score, and among equals by position from the end; the first k go."""
    flat = [(x + 0.0, -i) for i, x in enumerate(x for s in layers for x in s.tolist())]
    gone = {-i for _, i in sorted(flat)[:k]}
    flags, start = [], 0
    for s in layers:
        flags.append(torch.tensor([start + i in gone for i in range(len(s))], dtype=torch.bool))
        start += len(s)
    return flags


@st.composite
def cases(draw):
    values = draw(st.sampled_from([tied, any_float, st.sampled_from(VALUES[4:8]), st.just(0.25)]))
    layers = tensors(draw(st.lists(st.lists(values, max_size=12), max_size=5)))
    return layers, draw(st.integers(0, sum(map(len, layers))))


@settings(max_examples=500)
@given(cases())
@example((tensors([[-0.0, 0.0], [0.0], []]), 2))
@example((tensors([[math.inf, -math.inf, math.inf]]), 2))
def test_against_a_stable_sort(case):
    layers, k = case
    found, cut = select(layers, k)
    assert all(torch.equal(a, b) for a, b in zip(found, reference(layers, k), strict=True))
    flat = torch.cat([torch.empty(0), *layers])
    if not k:
        assert cut.threshold is None and cut.ties == 0
        return
    value = flat.kthvalue(k).values.item()
    assert cut.threshold == (None if value == -math.inf else value)
    assert cut.ties == int((flat == value).sum()) and cut.below == int((flat < value).sum())
    assert cut.kept == cut.below + cut.ties - k
    assert cut.blind == (value == 0 and not (flat[flat > -math.inf] != 0).any() and cut.kept > 0)


@settings(max_examples=200)
@given(cases(), st.data())
def test_any_chunking_gives_the_same_mask(case, data):
    layers, k = case
    flat = torch.cat([torch.empty(0), *layers])
    ends = sorted(data.draw(st.lists(st.integers(0, len(flat)), max_size=6)))
    parts = [flat[a:b] for a, b in zip([0, *ends], [*ends, len(flat)], strict=True)]
    whole, cut = select([flat], k)
    found, other = select(parts, k)
    assert torch.equal(torch.cat(found), whole[0]) and other == cut


@pytest.mark.parametrize("nan", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("k", [1, 4])
def test_nan_of_either_sign_is_refused(nan, k):
    bad = torch.from_numpy(np.array([0, nan], np.uint32).view(np.float32))
    with pytest.raises(ValueError, match="not a number"):
        find(*asked(tensors([[1.0, -math.inf]]) + [bad], k))


def test_infinity_is_a_number():
    found, cut = select(tensors([[math.inf, 1.0], [-math.inf, math.inf]]), 3)
    assert [f.tolist() for f in found] == [[False, True], [True, True]] and cut.threshold == math.inf


def test_nothing_everything_and_too_much():
    layers = tensors([[1.0, 2.0], [], [3.0]])
    none, cut = select(layers, 0)
    assert not any(f.any() for f in none) and (cut.threshold, cut.blind) == (None, False)
    everything, cut = select(layers, 3)
    assert all(f.all() for f in everything) and cut.threshold == 3.0 and cut.kept == 0
    with pytest.raises(ValueError, match="4 of 3 scores"):
        find(*asked(layers, 4))
    with pytest.raises(ValueError, match="1 of 0 scores"):
        find(*asked([], 1))


def test_blind_is_when_only_position_decides():
    dead = [-math.inf] * 3
    assert select(tensors([[0.0, -0.0], [*dead, 0.0]]), 4)[1].blind
    assert not select(tensors([[0.0, 1e-45], [*dead, 0.0]]), 4)[1].blind
    assert not select(tensors([[0.5, 0.5]]), 1)[1].blind  # a constant that is no 0 was computed from something
    assert not select(tensors([[0.0, 0.0]]), 2)[1].blind  # all go: nothing is left to decide
    assert not select(tensors([dead, [0.0]]), 3)[1].blind  # nothing that lives goes


@pytest.mark.parametrize("size", [1000, 300_000])
def test_large_layers_full_of_ties(size):
    r = np.random.default_rng(size)
    layers = [torch.from_numpy(r.integers(-3, 4, n).astype(np.float32)) for n in (size, 1, size // 2)]
    flat = torch.cat(layers).numpy()
    order = np.lexsort((-np.arange(len(flat)), flat))
    for share in (0.1, 0.5, 0.999):
        k = round(share * len(flat))
        want = np.zeros(len(flat), bool)
        want[order[:k]] = True
        assert np.array_equal(torch.cat(select(layers, k)[0]).numpy(), want)


def test_scores_that_share_their_upper_half():
    """The second histogram decides: 100,000 neighbours in float32, and their negatives."""
    near = (torch.arange(100_000, dtype=torch.int32) + 0x3F800000).view(torch.float32)
    for scores in (near, -near):
        mixed = scores[torch.randperm(100_000, generator=torch.Generator().manual_seed(0))]
        for k in (1, 65_535, 65_536, 65_537, 99_999):
            found, cut = select([mixed], k)
            assert torch.equal(found[0], mixed <= mixed.kthvalue(k).values) and cut.kept == 0


@pytest.mark.parametrize(
    "shape", [(7, 5), (1, 3), (3, CHUNK), (2, CHUNK + 1), (5, 3, 3, 3), (0, 4), (4, 0), (CHUNK + 7, 1), (9, 50_000)]
)
def test_chunks_are_all_rows_once_in_order(shape):
    p = torch.empty(shape)
    rows = [i for s in chunks(p) for i in range(shape[0])[s]]
    assert rows == (list(range(shape[0])) if p.numel() else [])
    assert all(p[s].numel() <= max(CHUNK, p[:1].numel()) for s in chunks(p))


GUESSES = {
    "even": lambda r, n: r.random(n),
    "signs": lambda r, n: r.standard_normal(n),
    "dead": lambda r, n: np.where(r.random(n) < 0.6, -np.inf, r.random(n)),
    "ties": lambda r, n: r.integers(0, 5, n),
    "all alike": lambda r, n: np.full(n, 0.25),
    "sorted": lambda r, n: np.sort(r.standard_normal(n)),
    # Every sampled score is far below all others, so that the guess is wrong.
    "misleading": lambda r, n: np.where(np.arange(n) % select_module.STRIDE == 0, -1, 1) * (1 + r.random(n)),
}


@pytest.mark.parametrize("share", [1e-4, 0.3, 0.61, 0.7, 0.9999, 1.0])
@pytest.mark.parametrize("kind", GUESSES)
def test_a_guess_decides_nothing(monkeypatch, kind, share):
    """With the guess as without it: the same mask, the same counts."""
    r = np.random.default_rng(1)
    layers = [torch.from_numpy(GUESSES[kind](r, n).astype(np.float32)) for n in (48_000, 16, 0, 64_000)]
    k = round(share * 112_016)
    plain, cut = select(layers, k)
    monkeypatch.setattr(select_module, "LARGE", 0)
    guessed, same = select(layers, k)
    assert same == cut and all(torch.equal(a, b) for a, b in zip(plain, guessed, strict=True))
    flat = torch.cat(layers)
    assert cut.threshold in (None, flat.kthvalue(k).values.item()) and int(torch.cat(plain).sum()) == k


def test_a_guess_is_taken_where_it_holds(monkeypatch):
    """Otherwise the tests of the guess would be tests of what comes in its place."""
    taken, plain = [], select_module.guessed
    monkeypatch.setattr(select_module, "guessed", lambda *a: taken.append(plain(*a)) or taken[-1])
    scores = torch.rand(1 << 22, generator=torch.Generator().manual_seed(0))
    found, cut = select([scores], 3_900_000)
    assert taken == [cut] and int(found[0].sum()) == 3_900_000


def test_too_many_in_between_are_not_held(monkeypatch):
    layers, held = [torch.rand(200_000)], []
    monkeypatch.setattr(select_module, "LARGE", 0)
    plain, cut = select(layers, 100_000)
    monkeypatch.setattr(select_module, "BUDGET", 10)
    monkeypatch.setattr(select_module, "radix", lambda *a, r=select_module.radix: held.append(1) or r(*a))
    found, same = select(layers, 100_000)
    assert held == [1] and same == cut and torch.equal(found[0], plain[0])


@pytest.mark.parametrize("nan", [0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001])
def test_nan_is_refused_with_a_guess(monkeypatch, nan):
    monkeypatch.setattr(select_module, "LARGE", 0)
    scores = torch.rand(50_000)
    scores[7] = torch.from_numpy(np.array([nan], np.uint32).view(np.float32))[0]  # not in the sample
    with pytest.raises(ValueError, match="not a number"):
        find(*asked([scores], 100))
