"""What `step()` does and in which order, and which parameters decay."""

import pytest
import torch
from torch import nn

from lib.optim.base import OPTIMIZERS, decay_groups
from lib.prune.base import PRUNERS
from lib.prune.kernel.pruner import Plan
from lib.prune.schedule import Schedule

ARMS = [("sgd", ""), ("adam", ""), ("adamw", ""), ("adamwadv", ""), ("adamwspam", "")]
ARMS += [("adamwprune", base) for base in ("adam", "adamw", "adamwadv", "adamwspam")]
BAD = [float("nan"), float("inf"), float("-inf")]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.conv = nn.Conv2d(2, 3, 3)
        self.again = self.conv
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.scalar = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize("listed", ["once", "twice"])
def test_decay_groups(listed):
    model = Tied()
    decay, rest = decay_groups(model.named_parameters(remove_duplicate=listed == "once"), 0.3)
    assert [g["weight_decay"] for g in (decay, rest)] == [0.3, 0.0]
    assert all(p.ndim >= 2 for p in decay["params"]) and all(p.ndim < 2 for p in rest["params"])
    ids = [id(p) for g in (decay, rest) for p in g["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in model.parameters()}
    assert [tuple(p.shape) for p in decay["params"]] == [(5, 4), (3, 2, 3, 3)]


def test_a_group_without_parameters_is_left_out():
    assert [g["weight_decay"] for g in decay_groups([("w", nn.Parameter(torch.ones(2, 2)))], 0.3)] == [0.3]


@pytest.mark.parametrize("name, base", ARMS)
def test_decay_reaches_only_weights(build, parameters, name, base):
    """With gradients of 0 whatever moves is decay."""
    named = parameters()
    start = {n: p.detach().clone() for n, p in named}
    optimizer = build(name, named, base=base, lr=0.1, decay=0.5)
    for _, p in named:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for n, p in named:
        decays = p.ndim >= 2 and "adam" not in (name, base)
        assert torch.equal(p, start[n]) != decays
        if decays:
            torch.testing.assert_close(p.detach(), start[n] * 0.95)


def pruned(optimizer, named, method, events):
    """`method` on the weights of two or more dimensions, hung on `optimizer`."""
    weights = [(n, p) for n, p in named if p.ndim >= 2]
    pruner = PRUNERS[method].build(weights, Plan(Schedule(tuple(events), 0, events[-1][0], 1, target=events[-1][1])))
    pruner.attach(optimizer)
    return pruner


def snapshot(named, optimizer, pruner):
    """Every tensor that a step may change."""
    tensors = {n: p.detach().clone() for n, p in named}
    for n, p in named:
        tensors |= {f"{n}/{k}": v.clone() for k, v in optimizer.state[p].items()}
    for k, v in pruner.state_dict().items():
        if isinstance(v, dict):
            tensors |= {f"{k}/{n}": t.clone() for n, t in v.items()}
    return tensors


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "name, base, method",
    [("sgd", "", "movement"), ("adamw", "", "movement"), ("adamwadv", "", "magnitude"), ("adamwspam", "", "movement")]
    + [("adamwprune", b, "state") for b in ("adam", "adamwadv", "adamwspam")],
)
def test_a_gradient_that_is_not_finite_changes_nothing(build, parameters, walk, name, base, method, bad):
    named = parameters()
    optimizer = build(name, named, base=base, spam_delta_t=10)
    pruner = pruned(optimizer, named, method, [(5, 0.3), (10, 0.6)])
    walk(9, (named, optimizer))
    before, count = snapshot(named, optimizer, pruner), pruner.count()
    assert count and (optimizer.calls, optimizer.skipped) == (9, 0)

    def poison(step, which, named):
        named[2][1].grad.view(-1)[3] = bad

    for i in range(3):  # the first of them is due to prune and, on SPAM, to reset
        walk(1, (named, optimizer), first=10 + i, before=poison)
        after = snapshot(named, optimizer, pruner)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert (optimizer.calls, optimizer.skipped, optimizer.skipped_in_a_row) == (10 + i, 1 + i, 1 + i)
    assert {g["step"] for g in optimizer.param_groups} == {9}

    walk(1, (named, optimizer), first=13)
    assert (optimizer.calls, optimizer.skipped, optimizer.skipped_in_a_row) == (13, 3, 0)
    assert all(p.isfinite().all() for _, p in named)
    assert pruner.count() == round(0.6 * pruner.total)  # the event that was due is made up for


def test_a_gradient_that_is_not_finite_under_a_mask_counts(build, parameters, walk):
    """The check is on the dense gradients: 0 x nan would be nan."""
    named = parameters()
    optimizer = build("adamw", named)
    pruner = pruned(optimizer, named, "magnitude", [(1, 0.5)])
    walk(1, (named, optimizer))
    where = (~pruner.keep["p0"]).nonzero()[0]

    def poison(step, which, named):
        named[0][1].grad[tuple(where)] = float("nan")

    walk(1, (named, optimizer), first=2, before=poison)
    assert optimizer.skipped == 1 and all(p.isfinite().all() for _, p in named)


def test_pruned_gradients_do_not_count_in_the_norm(build, parameters, walk):
    """What is clipped and how far is as if the pruned weights were not there."""
    named = parameters()
    optimizer = build("sgd", named, clip=0.5, decay=0.0, sgd_momentum=0.0, lr=1.0)
    pruner = pruned(optimizer, named, "magnitude", [(1, 0.5)])
    walk(1, (named, optimizer))
    before = {n: p.detach().clone() for n, p in named}

    def loud_where_pruned(step, which, named):
        for n, p in named:
            p.grad.fill_(1.0)
            if n in pruner.keep:
                p.grad[~pruner.keep[n]] = 1e4

    walk(1, (named, optimizer), first=2, before=loud_where_pruned)
    live = sum(p.numel() for _, p in named) - pruner.count()
    lr = optimizer.param_groups[0]["lr"]
    for n, p in named:
        keep = pruner.keep.get(n, torch.ones_like(p, dtype=torch.bool))
        want = torch.where(keep, before[n] - lr * 0.5 / live**0.5, 0.0)
        torch.testing.assert_close(p.detach(), want)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("size", [1e-3, 1e2])
def test_the_norm_clip_is_torchs(build, parameters, walk, name, size):
    ours, theirs = parameters(), parameters()
    a, b = build(name, ours, clip=0.7), build(name, theirs)

    def by_hand(step, which, named):
        for _, p in named:
            p.grad *= size
        if which == 1:
            torch.nn.utils.clip_grad_norm_([p for _, p in named], 0.7)

    walk(50, (ours, a), (theirs, b), before=by_hand)
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_hooks_see_dense_gradients_first_and_moved_weights_last(build, parameters, walk):
    named = parameters()
    optimizer = build("adamw", named, clip=0.1)
    keep = torch.zeros_like(named[0][1], dtype=torch.bool)
    optimizer.masks = {named[0][1]: keep}
    start, seen = named[0][1].detach().clone(), []

    def dense():
        seen.append(("dense", bool(named[0][1].grad.any()), torch.equal(named[0][1], start)))

    def updated():
        seen.append(("updated", bool(named[0][1].grad.any()), torch.equal(named[0][1], start)))

    optimizer.on_gradients.append(dense)
    optimizer.on_updated.append(updated)
    walk(1, (named, optimizer))
    assert seen == [("dense", True, True), ("updated", False, False)]


@pytest.mark.parametrize("name, base", ARMS)
def test_state_dict_continues_bitwise(build, parameters, walk, name, base):
    ours, theirs = parameters(), parameters()
    options = {"base": base, "spam_delta_t": 30, "spam_theta": 20.0}
    a = build(name, ours, **options)
    walk(50, (ours, a))
    b = build(name, theirs, **options)
    b.load_state_dict(a.state_dict())
    with torch.no_grad():
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            q.copy_(p)
    walk(50, (ours, a), (theirs, b), first=51)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(ours, theirs, strict=True))
    assert (a.calls, a.skipped) == (b.calls, b.skipped) == (100, 0)


def test_a_parameter_without_gradient_is_left_alone(build, parameters, walk):
    named = parameters()
    start = named[0][1].detach().clone()
    optimizer = build("adamw", named)

    def drop(step, which, named):
        named[0][1].grad = None

    walk(3, (named, optimizer), before=drop)
    assert torch.equal(named[0][1], start) and not optimizer.state[named[0][1]]["exp_avg"].any()


def test_every_optimizer_is_in_these_tests():
    assert {n for n, _ in ARMS} == set(OPTIMIZERS.names())
