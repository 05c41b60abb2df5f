"""What an event records, when it is due, and what is refused."""

import pytest
import torch
from prune_kit import REVERSIBLE, SPARSE, attach, events, optimizer_for, prune, random_gradients
from torch import nn

from lib.prune.kernel.pruner import Plan, Pruner


def two_layers(build, *when, name="sgd", **plan):
    """24 weights of sizes 1 to 24."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1, 17).view(4, 4))
        model[1].weight.copy_(torch.arange(17, 25).view(2, 4))
    return attach("magnitude", model, build(name, model), events(*when), **plan)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_record_of_an_event(build, name):
    pruner, rows = two_layers(build, (1, 0.25), (2, 0.5), name=name)
    prune(pruner, 0.25)
    prune(pruner, 0.5)
    mask = rows[1].pop("mask")
    assert rows[1] == {
        "event": "prune",
        "step": 0,
        "target_sparsity": 0.5,
        "pruned": 12,
        "prunable": 24,
        "newly_pruned": 6,
        "threshold": 12.0,
        "ties": 1,
        "layers": {"0.weight": 0.75, "1.weight": 0.0},
        "least_dense": {"layer": "0.weight", "density": 0.25},
        "warnings": [],
    }
    assert mask != rows[0]["mask"] and len(mask) == 16


def test_the_digest_is_of_the_mask(build):
    found = [two_layers(build, (1, s), **plan) for s, plan in ((0.25, {}), (0.25, {"seed": 3}), (0.3, {}))]
    for (pruner, _), share in zip(found, (0.25, 0.25, 0.3), strict=True):
        prune(pruner, share)
    a, b, c = (rows[0]["mask"] for _, rows in found)
    assert a == b != c


@pytest.mark.parametrize("equal, warned", [(1, False), (10, False), (11, True), (500, True)])
def test_ties_above_one_percent_warn(build, equal, warned):
    model = nn.Linear(100, 10, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.linspace(1, 2, 1000).view(10, 100))
        model.weight.view(-1)[:equal] = 0.5
    pruner, rows = attach("magnitude", model, build("sgd", model), events((1, 0.5)))
    prune(pruner, 1 / 1000)
    assert rows[0]["ties"] == equal and bool(rows[0]["warnings"]) == warned
    # Among equals the first by position are kept.
    assert (~pruner.keep["weight"]).view(-1).nonzero().tolist() == [[equal - 1]]


def test_a_layer_that_falls_whole_is_told(build):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight *= 1e-6
    pruner, rows = attach("magnitude", model, build("sgd", model), events((1, 0.5)))
    prune(pruner, 0.5)
    assert "layer 0.weight is pruned entirely" in rows[0]["warnings"]
    assert rows[0]["least_dense"] == {"layer": "0.weight", "density": 0.0}


# --- when an event is due


def step(model, optimizer, g, bad=False):
    random_gradients(model, g)
    if bad:
        model.weight.grad[0, 0] = float("nan")
    optimizer.step()


def test_events_count_updates_and_not_calls(build):
    """Steps that are skipped put an event off: it comes after as many updates as the schedule says."""
    model = nn.Linear(10, 10)
    optimizer = build("adamw", model)
    pruner, rows = attach("magnitude", model, optimizer, events((2, 0.2), (3, 0.4), (5, 0.6)))
    g = torch.Generator().manual_seed(0)
    for t in range(1, 8):
        step(model, optimizer, g, bad=t in (2, 3, 5))
    assert (optimizer.calls, optimizer.updates) == (7, 4)
    assert [(r["step"], r["pruned"]) for r in rows] == [(4, 20), (6, 40)] and not pruner.finished
    pruner.finish()
    assert [(r["step"], r["pruned"]) for r in rows[2:]] == [(7, 60)] and pruner.finished and pruner.count() == 60
    pruner.finish()
    step(model, optimizer, g)
    assert len(rows) == 3, "what is over is over"


def test_finish_goes_to_the_target_at_once(build):
    """Of the events that are owed only the last is made up for."""
    model = nn.Linear(10, 10)
    optimizer = build("sgd", model)
    pruner, rows = attach("magnitude", model, optimizer, events((10, 0.2), (20, 0.4), (30, 0.6)))
    step(model, optimizer, torch.Generator().manual_seed(0))
    pruner.finish()
    assert [r["pruned"] for r in rows] == [60] and pruner.finished and rows[0]["target_sparsity"] == 0.6


def test_nothing_is_owed_where_all_events_were(build):
    model = nn.Linear(10, 10)
    optimizer = build("adamw", model)
    pruner, rows = attach("magnitude", model, optimizer, events((1, 0.6)))
    step(model, optimizer, torch.Generator().manual_seed(0))
    pruner.finish()
    assert len(rows) == 1


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_dynamic_sparsity_owes_nothing(build, method):
    model = nn.Linear(10, 10)
    pruner, rows = attach(method, model, build("adamw", model), events((0, 0.6), (5, 0.6)))
    assert pruner.count() == 60 and not pruner.finished
    before = pruner.keep["weight"]
    pruner.finish()
    assert pruner.finished and len(rows) == 1 and torch.equal(pruner.keep["weight"], before)


# --- what is refused


@pytest.mark.parametrize("method", ["state", "movement", "displacement"])
def test_scores_that_are_all_zero_raise(build, method):
    model = nn.Linear(5, 5)
    pruner, _ = attach(method, model, build(optimizer_for(method), model), events((1, 0.5)))
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match="every pruning score is 0"):
        prune(pruner, 0.5)
    assert pruner.keep["weight"].all() and torch.equal(model.weight, before)


@pytest.mark.parametrize("distribution", ["global", "uniform", "nm"])
def test_a_score_that_is_not_a_number_raises(build, distribution):
    """In an N:M pattern too, where what is high is spared: a NaN is not high."""
    model = nn.Linear(4, 5)
    optimizer = build("adamwprune", model)
    pruner, _ = attach("state", model, optimizer, events((1, 0.5)), distribution=distribution)
    optimizer.state[model.weight]["exp_avg_sq"].fill_(1.0)[2, 2] = float("nan")
    with pytest.raises(ValueError, match="not a number"):
        prune(pruner, 0.5)


def test_a_pruner_without_a_score_is_none():
    with pytest.raises(NotImplementedError):
        Pruner([], Plan(events((1, 0.5)))).score("", None, None)


def test_which_methods_take_weights_back():
    assert REVERSIBLE == ["movement", "rigl", "set"] and len(SPARSE) == 9
