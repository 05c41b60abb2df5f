"""Shares and counts per layer: exact totals, bounds, and the published formulas."""

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lib.prune.distribution import DISTRIBUTIONS, OWN, allocate, depth, erk, most, target_count, uniform

ALL = {**{k: v for k, v in DISTRIBUTIONS.items() if v}, **OWN}
linear = st.tuples(st.integers(1, 300), st.integers(1, 300))
conv = st.tuples(st.integers(1, 64), st.integers(1, 64), st.integers(1, 5), st.integers(1, 5))
networks = st.lists(linear | conv, min_size=1, max_size=8)
shares = st.floats(0.001, 0.999)
LENET5 = [(6, 1, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def sizes_of(shapes):
    return [math.prod(s) for s in shapes]


def test_all_of_them():
    assert {"uniform": uniform, "erk": erk, "depth": depth} == ALL
    assert [k for k, v in DISTRIBUTIONS.items() if v is None] == ["global", "nm"]


@pytest.mark.parametrize("name", ALL)
@given(networks, shares)
@example(LENET5, 0.9)
@example([(1, 1)], 0.5)
def test_shares_give_the_total(name, shapes, share):
    found = ALL[name](shapes, share)
    sizes = sizes_of(shapes)
    assert all(-1e-9 <= s <= 1 for s in found)
    assert sum(s * n for s, n in zip(found, sizes, strict=True)) == pytest.approx(share * sum(sizes), rel=1e-9)


@pytest.mark.parametrize("name", ALL)
@given(networks, shares)
@example(LENET5, 0.9)
def test_counts_are_exact_and_near_their_shares(name, shapes, share):
    sizes, found = sizes_of(shapes), ALL[name](shapes, share)
    total = target_count(share, sum(sizes))
    counts = allocate(found, sizes, total)
    assert sum(counts) == total == round(share * sum(sizes))
    for c, s, n in zip(counts, found, sizes, strict=True):
        assert 0 <= c <= n and abs(c - s * n) < 1 + 1e-6


@pytest.mark.parametrize("name", ALL)
@given(networks, st.lists(shares, min_size=2, max_size=12))
def test_a_rising_ramp_never_takes_a_weight_back(name, shapes, ramp):
    """The counts of one event are the floor of the next; both stay exact, and near what the shares ask for."""
    sizes, low = sizes_of(shapes), [0] * len(shapes)
    for share in sorted(ramp):
        found = ALL[name](shapes, share)
        counts = allocate(found, sizes, target_count(share, sum(sizes)), low)
        assert sum(counts) == target_count(share, sum(sizes))
        for c, lo, s, n in zip(counts, low, found, sizes, strict=True):
            assert lo <= c <= n and abs(c - s * n) <= 2
        low = counts


@given(st.data())
def test_allocate_respects_any_floor(data):
    sizes = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=8))
    low = [data.draw(st.integers(0, n)) for n in sizes]
    total = data.draw(st.integers(sum(low), sum(sizes)))
    wanted = [data.draw(st.floats(0, 1)) for _ in sizes]
    counts = allocate(wanted, sizes, total, low)
    assert sum(counts) == total
    assert all(lo <= c <= n for lo, c, n in zip(low, counts, sizes, strict=True))


@given(st.data())
def test_allocate_respects_any_bounds(data):
    """Between what is pruned already and what a floor leaves; as near the shares as the bounds let it be."""
    sizes = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=8))
    top = [data.draw(st.integers(0, n)) for n in sizes]
    low = [data.draw(st.integers(0, n)) for n in top]
    total = data.draw(st.integers(sum(low), sum(top)))
    wanted = [data.draw(st.floats(0, 1)) for _ in sizes]
    counts = allocate(wanted, sizes, total, low, top)
    assert sum(counts) == total
    assert all(lo <= c <= n for lo, c, n in zip(low, counts, top, strict=True))


@given(networks, st.floats(0, 0.99))
def test_what_a_floor_leaves(shapes, floor):
    for n in sizes_of(shapes):
        gives = most(n, floor)
        assert 0 <= gives <= n and n - gives >= floor * n - 1e-6 and n - gives - 1 < floor * n


def test_allocate_gives_the_remainder_to_the_largest():
    assert allocate([0.55, 0.58, 0.51], [10, 10, 10], 16) == [5, 6, 5]
    assert allocate([0.55, 0.58, 0.51], [10, 10, 10], 17) == [6, 6, 5]
    assert allocate([0.55, 0.55], [10, 10], 11) == [6, 5]  # equal remainders: the earlier layer


def test_allocate_says_what_cannot_be():
    with pytest.raises(ValueError, match="cannot be pruned"):
        allocate([0.5, 0.5], [4, 4], 3, [2, 2])
    with pytest.raises(ValueError, match="cannot be pruned"):
        allocate([0.5], [4], 5)


@given(networks, shares)
@example(LENET5, 0.5)
def test_erk_is_proportional_to_the_sum_over_the_product(shapes, share):
    """Density is factor * sum(dims) / prod(dims) wherever that is at most 1, and 1 elsewhere, with one factor."""
    density = [1 - s for s in erk(shapes, share)]
    raw = [sum(s) / math.prod(s) for s in shapes]
    assert all(d <= 1 + 1e-9 for d in density)
    open_ = [d / r for d, r in zip(density, raw, strict=True) if d < 1 - 1e-9]
    assume(open_)
    factor = open_[0]
    assert open_ == pytest.approx([factor] * len(open_), rel=1e-6)
    for d, r in zip(density, raw, strict=True):
        assert d == pytest.approx(min(1.0, factor * r), rel=1e-6)


def test_erk_of_lenet5():
    """By hand: at 50% the first and the last layer stay dense, and the others share what is left."""
    raw = [17 / 150, 32 / 2400, 520 / 48000, 204 / 10080, 94 / 840]
    factor = (0.5 * 61470 - 150 - 840) / (32 + 520 + 204)
    assert max(factor * raw[i] for i in (1, 2, 3)) < 1 < factor * min(raw[0], raw[4])
    assert [1 - s for s in erk(LENET5, 0.5)] == pytest.approx([1, factor * raw[1], factor * raw[2], factor * raw[3], 1])


@given(networks, shares)
@example([(300, 300), (10, 10)], 0.95)
@example([(1, 1)] * 2, 0.999)
def test_depth_rises_by_its_factors_up_to_the_cap(shapes, share):
    found, n = depth(shapes, share), len(shapes)
    factors = [0.7 + 0.6 * i / (n - 1) if n > 1 else 1.0 for i in range(n)]
    cap = max(0.95, (1 + share) / 2)
    assert all(s <= cap * (1 + 1e-12) for s in found)
    assert found == sorted(found)
    common = [s / f for s, f in zip(found, factors, strict=True) if s < cap * (1 - 1e-9)]
    assume(common)
    assert common == pytest.approx([common[0]] * len(common), rel=1e-9)
    for s, f in zip(found, factors, strict=True):
        assert s == pytest.approx(min(cap, f * common[0]), rel=1e-9)


def test_depth_of_equal_layers_without_cap():
    assert depth([(10, 10)] * 3, 0.5) == pytest.approx([0.35, 0.5, 0.65])
    assert depth([(10, 10)] * 4, 0.7) == pytest.approx([0.7 * f for f in (0.7, 0.9, 1.1, 1.3)])


def test_depth_at_the_cap():
    """The last of three equal layers would get 1.04 at 80%: it gets .95, and the rest go 7 to 10 as they would have.
    At 90% that takes the second over the cap too."""
    assert depth([(10, 10)] * 3, 0.8) == pytest.approx([1.45 * 7 / 17, 1.45 * 10 / 17, 0.95])
    assert depth([(10, 10)] * 3, 0.9) == pytest.approx([0.8, 0.95, 0.95])
    assert depth([(10, 10)] * 2, 0.96) == pytest.approx([0.94, 0.98])  # the cap is halfway from 96% to 1


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
def test_depth_of_one_layer_is_the_share(share):
    assert depth([(7, 9)], share) == [share]
