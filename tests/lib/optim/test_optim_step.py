"""What `step()` does and in which order, and which parameters decay."""

import pytest
import torch
from optim_kit import ARMS
from torch import nn

from lib.optim.base import decay_groups


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


@pytest.mark.parametrize("update", ["eager", "compiled"])
def test_hooks_do_not_change_the_step(build, zoo, walk, cut, same, update):
    """With a hook on the dense gradients they are looked at before the mask, and the norm is taken once more."""
    pairs, seen = [], []
    for _ in range(2):
        named = zoo()
        pairs.append((named, build("adamw", named, clip=0.5, update=update)))
        cut(pairs[-1][1], named, "state")
    pairs[1][1].on_gradients.append(lambda: seen.append(pairs[1][1].calls))
    walk(5, *pairs)
    same(*pairs)
    assert seen == [1, 2, 3, 4, 5]


def test_a_closure_is_called_and_its_loss_returned(build, parameters):
    named = parameters(shapes=[(3,)])
    p, optimizer = named[0][1], build("adamw", named)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    assert optimizer.step(closure).item() == pytest.approx(before.square().sum().item())
    assert (p.abs() < before.abs()).all()


def test_a_parameter_without_gradient_is_left_alone(build, parameters, walk):
    named = parameters()
    start = named[0][1].detach().clone()
    optimizer = build("adamw", named)

    def drop(step, which, named):
        named[0][1].grad = None

    walk(3, (named, optimizer), before=drop)
    assert torch.equal(named[0][1], start) and not optimizer.state[named[0][1]]["exp_avg"].any()


def test_without_any_gradient_a_step_is_counted_and_nothing_moves(build, parameters):
    named = parameters()
    optimizer = build("adamw", named, clip=0.5)
    start = [p.detach().clone() for _, p in named]
    optimizer.step()
    assert (optimizer.calls, optimizer.updates, optimizer.skipped) == (1, 1, 0)
    assert all(torch.equal(p, x) for (_, p), x in zip(named, start, strict=True))


@pytest.mark.parametrize("name", ["sgd", "adamw", "adamwadv"])
def test_clear_forgets_rows_where_they_are_not_kept(build, parameters, walk, name):
    """Whatever is remembered there, a second moment whose squares overflowed too."""
    named = parameters(shapes=[(4, 6)])
    p, optimizer = named[0][1], build(name, named)
    walk(3, (named, optimizer))
    state = optimizer.state[p]
    if "exp_avg_sq" in state:
        state["exp_avg_sq"][1] = float("inf")
    before = {k: v.clone() for k, v in state.items()}
    keep = torch.tensor([[True, False, True, False, True, False]]).expand(2, 6)
    optimizer.clear(p, slice(1, 3), keep)
    for key, value in state.items():
        assert not value[1:3][~keep].any() and torch.equal(value[1:3][keep], before[key][1:3][keep])
        assert torch.equal(value[[0, 3]], before[key][[0, 3]])
