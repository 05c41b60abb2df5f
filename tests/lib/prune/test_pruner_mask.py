"""A pruned weight stays pruned: through momentum, decay, AMSGrad, clipping, SPAM's resets and clips, and noise."""

import pytest
import torch
from prune_kit import ADAMS, BASES, REVERSIBLE, SPARSE, attach, events, optimizer_for, prune, random_gradients, zeros
from torch import nn

from lib.optim.base import OPTIMIZERS
from lib.prune.base import PruningOptions
from lib.prune.distribution import DISTRIBUTIONS
from lib.prune.schedule import schedule

STEADY = [m for m in SPARSE if m not in REVERSIBLE]


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("method", [m for m in STEADY if m != "magnitude_layerwise"])
def test_a_pruned_weight_stays_pruned_whatever_its_score(build, method, distribution):
    torch.manual_seed(0)
    model = nn.Linear(20, 10, bias=False)
    optimizer = build(optimizer_for(method), model)
    pruner, _ = attach(method, model, optimizer, events((1, 0.25), (2, 0.5)), distribution=distribution)
    random_gradients(model, torch.Generator().manual_seed(0))
    optimizer.step()
    gone = ~pruner.keep["weight"]
    assert int(gone.sum()) == 50
    # A score that would have every pruned weight back, and every kept one go.
    scores = gone.float() * 10 + torch.rand(10, 20)
    pruner.score = lambda name, p, rows: scores[rows]
    optimizer.step()
    assert pruner.count() == 100 and not (pruner.keep["weight"] & gone).any()


ARMS = [("magnitude", n, "", {}) for n in ["sgd", *ADAMS]]
ARMS += [("magnitude", "sgd", "", {"sgd_nesterov": True})]
ARMS += [("state", "adamwprune", b, {"adamwprune_amsgrad": a}) for b in BASES for a in (False, True)]
ARMS += [(m, n, "", {}) for m in REVERSIBLE for n in ("sgd", "adamwadv", "adamwspam")]


@pytest.mark.parametrize("method, name, base, options", ARMS)
def test_a_pruned_weight_is_0_after_every_step(build, method, name, base, options):
    """500 steps of gradients that do not care what is pruned; three resets, and spikes for the clips."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(12, 9))
    settings = {"lr": 0.05, "decay": 0.3, "clip": 1.0, "spam_delta_t": 160, "spam_theta": 20.0}
    optimizer = build(name, model, base=base, **settings, **options)
    own = "constant" if method in ("set", "rigl") else ""
    when = schedule(PruningOptions(), 0.7, 500, resets=OPTIMIZERS["adamwspam"].resets(lambda cls: cls(), ""), own=own)
    pruner, _ = attach(method, model, optimizer, when)
    g = torch.Generator().manual_seed(0)
    for t in range(1, 501):
        random_gradients(model, g, 10.0 if t % 50 == 0 else 0.1)
        optimizer.step()
        due = pruner.finished or pruner.plan.schedule.events[pruner.next_event - 1][0] == t
        for k, keep in (pruner.keep if due or t % 5 == 0 else {}).items():
            p = dict(pruner.weights)[k]
            state = [s for s in optimizer.state[p].values() if torch.is_tensor(s)]
            assert not p[~keep].any() and all(not s[~keep].any() for s in state), t
            assert p[keep].all() or own, t  # what has grown starts at 0
    assert zeros(pruner) == pruner.count() == round(0.7 * pruner.total) and optimizer.skipped == 0


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_where_the_mask_is(build, method, name):
    """In the state of the Adam family, unless the method takes weights back; else in a tensor."""
    if method == "state":
        name = "adamwprune"
    model = nn.Linear(20, 10)
    optimizer = build(name, model)
    pruner, _ = attach(method, model, optimizer, events((1, 0.25), (2, 0.5)))
    stored = name == "sgd" or method in REVERSIBLE
    assert list(optimizer.masks) == ([model.weight] if stored else [])
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        random_gradients(model, g)
        optimizer.step()
    state = optimizer.state[model.weight]
    if stored:
        assert torch.equal(optimizer.masks[model.weight], pruner.keep["weight"]) and "held" not in state
    else:
        v = state["exp_avg_sq"]
        assert torch.equal((model.weight == 0) & (v == 0), ~pruner.keep["weight"]) and state["held"]
        assert v[pruner.keep["weight"]].min() >= torch.finfo(torch.float32).tiny
    assert pruner.count() == 100


def test_the_gradient_of_a_pruned_weight_is_in_no_norm(build):
    """What is pruned cannot clip what is not."""
    moved = []
    for name in ("sgd", "adamw"):
        model = nn.Linear(4, 2, bias=False)
        nn.init.constant_(model.weight, 1.0)
        optimizer = build(name, model, clip=1.0, decay=0.0, **({"sgd_momentum": 0.0} if name == "sgd" else {}))
        pruner, _ = attach("magnitude", model, optimizer, events((9, 0.5)))
        prune(pruner, 0.5)
        model.weight.grad = torch.where(pruner.keep["weight"], 0.1, 1e6)
        optimizer.step()
        moved.append((1 - model.weight[pruner.keep["weight"]]).detach())
        assert not model.weight[~pruner.keep["weight"]].any()
    torch.testing.assert_close(moved[0], torch.full((4,), 1e-3), rtol=1e-4, atol=0)
    torch.testing.assert_close(moved[1], torch.full((4,), 1e-2), rtol=1e-4, atol=0)
