"""Weights, moments and scores that are not finite: what is pruned is 0 all the same, and whoever trains is told."""

import math

import pytest
import torch
from prune_kit import attach, events, pairs, prune, random_gradients
from torch import nn

from lib.prune.base import NotFinite

BAD = [math.inf, -math.inf, math.nan]


def made(build, method, name, base, *when):
    """A layer that has trained for two steps, and its pruner, whose events come when they are asked for."""
    torch.manual_seed(0)
    model = nn.Linear(16, 8, bias=False)
    optimizer = build(name, model, base=base)
    pruner, rows = attach(method, model, optimizer, events(*((10**6 + i, s) for i, s in enumerate(when))))
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        random_gradients(model, g)
        optimizer.step()
    return model.weight, optimizer, pruner, rows


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("method, name, base", pairs())
def test_what_is_pruned_is_0(build, method, name, base, bad):
    w, optimizer, pruner, rows = made(build, method, name, base, 0.25)
    before = w.detach().clone()
    pruner.next_event = 1  # for set and rigl the one that makes the network sparse
    w.data[0, :] = bad
    tensors = [t for t in optimizer.state[w].values() if torch.is_tensor(t)]
    for t in tensors:
        t[0, :8] = bad
    order = torch.arange(128.0).view(8, 16)
    order[1] -= 10**4  # what goes: the second row, and the first
    order[0, 8:] += 10**4  # but for its end, which stays as it is
    order[2, :8] -= 10**3
    pruner.score = lambda name, p, rows: order[rows]
    prune(pruner, 0.25)
    gone = torch.zeros_like(w, dtype=torch.bool)
    gone[0, :8], gone[1], gone[2, :8] = True, True, True
    assert torch.equal(pruner.keep["weight"], ~gone) and pruner.count() == rows[-1]["pruned"] == 32
    assert not w[gone].any() and all(not t[gone].any() for t in tensors)
    assert torch.equal(w[1:][~gone[1:]], before[1:][~gone[1:]]) and not w[0, 8:].isfinite().any()
    assert pruner.not_finite == 16 and "16 of 128 weights were not finite" in rows[-1]["warnings"]
    w.data[0, 8:] = 1.0
    prune(pruner, 0.25)
    assert pruner.not_finite == 0 and not any("finite" in text for text in rows[-1]["warnings"])


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("method, name", [("magnitude", "sgd"), ("magnitude", "adamw"), ("displacement", "sgd")])
def test_what_is_pruned_may_have_any_score(build, method, name, bad):
    """1 / |w| of a weight of 0, say: it stays pruned, and counts as the lowest."""
    w, optimizer, pruner, _ = made(build, method, name, "", 0.25, 0.5)
    prune(pruner, 0.25)
    gone = ~pruner.keep["weight"]
    pruner.score = lambda name, p, rows: torch.where(gone[rows], bad, p.detach()[rows].abs())
    prune(pruner, 0.5)
    assert pruner.count() == 64 and not (gone & pruner.keep["weight"]).any()


@pytest.mark.parametrize("where", ["weight", "state", "neither"])
def test_scores_that_are_no_numbers(build, where):
    """Of what is finite they are a fault of the method; else training has diverged."""
    w, optimizer, pruner, _ = made(build, "state", "adamwprune", "adamw", 0.25)
    {"weight": w.data, "state": optimizer.state[w]["exp_avg_sq"], "neither": torch.zeros(1, 1)}[where][0, 0] = math.nan
    pruner.score = lambda name, p, rows: torch.full_like(p[rows], math.nan)
    with pytest.raises(ValueError, match="a pruning score is not a number") as e:
        prune(pruner, 0.25)
    assert isinstance(e.value, NotFinite) == (where != "neither")


@pytest.mark.parametrize("method, name, base", pairs(("sgd", "adamw")))
def test_float64_weights_are_pruned(build, method, name, base):
    torch.manual_seed(0)
    model = nn.Linear(16, 8, bias=False).double()
    optimizer = build(name, model, base=base)
    pruner, rows = attach(method, model, optimizer, events((1, 0.25), (3, 0.5)))
    g = torch.Generator().manual_seed(0)
    for _ in range(5):
        random_gradients(model, g)
        optimizer.step()
        assert not model.weight[~pruner.keep["weight"]].any()
    assert pruner.count() == rows[-1]["pruned"] == 64 and model.weight.dtype == torch.float64
