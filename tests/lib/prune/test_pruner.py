"""The mechanism behind every method: exact sparsity, masks that stay, memory as declared, saving and loading."""

import io
import math
import random

import pytest
import torch
from torch import nn

from lenet5.model import LeNet5
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.distribution import DISTRIBUTIONS
from lib.prune.importance import IMPORTANCE
from lib.prune.kernel.pruner import Plan, Pruner, prunable
from lib.prune.schedule import SHAPES, Schedule, schedule

SPARSE = [m for m in PRUNERS.names() if PRUNERS[m].sparse]
BASES = ["adam", "adamw", "adamwadv", "adamwspam"]


def events(*given):
    return Schedule(tuple(given), 0, given[-1][0], 1, target=given[-1][1])


def attach(method, model, optimizer, when, **plan):
    weights, rows = prunable(model), []
    pruner = PRUNERS[method].build(weights, Plan(when, record=rows.append, **plan))
    pruner.attach(optimizer)
    return pruner, rows


@torch.no_grad()
def prune(pruner, share):
    """An event without a step."""
    pruner.event(share)


def random_gradients(model, generator, size=1.0):
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * size


def zeros(pruner):
    return sum(int((p == 0).sum()) for _, p in pruner.weights)


# --- what is prunable


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


# --- exact sparsity


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


def one_random_run(build, seed):
    r = random.Random(seed)
    torch.manual_seed(seed)
    model = random_model(r)
    n = sum(p.numel() for _, p in prunable(model))
    target = r.choice([0.5, 0.7, 0.9, r.uniform(0.01, 0.99)])
    if round(target * n) == n:  # nothing would be left, and no score to prune the rest by
        target = 0.5
    method = r.choice(SPARSE)
    variant = r.choice(IMPORTANCE.names()) if PRUNERS[method].has_variant else ""
    name = r.choice(sorted(PRUNERS[method].pairs_with or set(OPTIMIZERS.names()) - {"adamwprune"}))
    base = r.choice(BASES) if OPTIMIZERS[name].has_base else ""
    optimizer = build(name, model, base=base, spam_delta_t=7, spam_warmup=3)
    distribution = r.choice(list(DISTRIBUTIONS))
    total = r.randint(1, 40)
    when = schedule(PruningOptions(pruning_schedule=r.choice(list(SHAPES))), target, total)
    pruner, rows = attach(method, model, optimizer, when, variant=variant, distribution=distribution)
    told = f"seed {seed}: {name} {base} {method} {variant} {distribution} {target} of {n} in {total} steps"
    gone = {k: torch.zeros_like(v) for k, v in pruner.keep.items()}
    g = torch.Generator().manual_seed(seed)
    for t in range(1, total + 1):
        random_gradients(model, g, 0.1)
        optimizer.step()
        assert pruner.count() == round(when.asked(t) * n), f"{told}: step {t}"
        for k, p in pruner.weights:
            assert not p[~pruner.keep[k]].any(), f"{told}: step {t}"
            if method != "movement":
                assert pruner.keep[k].logical_not().logical_and(gone[k]).equal(gone[k]), f"{told}: step {t}"
                gone[k] |= ~pruner.keep[k]
    assert zeros(pruner) == pruner.count() == round(target * n), told
    assert len(rows) == len(when.events) and rows[-1]["pruned"] == round(target * n), told
    assert pruner.finished


def test_200_random_networks_end_exactly_at_their_target(build):
    for seed in range(200):
        one_random_run(build, seed)


@pytest.mark.slow
def test_1000_random_networks_end_exactly_at_their_target(build):
    for seed in range(200, 1200):
        one_random_run(build, seed)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_distribution_is_followed(build, distribution):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20), nn.Linear(20, 3))
    with torch.no_grad():
        model[0].weight *= 0.01  # a global threshold would take nearly all of it first
    pruner, rows = attach("magnitude", model, build("sgd", model), events((1, 0.5)), distribution=distribution)
    prune(pruner, 0.5)
    layers = list(rows[0]["layers"].values())
    if distribution == "uniform":
        assert layers == pytest.approx([0.5, 0.5, 0.5], abs=1e-3)
    elif distribution == "erk":
        assert layers[2] == 0 and layers[0] > layers[1] > 0.3
    else:
        assert layers[0] > 0.75 and layers[1] < 0.1


def test_bitter4_rises_with_depth(build):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(20, 20) for _ in range(4)))
    optimizer = build("adamwprune", model)
    pruner, rows = attach("state", model, optimizer, events((1, 0.7)), variant="bitter4")
    random_gradients(model, torch.Generator().manual_seed(0))
    optimizer.step()
    assert list(rows[0]["layers"].values()) == pytest.approx([0.7 * f for f in (0.7, 0.9, 1.1, 1.3)], abs=2e-3)


def test_no_variant_is_bitter7(build):
    masks = []
    for variant in ("", "bitter7"):
        torch.manual_seed(0)
        model = nn.Linear(30, 30)
        optimizer = build("adamwprune", model)
        pruner, _ = attach("state", model, optimizer, events((3, 0.7)), variant=variant)
        g = torch.Generator().manual_seed(0)
        for _ in range(3):
            random_gradients(model, g)
            optimizer.step()
        masks.append(pruner.keep["weight"])
        state = optimizer.state[model.weight]
        assert not state["exp_avg_sq"][~masks[-1]].any() and state["exp_avg_sq"][masks[-1]].all()
    assert torch.equal(*masks)


@pytest.mark.parametrize("variant", IMPORTANCE.names())
def test_state_prunes_the_lowest_scores(build, variant):
    """The mask is that of the score on the moments as they are after the step's update, at that step's count."""
    torch.manual_seed(0)
    model = nn.Linear(30, 20, bias=False)
    optimizer = build("adamwprune", model)
    pruner, _ = attach("state", model, optimizer, events((4, 0.6)), variant=variant)
    seen = []

    def moments():
        from lib.prune.importance import State

        s = optimizer.state[model.weight]
        state = State(s["exp_avg"].clone(), s["exp_avg_sq"].clone(), optimizer.param_groups[0]["step"], 0.9, 600)
        seen.append(IMPORTANCE[variant].score(model.weight.detach().clone(), state))

    optimizer.on_updated.insert(0, moments)
    g = torch.Generator().manual_seed(0)
    for _ in range(4):
        random_gradients(model, g)
        optimizer.step()
    assert torch.equal(~pruner.keep["weight"], seen[-1] <= seen[-1].flatten().kthvalue(360).values)


def test_bitter2_counts_the_live_weights_of_each_layer(build):
    """The second event goes by the root mean square over what the first has left, layer by layer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 10, bias=False))
    with torch.no_grad():
        model[0].weight.pow_(3)  # many small weights: the first event takes most of this layer
    optimizer = build("adamwprune", model)
    pruner, rows = attach("state", model, optimizer, events((1, 0.5), (2, 0.7)), variant="bitter2")
    prune(pruner, 0.5)
    assert rows[0]["layers"]["0.weight"] > rows[0]["layers"]["1.weight"] + 0.1
    live = [w.detach()[w != 0] for w in (model[0].weight, model[1].weight)]
    scores = torch.cat([w.abs() / w.square().mean().sqrt() for w in live])
    least = scores.kthvalue(240).values
    prune(pruner, 0.7)
    left = [int((w.abs() / w.square().mean().sqrt() > least).sum()) for w in live]
    assert [int(k.sum()) for k in pruner.keep.values()] == left


# --- a pruned weight stays


@pytest.mark.parametrize("method", [m for m in SPARSE if m != "movement"])
def test_a_pruned_weight_stays_pruned_whatever_its_score(build, method):
    torch.manual_seed(0)
    model = nn.Linear(20, 10, bias=False)
    optimizer = build("adamwprune" if method == "state" else "adamw", model)
    pruner, _ = attach(method, model, optimizer, events((1, 0.3), (2, 0.6)))
    random_gradients(model, torch.Generator().manual_seed(0))
    optimizer.step()
    gone = ~pruner.keep["weight"]
    # A score that would have every pruned weight back, and every kept one go.
    pruner.score = lambda name, p, optimizer: gone.float() * 10 + torch.rand(p.shape)
    optimizer.step()
    assert pruner.count() == 120 and not (pruner.keep["weight"] & gone).any()


ARMS = [("magnitude", n, "") for n in ("sgd", "adam", "adamw", "adamwadv", "adamwspam")]
ARMS += [("state", "adamwprune", b) for b in BASES] + [("movement", n, "") for n in ("sgd", "adamwadv", "adamwspam")]


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("method, name, base", ARMS)
def test_a_pruned_weight_is_0_after_every_step(build, method, name, base, amsgrad):
    """500 steps of momentum, decay, AMSGrad, clipping, resets and gradients that do not care what is pruned."""
    if amsgrad and not base:
        options = {"sgd_nesterov": True}
    else:
        options = {"adamwprune_amsgrad": amsgrad}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(12, 9))
    optimizer = build(
        name, model, base=base, lr=0.05, decay=0.3, clip=1.0, spam_delta_t=160, spam_theta=20.0, **options
    )
    when = schedule(PruningOptions(), 0.7, 500, resets=OPTIMIZERS["adamwspam"].resets(lambda cls: cls(), ""))
    pruner, _ = attach(method, model, optimizer, when)
    g = torch.Generator().manual_seed(0)
    for t in range(1, 501):
        random_gradients(model, g, 10.0 if t % 50 == 0 else 0.1)
        optimizer.step()
        for k, p in pruner.weights:
            gone = ~pruner.keep[k]
            assert not p[gone].any(), t
            assert all(not s[gone].any() for s in optimizer.state[p].values()), t
            assert p[~gone].all(), t
    assert zeros(pruner) == round(0.7 * pruner.total) and optimizer.skipped == 0


def test_an_event_on_a_skipped_step_is_made_up_for(build):
    model = nn.Linear(10, 10)
    optimizer = build("adamw", model)
    pruner, rows = attach("magnitude", model, optimizer, events((2, 0.2), (3, 0.4), (5, 0.6)))
    g = torch.Generator().manual_seed(0)
    for t in range(1, 6):
        random_gradients(model, g)
        if t in (2, 3, 5):
            model.weight.grad[0, 0] = float("nan")
        optimizer.step()
    assert [(r["step"], r["pruned"]) for r in rows] == [(4, 40)] and not pruner.finished
    pruner.on_updated()  # what the trainer does at the end of a run
    assert [(r["step"], r["pruned"]) for r in rows] == [(4, 40), (5, 60)] and pruner.finished
    pruner.on_updated()
    assert len(rows) == 2


# --- the record, and what is refused


def test_the_record_of_an_event(build):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1, 17).view(4, 4))
        model[1].weight.copy_(torch.arange(17, 25).view(2, 4))
    pruner, rows = attach("magnitude", model, build("sgd", model), events((1, 0.25), (2, 0.5)))
    prune(pruner, 0.25)
    prune(pruner, 0.5)
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
        "warnings": [],
    }


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


@pytest.mark.parametrize("method", ["state", "movement", "displacement"])
def test_scores_that_are_all_zero_raise(build, method):
    model = nn.Linear(5, 5)
    pruner, _ = attach(method, model, build("adamwprune" if method == "state" else "adamw", model), events((1, 0.5)))
    with pytest.raises(ValueError, match="every pruning score is 0"):
        prune(pruner, 0.5)
    assert pruner.keep["weight"].all()


def test_a_score_that_is_not_a_number_raises(build):
    model = nn.Linear(5, 5)
    optimizer = build("adamwprune", model)
    pruner, _ = attach("state", model, optimizer, events((1, 0.5)))
    optimizer.state[model.weight]["exp_avg_sq"][2, 2] = float("nan")
    with pytest.raises(ValueError, match="not a number"):
        prune(pruner, 0.5)


# --- memory


def tensors_of(thing, seen):
    """The tensors that an object holds itself, each once."""
    if torch.is_tensor(thing):
        seen[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    elif isinstance(thing, dict):
        for value in thing.values():
            tensors_of(value, seen)
    elif isinstance(thing, list | tuple | set):
        for value in thing:
            tensors_of(value, seen)
    return seen


@pytest.mark.parametrize("method", SPARSE)
def test_declared_memory_is_what_is_held(build, method):
    model = LeNet5()
    optimizer = build("adamwprune" if method == "state" else "adamw", model)
    pruner, _ = attach(method, model, optimizer, events((1, 0.3), (2, 0.6)))
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        random_gradients(model, g)
        optimizer.step()
    own = {k: v for k, v in vars(pruner).items() if k not in ("weights", "optimizer", "plan")}
    assert sum(tensors_of(own, {}).values()) == PRUNERS[method].bytes_per_param * 61_470
    # Nor is anything hidden in the optimizer: its masks are the pruner's, its state is what it keeps without pruning.
    assert {m.data_ptr() for m in optimizer.masks.values()} == {m.data_ptr() for m in pruner.keep.values()}
    assert all(set(s) == {"exp_avg", "exp_avg_sq"} for s in optimizer.state.values())


# --- saving and loading

RESUMED = [("state", "adamwprune", b) for b in BASES]
RESUMED += [(m, n, "") for m in ("magnitude", "movement", "displacement") for n in ("sgd", "adamw", "adamwspam")]


class Session:
    """A small network in the middle of training, on data that depends on the step alone."""

    def __init__(self, build, method, name, base, seed=1):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10), nn.Linear(10, 3))
        self.optimizer = build(name, self.model, base=base, spam_delta_t=25, spam_warmup=8, spam_theta=50.0)
        when = schedule(PruningOptions(), 0.8, 90)
        self.pruner, self.rows = attach(method, self.model, self.optimizer, when)

    def train(self, first, last):
        for t in range(first, last + 1):
            g = torch.Generator().manual_seed(t)
            x, y = torch.randn(16, 2, 5, 5, generator=g), torch.randint(3, (16,), generator=g)
            for group in self.optimizer.param_groups:
                group["lr"] = 0.02 * (1 - t / 100)
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict(),
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])


def same(a, b, where=""):
    assert type(a) is type(b), where
    if torch.is_tensor(a):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            same(a[k], b[k], f"{where}/{k}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}/{i}")
    else:
        assert a == b or (isinstance(a, float) and math.isnan(a)), where


@pytest.mark.parametrize("method, name, base", RESUMED)
def test_stopped_and_continued_is_never_stopped(build, method, name, base):
    """Saved in the middle of the ramp and between two resets, loaded into fresh objects, and then bit for bit."""
    whole = Session(build, method, name, base)
    whole.train(1, 40)
    assert 0 < whole.pruner.count() < round(0.8 * whole.pruner.total)
    file = io.BytesIO()
    torch.save(whole.state(), file)
    whole.train(41, 90)

    file.seek(0)
    resumed = Session(build, method, name, base, seed=2)
    resumed.load(torch.load(file, weights_only=True))
    resumed.train(41, 90)
    same(whole.state(), resumed.state())
    assert whole.rows[-len(resumed.rows) :] == resumed.rows
    assert resumed.pruner.count() == round(0.8 * whole.pruner.total)


@pytest.mark.parametrize("method", SPARSE)
def test_what_is_loaded_is_a_copy(build, method):
    name = "adamwprune" if method == "state" else "adamw"
    a, b = Session(build, method, name, ""), Session(build, method, name, "", seed=2)
    a.train(1, 40)
    before = io.BytesIO()
    torch.save(a.state(), before)
    b.load(a.state())
    b.train(41, 90)
    before.seek(0)
    same(torch.load(before, weights_only=True), a.state())


def test_a_pruner_without_a_score_is_none():
    with pytest.raises(NotImplementedError):
        Pruner([], Plan(events((1, 0.5)))).score("", None, None)
