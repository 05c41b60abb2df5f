"""Copies of an optimizer, with its masks and the pruner on it: they train on as the original does, on their own."""

import copy
import io
import pickle

import pytest
import torch
from optim_kit import ARMS

from lib.optim.base import OPTIMIZERS
from lib.optim.kernel.spam import TINY
from lib.prune.base import PRUNERS
from lib.prune.kernel.pruner import Plan
from lib.prune.schedule import Schedule

SPAM = {"spam_delta_t": 12, "spam_theta": 20.0}
MASKS = ["none", "state", "stored"]
UPDATES = ["eager", "compiled"]
MASKED = [(*arm, mask) for arm in ARMS for mask in MASKS if mask != "state" or OPTIMIZERS[arm[0]].holds_masks]


@pytest.fixture
def dense(zoo):
    """A function: the parameters that a deep copy leaves in their layout. A strided one becomes dense, and then it is
    compiled."""
    return lambda: [(n, p) for n, p in zoo() if n not in ("gappy", "gaps")]


def saved(optimizer):
    """The state as a file gives it back."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_trains_on(build, dense, walk, cut, same, update, mask, copied):
    named = dense()
    optimizer = build("adamwprune", named, base="adamwspam", clip=0.5, update=update, **SPAM)
    walk(5, (named, optimizer))
    gone = cut(optimizer, named, mask)
    walk(3, (named, optimizer), first=6)
    again, other = copied((named, optimizer))
    assert not {p.data_ptr() for _, p in named if p.numel()} & {p.data_ptr() for _, p in again if p.numel()}
    walk(10, (named, optimizer), (again, other), first=9)
    same((named, optimizer), (again, other))
    assert other.updates == 18
    for (_, p), (_, q) in zip(named, again, strict=True):
        assert p not in gone or not q[gone[p]].any()


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("method", ["state", "magnitude", "movement"])
def test_a_copied_pruner_is_on_the_copied_optimizer(build, dense, walk, same, update, method):
    named = dense()
    optimizer = build("adamwprune", named, update=update)
    weights = [(n, p) for n, p in named if p.ndim >= 2 and p.numel()]
    events = ((3, 0.3), (6, 0.5), (9, 0.7))
    pruner = PRUNERS[method].build(weights, Plan(Schedule(events, 0, 9, 3, target=0.7)))
    pruner.attach(optimizer)
    walk(4, (named, optimizer))
    again, other, its = copy.deepcopy((named, optimizer, pruner))
    assert its.optimizer is other and {hook.__self__ for hook in other.on_updated} == {its}
    walk(4, (again, other), first=5)
    assert (pruner.count(), its.count()) == (round(0.3 * pruner.total), round(0.5 * pruner.total))
    walk(4, (named, optimizer), first=5)
    walk(4, (named, optimizer), (again, other), first=9)
    same((named, optimizer), (again, other))
    assert pruner.count() == its.count() == round(0.7 * pruner.total)


@pytest.mark.parametrize("name, base, mask", MASKED)
def test_state_dict_continues_bitwise(build, zoo, walk, cut, same, name, base, mask):
    ours, theirs, options = zoo(), zoo(seed=5), {"base": base, **SPAM}
    a, b = build(name, ours, **options), build(name, theirs, **options)
    walk(5, (ours, a))
    cut(a, ours, mask)
    walk(15, (ours, a), first=6)
    b.load_state_dict(saved(a))  # the weights come later: what is loaded must not depend on them
    with torch.no_grad():
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            q.copy_(p)
            if p in a.masks:
                b.masks[q] = a.masks[p].clone()
    walk(15, (ours, a), (theirs, b), first=21)
    same((ours, a), (theirs, b))
    assert (a.calls, a.updates, a.skipped) == (b.calls, b.updates, b.skipped) == (35, 35, 0)


@pytest.mark.parametrize("mask", ["none", "state"])
@pytest.mark.parametrize("source, target", [("compiled", "compiled"), ("eager", "compiled"), ("compiled", "eager")])
def test_state_dict_between_the_forms(build, zoo, walk, cut, mask, source, target):
    """A second moment that eager steps have left below the smallest normal number is live, and is not taken for a
    mask, not even for a part of one."""
    ours, theirs = zoo(), zoo(seed=5)
    a, b = build("adamw", ours, update=source), build("adamw", theirs, update=target)
    walk(3, (theirs, b))  # it has kernels for the state that it will lose
    gone = cut(a, ours, mask)
    for _ in range(5):
        for _, p in ours:
            p.grad = torch.zeros_like(p)
        a.step()
    b.load_state_dict(saved(a))
    with torch.no_grad():
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            q.copy_(p)
    walk(3, (ours, a), (theirs, b), first=6)
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        if p in gone:
            assert torch.equal(b.pruned(q), gone[p]) and not q[gone[p]].any()
    assert b.updates == 8


@pytest.mark.parametrize("update", UPDATES)
def test_what_is_loaded_below_the_smallest_normal_number(build, zoo, update):
    named = zoo()
    optimizer = build("adamw", named, update=update)
    for _, p in named:
        optimizer.hold(p)
        optimizer.state[p]["exp_avg_sq"].fill_(TINY / 8)
    optimizer.load_state_dict(saved(optimizer))
    least = TINY / 8 if update == "eager" else TINY
    assert all((optimizer.state[p]["exp_avg_sq"] == least).all() and optimizer.held(p) for _, p in named)


@pytest.mark.parametrize("mask", MASKS)
def test_weights_that_move_in_memory(build, dense, walk, cut, same, mask):
    """As `Module.to` and loading with `assign` move them: kernels must not write to where they were."""
    pairs = [(named, build("adamw", named, update="compiled")) for named in (dense(), dense())]
    for named, optimizer in pairs:
        cut(optimizer, named, mask)
    walk(2, *pairs)
    for _, p in pairs[1][0]:
        p.data = p.data.clone()
    walk(2, *pairs, first=3)
    same(*pairs)
