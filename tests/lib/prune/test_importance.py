"""Every registered score in float32 against its formula in float64, where small moments lie and where they are 0.

A score that is not in FORMULAS, a newcomer, is held to its own function in float64.
"""

import numpy as np
import pytest
import torch

from lib.prune.importance import IMPORTANCE, State

BETA1, STEP = 0.9, 7


def over_root(x, v):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(v > 0, x / np.sqrt(v), 0.0)


def bitter3(w, m, v, live):
    return np.abs(w) * np.sqrt(np.abs(m))


def bitter5(w, m, v, live):
    return over_root(np.sign(w) * m, v) + 0.1 * np.abs(w)


FORMULAS = {
    "bitter0": lambda w, m, v, live: np.abs(w * m) * over_root(np.abs(w), v),
    "bitter1": lambda w, m, v, live: np.abs(w),
    "bitter2": lambda w, m, v, live: np.abs(w) / np.sqrt((w**2).sum() / live),
    "bitter3": bitter3,
    "bitter4": bitter3,
    "bitter5": bitter5,
    "bitter5_away": lambda w, m, v, live: 0.1 * np.abs(w) - over_root(np.sign(w) * m, v),
    "bitter6": lambda w, m, v, live: bitter3(w, m, v, live) * over_root(np.abs(m), v),
    "bitter7": lambda w, m, v, live: np.abs(w) * v**0.25,
    "bitter8": lambda w, m, v, live: np.abs(w) * np.sqrt(np.abs(m / (1 - BETA1**STEP))),
    "bitter9": lambda w, m, v, live: bitter3(w, m, v, live) + 0.1 * over_root(np.sign(w) * m, v),
    "bitter9_away": lambda w, m, v, live: bitter3(w, m, v, live) - 0.1 * over_root(np.sign(w) * m, v),
    "fisher": lambda w, m, v, live: np.abs(w) * np.sqrt(v),
}
SCORES = IMPORTANCE.names()


def formula(name, w, m, v, live):
    """The score in float64: written out a second time, or a newcomer's own."""
    if name in FORMULAS:
        return FORMULAS[name](*(x.astype(np.float64) for x in (w, m, v)), live)
    return score64(name, w, m, v, live)


def score64(name, w, m, v, live):
    w, m, v = (torch.from_numpy(x.astype(np.float64)) for x in (w, m, v))
    rms = (w.square().sum() / max(1, live)).sqrt()
    return IMPORTANCE[name].score(w, State(m, v, STEP, BETA1, rms)).numpy()


def tensors(kind, seed=0, shape=(8, 3, 5, 5)):
    """w of both signs, m and v; in `tiny` v lies where an eps of 1e-8 or half precision would swallow it."""
    r = np.random.default_rng(seed)
    w = r.normal(size=shape) * 0.05
    if kind == "tiny":
        v = 10 ** r.uniform(-20, -12, shape)
    else:
        v = 10 ** r.uniform(-8, 1, shape)
    m = r.normal(size=shape) * np.sqrt(v) * 0.5
    if kind == "zeros":
        w[r.random(shape) < 0.2] = 0
        m[r.random(shape) < 0.2] = 0
        v[r.random(shape) < 0.2] = 0
    return [x.astype(np.float32) for x in (w, m, v)]


def ours(name, w, m, v, live):
    w, m, v = map(torch.from_numpy, (w, m, v))
    before = [x.clone() for x in (w, m, v)]
    rms = (w.double().square().sum() / max(1, live)).sqrt().float()
    score = IMPORTANCE[name].score(w, State(m, v, STEP, BETA1, rms))
    assert all(torch.equal(a, b) for a, b in zip((w, m, v), before, strict=True)), "a score is a pure function"
    assert score.dtype == torch.float32 and score.shape == w.shape
    return score.numpy()


def test_every_formula_is_of_a_score():
    assert FORMULAS.keys() <= set(SCORES)


@pytest.mark.parametrize("kind", ["plain", "zeros", "tiny"])
@pytest.mark.parametrize("name", SCORES)
def test_formula(name, kind):
    for seed in range(3):
        w, m, v = tensors(kind, seed)
        live = int((w != 0).sum())
        want = formula(name, w, m, v, live)
        # Sums of terms of both signs lose digits of the larger one; products keep theirs.
        atol = 1e-6 * np.abs(want).max() if name[:7] in ("bitter5", "bitter9") else 0
        np.testing.assert_allclose(ours(name, w, m, v, live), want, rtol=2e-6, atol=atol)


@pytest.mark.parametrize("name", FORMULAS)
def test_tiny_moments_still_rank(name):
    """With w and m / sqrt(v) equal everywhere, what depends on the size of m and v must go by it, down to 1e-20."""
    v = np.logspace(-20, -12, 200).astype(np.float32)
    m, w = np.sqrt(v) * 0.5, np.full_like(v, -0.01)
    score = ours(name, w, m, v, 200)
    if name in ("bitter0", "bitter1", "bitter2", "bitter5", "bitter5_away"):
        assert np.allclose(score, score[0], rtol=1e-4)
    elif name in ("bitter9", "bitter9_away"):  # sqrt(|m|) is far below the direction term, but not lost
        assert np.unique(score).size > 50
    else:
        assert (np.diff(score) > 0).all()


@pytest.mark.parametrize(("name", "moment"), [(n, moment) for n in SCORES for moment in sorted(IMPORTANCE[n].needs)])
def test_a_tiny_moment_tells_weights_apart(name, moment):
    """Where moments lie with clipped gradients: an eps under a root, or half precision, would make all scores one."""
    w, m, v = np.full(200, 0.01, np.float32), np.full(200, 1e-8, np.float32), np.full(200, 1e-16, np.float32)
    if moment == "exp_avg":
        m = np.logspace(-10, -6, 200).astype(np.float32)
    else:
        v = np.logspace(-20, -12, 200).astype(np.float32)
    assert np.unique(ours(name, w, m, v, 200)).size > 100


@pytest.mark.parametrize("name", SCORES)
def test_all_zero_moments_are_finite(name):
    zero, w = np.zeros((4, 4), np.float32), np.full((4, 4), -0.5, np.float32)
    np.testing.assert_allclose(ours(name, w, zero, zero, 16), formula(name, w, zero, zero, 16), rtol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_moments_with_a_zero_second_moment(name):
    """A first moment may outlive its second: v underflows first. The quotient is 0, not infinity."""
    w, m, v = (np.full((2, 2), x, np.float32) for x in (0.5, 1e-30, 0.0))
    assert np.isfinite(ours(name, w, m, v, 4)).all()
    assert (ours("bitter0", w, m, v, 4) == 0).all() and (ours("bitter6", w, m, v, 4) == 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_a_pruned_weight_adds_nothing(name):
    """An all-zero weight tensor gives no NaN (bitter2 divides by its rms)."""
    zero = np.zeros((4, 4), np.float32)
    score = ours(name, zero, zero, zero, 0)
    assert np.isfinite(score).all() and (name not in FORMULAS or (score == 0).all())


def test_bitter3_and_bitter8_rank_alike():
    for kind in ("plain", "zeros", "tiny"):
        w, m, v = tensors(kind)
        a, b = (ours(n, w, m, v, w.size).ravel().astype(np.float64) for n in ("bitter3", "bitter8"))
        order = np.argsort(a, kind="stable")
        # Rounding may tie or swap neighbours an ulp apart; nothing more.
        assert (np.diff(b[order]) >= -1e-6 * b[order][1:]).all()


@pytest.mark.parametrize("pair", ["bitter5", "bitter9"])
def test_the_direction_is_reversed_in_away(pair):
    """Adam steps along -m: with w > 0 and m > 0 a weight moves towards 0. As published it is kept, _away drops it."""
    w = np.array([0.1, 0.1, -0.1, -0.1], np.float32)
    m = np.array([1e-3, -1e-3, -1e-3, 1e-3], np.float32)  # towards, away, towards, away
    v = np.full(4, 1e-4, np.float32)
    towards, away = [0, 2], [1, 3]
    published, reversed_ = ours(pair, w, m, v, 4), ours(f"{pair}_away", w, m, v, 4)
    assert published[towards].min() > published[away].max()
    assert reversed_[away].min() > reversed_[towards].max()


def test_bitter2_is_over_the_live_weights():
    """Pruning half of a tensor does not make the rest of it look larger beside other tensors."""
    w = np.array([3.0, -4.0, 0.0, 0.0], np.float32)
    zero = np.zeros(4, np.float32)
    np.testing.assert_allclose(ours("bitter2", w, zero, zero, 2), np.abs(w) / np.sqrt(12.5), rtol=1e-6)


def test_needs_are_what_is_read():
    """A score whose needs leave out a moment must not change with it, and the others must."""
    w, m, v = tensors("plain")
    other = tensors("plain", seed=9)
    for name in SCORES:
        base = ours(name, w, m, v, w.size)
        reads = set()
        if not np.array_equal(base, ours(name, w, other[1], v, w.size)):
            reads.add("exp_avg")
        if not np.array_equal(base, ours(name, w, m, other[2], w.size)):
            reads.add("exp_avg_sq")
        assert IMPORTANCE[name].needs == reads, name


def test_only_bitter4_brings_its_distribution():
    assert {n: IMPORTANCE[n].distribution for n in FORMULAS if IMPORTANCE[n].distribution} == {"bitter4": "depth"}
