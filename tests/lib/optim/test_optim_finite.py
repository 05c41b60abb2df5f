"""Gradients that are not finite change nothing and are counted; those that only overflow when squared are stepped."""

import pytest
import torch

from lib.prune.base import PRUNERS
from lib.prune.kernel.pruner import Plan
from lib.prune.schedule import Schedule

BAD = [float("nan"), float("inf"), float("-inf")]
ARMS = [("sgd", "", "movement"), ("adamw", "", "movement"), ("adamwadv", "", "magnitude")]
ARMS += [("adamwspam", "", "movement")] + [("adamwprune", b, "state") for b in ("adam", "adamwadv", "adamwspam")]


def pruned(optimizer, named, method, events):
    """`method` on the weights of two or more dimensions, hung on `optimizer`."""
    weights = [(n, p) for n, p in named if p.ndim >= 2]
    pruner = PRUNERS[method].build(weights, Plan(Schedule(tuple(events), 0, events[-1][0], 1, target=events[-1][1])))
    pruner.attach(optimizer)
    return pruner


def stored(pruner):
    """The tensors of a pruner's own state, copied."""
    kept = {k: v for k, v in pruner.state_dict().items() if isinstance(v, dict)}
    return {f"{k}/{n}": t.clone() for k, v in kept.items() for n, t in v.items()}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name, base, method", ARMS)
def test_a_gradient_that_is_not_finite_changes_nothing(build, parameters, walk, tensors, name, base, method, bad):
    named = parameters()
    optimizer = build(name, named, base=base, spam_delta_t=10)
    pruner = pruned(optimizer, named, method, [(5, 0.3), (10, 0.6)])
    walk(9, (named, optimizer))
    before, count = tensors(named, optimizer) | stored(pruner), pruner.count()
    assert count and (optimizer.calls, optimizer.skipped) == (9, 0)

    def poison(step, which, named):
        named[2][1].grad.view(-1)[3] = bad

    for i in range(3):  # the first of them is due to prune and, on SPAM, to reset
        walk(1, (named, optimizer), first=10 + i, before=poison)
        after = tensors(named, optimizer) | stored(pruner)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert (optimizer.calls, optimizer.skipped, optimizer.skipped_in_a_row) == (10 + i, 1 + i, 1 + i)
        assert optimizer.updates == 9
    assert {g["step"] for g in optimizer.param_groups} == {9}

    walk(1, (named, optimizer), first=13)
    assert (optimizer.calls, optimizer.updates) == (13, 10)
    assert (optimizer.skipped, optimizer.skipped_in_a_row) == (3, 0)
    assert all(p.isfinite().all() for _, p in named)
    assert pruner.count() == round(0.6 * pruner.total)  # the event that was due is made up for


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("mask", ["none", "state", "stored"])
@pytest.mark.parametrize("update", ["eager", "compiled"])
@pytest.mark.parametrize("where", ["large", "gaps", "scalar"])
def test_whatever_its_layout(build, zoo, walk, cut, tensors, update, mask, where, bad):
    """Under a mask too: 0 x nan is nan."""
    named = zoo()
    optimizer = build("adamwprune", named, base="adamwadv", update=update)
    walk(1, (named, optimizer))
    gone = cut(optimizer, named, mask)
    before = tensors(named, optimizer)

    def poison(step, which, named):
        p = dict(named)[where]
        at = gone[p].nonzero()[0] if p in gone else (0,) * p.ndim
        p.grad[tuple(at)] = bad

    walk(1, (named, optimizer), first=2, before=poison)
    after = tensors(named, optimizer)
    assert (optimizer.calls, optimizer.updates, optimizer.skipped) == (2, 1, 1)
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_hooks_are_not_called(build, parameters, walk, name):
    named, called = parameters(), []
    optimizer = build(name, named)
    optimizer.on_gradients.append(lambda: called.append("gradients"))
    optimizer.on_updated.append(lambda: called.append("updated"))

    def poison(step, which, named):
        named[0][1].grad[0, 0] = float("nan")

    walk(1, (named, optimizer), before=poison)
    assert called == [] and optimizer.skipped == 1


@pytest.mark.parametrize("update", ["eager", "compiled"])
@pytest.mark.parametrize("mask", ["none", "state", "stored"])
@pytest.mark.parametrize("hooked", [False, True])
def test_squares_may_overflow(build, zoo, walk, cut, update, mask, hooked):
    """torch's own does not move a weight whose second moment is infinite, and neither does this."""
    named = zoo()
    optimizer = build("adamw", named, update=update, decay=0.0)
    walk(3, (named, optimizer))
    cut(optimizer, named, mask)
    if hooked:
        optimizer.on_gradients.append(lambda: None)
    before = {n: p.detach().clone() for n, p in named}

    def huge(step, which, named):
        for _, p in named:
            p.grad.fill_(1e30)

    walk(1, (named, optimizer), first=4, before=huge)
    assert (optimizer.updates, optimizer.skipped) == (4, 0)
    assert all(torch.equal(p, before[n]) for n, p in named)
    walk(1, (named, optimizer), first=5)
    assert all(p.isfinite().all() for _, p in named)
