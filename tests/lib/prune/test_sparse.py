"""SET and RigL: sparse from step 0 by ERK, as many in each layer at every step, and who drops and who grows."""

import math

import pytest
import torch
from prune_kit import Session, attach, digest, events, lowest, random_gradients
from torch import nn

from lib.prune.distribution import allocate, erk
from lib.prune.kernel import mask

METHODS = ["set", "rigl"]
OPTIMIZERS = ["sgd", "adamw", "adamwadv", "adamwspam"]


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20), nn.Conv2d(4, 8, 3))


def counts(pruner):
    return [int((~k).sum()) for k in pruner.keep.values()]


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_each_layer_is_as_sparse_at_every_step_as_at_step_0(build, method, name, distribution):
    session = Session(build, method, name, distribution=distribution)
    pruner = session.pruner
    shapes = [tuple(p.shape) for _, p in pruner.weights]
    sizes = [math.prod(s) for s in shapes]
    shares = erk(shapes, 0.8) if distribution == "erk" else [0.8] * len(shapes)
    want = allocate(shares, sizes, round(0.8 * sum(sizes)))
    assert counts(pruner) == want and session.rows[0]["step"] == 0
    assert all(not p[~pruner.keep[n]].any() for n, p in pruner.weights)
    masks = {digest(pruner)}
    for t in range(1, 91):
        session.train(t, t)
        masks.add(digest(pruner))
        assert counts(pruner) == want
        assert all(not p[~pruner.keep[n]].any() for n, p in pruner.weights)
    assert len(masks) > 5, "it moves"
    assert [r["pruned"] for r in session.rows] == [sum(want)] * len(session.rows) and pruner.finished


@pytest.mark.parametrize("method", METHODS)
def test_the_start_is_random_by_the_seed(build, method):
    def start(seed, scale=1.0):
        model = layers()
        with torch.no_grad():
            model[0].weight *= scale
        return digest(attach(method, model, build("sgd", model), events((0, 0.7), (9, 0.7)), seed=seed)[0])

    assert start(1) == start(1) == start(1, scale=1e-3) != start(2)


@pytest.mark.parametrize("method", METHODS)
def test_how_many_drop_follows_half_a_cosine(build, method):
    """0.3 (1 + cos(pi t / T)) / 2 of the live weights of each layer, T the end of the ramp; none at the end."""
    model = layers()
    optimizer = build("adamw", model)
    pruner, rows = attach(method, model, optimizer, events(*((t, 0.6) for t in range(0, 41, 5))), drop=0.3)
    live = [int(k.sum()) for k in pruner.keep.values()]
    g, told = torch.Generator().manual_seed(0), []
    for _ in range(40):
        random_gradients(model, g)
        optimizer.step()
    for t in range(5, 41, 5):
        told.append(sum(round(0.3 * (1 + math.cos(math.pi * t / 40)) / 2 * n) for n in live))
    assert [r["dropped"] for r in rows] == [0, *told] and told[-1] == 0 < told[-2] and told[0] > 0.28 * sum(live)


class Plain:
    """RigL as its paper has it (Evci et al. 2020, algorithm 1), on whole tensors."""

    def __init__(self, pruner):
        self.keep = {n: k.clone() for n, k in pruner.keep.items()}

    def event(self, weights, gradients, fraction):
        """The masks, and the values that the weights must have."""
        values = {}
        for n, w in weights.items():
            keep, live = self.keep[n], int(self.keep[n].sum())
            drop = round(fraction * live)
            size = w.abs().masked_fill(~keep, -math.inf)
            (out,) = lowest([size], keep.numel() - live + drop)
            growth = gradients[n].abs().masked_fill(~out, math.inf)
            (gone,) = lowest([growth], keep.numel() - live)
            values[n] = torch.where(gone | ~keep, 0.0, w)
            self.keep[n] = ~gone
        return values


@pytest.mark.parametrize("chunk", [mask.CHUNK, 50])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rigl_against_plain_code(build, monkeypatch, name, chunk):
    """Eight events: the same masks, the values of those that were dropped and came back at once, 0 for those that are
    new, and no optimizer state for these or for what is gone."""
    monkeypatch.setattr(mask, "CHUNK", chunk)
    model = layers()
    optimizer = build(name, model, lr=0.05)
    pruner, rows = attach("rigl", model, optimizer, events(*((t, 0.6) for t in range(0, 41, 5))), seed=3)
    plain, seen, again, grown = Plain(pruner), {}, 0, 0
    optimizer.on_updated.insert(0, lambda: seen.update({n: p.detach().clone() for n, p in pruner.weights}))
    g = torch.Generator().manual_seed(0)
    for t in range(1, 41):
        random_gradients(model, g)
        dense = {n: p.grad.clone() for n, p in pruner.weights}
        optimizer.step()
        if t % 5:
            continue
        before = {n: k.clone() for n, k in plain.keep.items()}
        values = plain.event(seen, dense, 0.3 * (1 + math.cos(math.pi * t / 40)) / 2)
        moved = 0
        for n, p in pruner.weights:
            keep, new = pruner.keep[n], pruner.keep[n] & ~before[n]
            assert torch.equal(keep, plain.keep[n]) and torch.equal(p, values[n]), t
            state = [s for s in optimizer.state[p].values() if torch.is_tensor(s)]
            assert all(not s[new | ~keep].any() for s in state) and any(s[keep & ~new].any() for s in state)
            moved += int(new.sum())
        again, grown = again + rows[-1]["dropped"] - moved, grown + moved
        assert pruner.gradients == {}
    assert grown > 100 and again > 0, "some that were dropped grew at once, and most were new"


def test_set_grows_at_random_anew_each_time(build):
    """By the seed and the event, not by gradient or weight; and what it drops is the smallest."""
    grown = []
    for seed, size in ((1, 1.0), (1, 100.0), (2, 1.0)):
        model = layers()
        optimizer = build("sgd", model, sgd_momentum=0.0, decay=0.0, lr=0.0)
        pruner, _ = attach("set", model, optimizer, events((0, 0.6), (1, 0.6), (2, 0.6), (9, 0.6)), seed=seed)
        random_gradients(model, torch.Generator().manual_seed(0), size)
        news = []
        for _ in range(2):
            before = {n: k.clone() for n, k in pruner.keep.items()}
            weights = {n: p.detach().clone() for n, p in pruner.weights}
            optimizer.step()
            news.append({n: k & ~before[n] for n, k in pruner.keep.items()})
            for n, k in pruner.keep.items():
                out = before[n] & ~k
                stays = before[n] & k & (weights[n] != 0)
                drop = weights[n].abs()[before[n]].sort().values[: max(1, round(0.3 * int(before[n].sum())))]
                assert not out.any() or weights[n].abs()[out].max() <= drop.max() and stays.any()
        grown.append(news)
    assert all(torch.equal(grown[0][e][n], grown[1][e][n]) for e in (0, 1) for n in grown[0][e])
    assert any(not torch.equal(grown[0][0][n], grown[2][0][n]) for n in grown[0][0])
    assert any(not torch.equal(grown[0][0][n], grown[0][1][n]) for n in grown[0][0])


def test_rigl_holds_no_gradient_between_events(build):
    model = layers()
    optimizer = build("adamw", model)
    pruner, _ = attach("rigl", model, optimizer, events((0, 0.6), (3, 0.6), (6, 0.6)))
    g, held = torch.Generator().manual_seed(0), []
    optimizer.on_updated.insert(0, lambda: held.append(len(pruner.gradients)))
    for _ in range(8):
        random_gradients(model, g)
        optimizer.step()
        assert pruner.gradients == {}
    assert held == [0, 0, 3, 0, 0, 3, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_a_skipped_step_drops_nothing(build, method):
    model = layers()
    optimizer = build("adamw", model)
    pruner, rows = attach(method, model, optimizer, events((0, 0.6), (1, 0.6), (6, 0.6)))
    before, g = digest(pruner), torch.Generator().manual_seed(0)
    random_gradients(model, g)
    model[0].weight.grad[0, 0] = float("inf")
    optimizer.step()
    assert digest(pruner) == before and len(rows) == 1
    assert method == "set" or pruner.gradients == {}
    random_gradients(model, g)
    optimizer.step()
    assert digest(pruner) != before and len(rows) == 2


def test_a_layer_without_a_gradient_keeps_its_share(build):
    """What is not used has no gradient to go by: position decides, and the count is that of every other event."""
    model = layers()
    optimizer = build("adamw", model)
    pruner, rows = attach("rigl", model, optimizer, events((0, 0.6), (1, 0.6), (9, 0.6)))
    before = counts(pruner)
    random_gradients(model, torch.Generator().manual_seed(0))
    model[1].weight.grad = None
    optimizer.step()
    assert len(rows) == 2 and counts(pruner) == before
