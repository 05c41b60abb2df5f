"""What is prunable, and that every event prunes exactly round(share * N) of it, by any method and distribution."""

import random

import pytest
import torch
from prune_kit import BASES, SPARSE, attach, distributions, events, prune, random_gradients, zeros
from torch import nn

from lenet5.model import LeNet5
from lib.config import InputError
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.distribution import DISTRIBUTIONS, most
from lib.prune.importance import IMPORTANCE
from lib.prune.kernel.pruner import prunable
from lib.prune.schedule import SHAPES, schedule


def test_lenet5():
    model = LeNet5()
    weights = prunable(model)
    assert sum(p.numel() for _, p in weights) == 61_470
    assert sum(p.numel() for p in model.parameters()) == 61_750
    assert [n for n, _ in weights] == ["0.weight", "4.weight", "9.weight", "11.weight", "13.weight"]
    assert all(dict(model.named_parameters())[n] is p for n, p in weights)


class Language(nn.Module):
    """A tied head, a Linear that is held twice, two Linears on one tensor, and what is never pruned."""

    def __init__(self, tied):
        super().__init__()
        self.head = nn.Linear(4, 9, bias=False)  # before the embedding it is tied to
        self.embedding, self.norm, self.batch = nn.Embedding(9, 4), nn.LayerNorm(4), nn.BatchNorm2d(3)
        if tied:
            self.head.weight = self.embedding.weight
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.c = nn.Linear(4, 4)
        self.c.weight = self.a.weight
        self.conv, self.line = nn.Conv2d(3, 2, 3), nn.Conv1d(3, 2, 3)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_shared_weights(tied):
    names = [n for n, _ in prunable(Language(tied))]
    assert names == ["head.weight"] * (not tied) + ["a.weight", "conv.weight"]


def test_a_model_that_is_one_layer():
    assert [n for n, _ in prunable(nn.Linear(2, 2))] == ["weight"]


# --- exact, whatever is drawn


def random_model(r):
    """A few layers that are never run: pruning sees weights and gradients only."""
    layers = []
    for _ in range(r.randint(1, 4)):
        if r.random() < 0.5:
            layers.append(nn.Linear(r.randint(1, 12), r.randint(1, 12), bias=r.random() < 0.5))
        else:
            layers.append(nn.Conv2d(r.randint(1, 6), r.randint(1, 6), r.randint(1, 3)))
        if r.random() < 0.3:
            layers.append(nn.BatchNorm2d(3))
    model = nn.Sequential(*layers)
    return model.to(memory_format=torch.channels_last) if r.random() < 0.3 else model


def random_plan(r, weights, method, variant):
    """(target, what the plan says), such as the matrix would let through."""
    sizes = [p.numel() for _, p in weights]
    pattern = r.choice([(1, 2), (1, 4), (2, 4), (4, 8)])
    name = r.choice(distributions(method, variant) or list(DISTRIBUTIONS))
    target = r.choice([0.5, 0.7, 0.9, r.uniform(0.01, 0.99)])
    if name == "nm":
        if any(p.shape[1] % pattern[1] == 0 for _, p in weights):
            return 1 - pattern[0] / pattern[1], {"distribution": name, "pattern": pattern}
        name = "global"
    if round(target * sum(sizes)) == sum(sizes):  # nothing would be left, and no score to prune the rest by
        target = 0.5
    floor = r.choice([0.0, r.uniform(0, 1 - target)]) if name != "depth" else 0.0
    if round(target * sum(sizes)) > sum(most(n, floor) for n in sizes):
        floor = 0.0
    return target, {"distribution": name, "floor": floor}


def one_random_run(build, seed):
    r = random.Random(seed)
    torch.manual_seed(seed)
    model = random_model(r)
    method = r.choice(SPARSE)
    record = PRUNERS[method]
    variant = r.choice(IMPORTANCE.names()) if record.has_variant else ""
    name = r.choice(sorted(record.pairs_with or set(OPTIMIZERS.names()) - {"adamwprune"}))
    base = r.choice(BASES) if OPTIMIZERS[name].has_base else ""
    target, plan = random_plan(r, prunable(model), method, variant)
    total = r.randint(1, 40)
    when = schedule(PruningOptions(pruning_schedule=r.choice(list(SHAPES))), target, total, own=record.schedule)
    told = f"seed {seed}: {name} {base} {method} {variant} {plan} {target} in {total} steps"
    optimizer = build(name, model, base=base, spam_delta_t=7, spam_warmup=3)
    pruner, rows = attach(method, model, optimizer, when, variant=variant, seed=seed, **plan)
    n = pruner.total
    gone = {k: torch.zeros_like(v) for k, v in pruner.keep.items()}
    g = torch.Generator().manual_seed(seed)
    for t in range(1, total + 1):
        random_gradients(model, g, 0.1)
        optimizer.step()
        keep = pruner.keep
        assert pruner.count() == round(when.asked(t) * n) == sum(int((~k).sum()) for k in keep.values()), f"{told}: {t}"
        for k, p in pruner.weights:
            assert not p[~keep[k]].any(), f"{told}: step {t}"
            if not record.reversible:
                assert not (gone[k] & keep[k]).any(), f"{told}: step {t}"
                gone[k] |= ~keep[k]
            assert int(keep[k].sum()) >= plan.get("floor", 0) * p.numel() - 1e-9, f"{told}: step {t}"
    assert zeros(pruner) == pruner.count() == round(target * n), told
    assert len(rows) == len(when.events) and rows[-1]["pruned"] == round(target * n), told
    assert pruner.finished


@pytest.mark.slow
def test_200_random_networks_end_exactly_at_their_target(build):
    for seed in range(200):
        one_random_run(build, seed)


@pytest.mark.slow
def test_1000_random_networks_end_exactly_at_their_target(build):
    for seed in range(200, 1200):
        one_random_run(build, seed)


# --- where the weights are taken


def three_layers(small=1e-6):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20), nn.Linear(20, 3))
    with torch.no_grad():
        model[0].weight *= small  # a global threshold would take nearly all of it first
    return model


@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
def test_the_distribution_is_followed(build, distribution):
    model = three_layers()
    pruner, rows = attach("magnitude", model, build("sgd", model), events((1, 0.5)), distribution=distribution)
    prune(pruner, 0.5)
    layers = list(rows[0]["layers"].values())
    if distribution == "uniform":
        assert layers == pytest.approx([0.5, 0.5, 0.5], abs=1e-3)
    elif distribution == "erk":
        assert layers[2] == 0 and layers[0] > layers[1] > 0.3
    else:
        assert layers[0] > 0.75 and layers[1] < 0.1


def test_magnitude_layerwise_takes_the_same_share_of_each_layer(build):
    model = three_layers()
    pruner, rows = attach("magnitude_layerwise", model, build("adamw", model), events((1, 0.7)))
    prune(pruner, 0.7)
    assert list(rows[0]["layers"].values()) == pytest.approx([0.7] * 3, abs=1e-2)
    for _, p in pruner.weights:
        assert p[p != 0].abs().min() > 0  # and by size: nothing larger than what stays is gone
    assert PRUNERS["magnitude_layerwise"].distributions == ("uniform",)


def masks(build, distribution="global", floor=0.0, method="magnitude", shares=(0.5,)):
    model = three_layers()
    optimizer = build("adamw", model)
    pruner, rows = attach(method, model, optimizer, events((1, 0.5)), distribution=distribution, floor=floor)
    for share in shares:
        prune(pruner, share)
    return pruner, rows


@pytest.mark.parametrize("floor", [0.05, 0.3, 0.4])
def test_no_layer_falls_under_its_floor(build, floor):
    """The first layer stops at its floor, exactly, and the others give up what it does not, the smallest first."""
    pruner, rows = masks(build, floor=floor)
    kept = [int(k.sum()) for k in pruner.keep.values()]
    assert sum(kept) == pruner.total - round(0.5 * pruner.total)
    assert all(k >= floor * n for k, n in zip(kept, pruner.sizes, strict=True))
    assert kept[0] == max(round(floor * 1200), 1200 - round(0.5 * pruner.total))
    others = torch.cat([p.detach().reshape(-1) for p in (three_layers()[1].weight, three_layers()[2].weight)]).abs()
    gone = torch.cat([~pruner.keep[n].reshape(-1) for n, _ in pruner.weights[1:]])
    assert gone.any() == (floor >= 0.3)
    assert not gone.any() or others[gone].max() < others[~gone].min()
    assert rows[0]["least_dense"] == {"layer": "0.weight", "density": pytest.approx(kept[0] / 1200)}


def test_a_floor_that_does_not_bind_changes_nothing(build):
    (plain, rows), (floored, others) = masks(build), masks(build, floor=0.01)
    assert all(torch.equal(a, b) for a, b in zip(plain.keep.values(), floored.keep.values(), strict=True))
    assert rows == others


@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
def test_a_floor_with_every_distribution_event_after_event(build, distribution):
    pruner, rows = masks(build, distribution, 0.2, shares=(0.2, 0.5, 0.7, 0.79))
    assert [r["pruned"] for r in rows] == [round(s * pruner.total) for s in (0.2, 0.5, 0.7, 0.79)]
    assert all(s <= 0.8 for r in rows for s in r["layers"].values())


def test_a_floor_that_whole_weights_cannot_keep_is_refused_before_a_run(build):
    """Half of 3 weights, twice: at most 1 + 1 may go, and 50% of 6 is 3. Said at the start, not at the last event."""
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(3, 1))
    with pytest.raises(InputError, match="PRUNING_LAYER_FLOOR"):
        attach("magnitude", model, build("adamw", model), events((1, 0.1), (2, 0.5)), floor=0.5)


@pytest.mark.parametrize("floor, size, gives", [(0.0, 7, 7), (0.5, 7, 3), (0.07, 100, 93), (0.1, 30, 27), (0.2, 5, 4)])
def test_what_a_floor_leaves_to_take(floor, size, gives):
    """0.07 * 100 is 7.000000000000001 in a computer, and 7 weights are 7% all the same."""
    assert most(size, floor) == gives
