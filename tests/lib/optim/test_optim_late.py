"""Parameters that join late, or have no gradient now and then; weights of other types; writes to pruned weights."""

import copy

import pytest
import torch

from lib.optim.base import OPTIMIZERS, decay_groups
from lib.optim.kernel.spam import TINY

FEW = [(9, 7), (130, 130)]
UPDATES = ["eager", "compiled"]


def give(named, gradients, step, without=()):
    """The step's gradients, and none to the parameters `without`."""
    for i, ((_, p), g) in enumerate(zip(named, gradients(step, named), strict=True)):
        p.grad = None if i in without else g


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_missing_gradients_count_as_torchs(build, parameters, gradients, update, amsgrad):
    """Bias corrections are of a parameter's own updates: one joins at step 51, one comes and goes."""
    ours, theirs = parameters(shapes=[(130, 130), (9, 7), (5,)]), parameters(shapes=[(130, 130), (9, 7), (5,)])
    optimizer = build("adamwprune", ours, update=update, adamwprune_amsgrad=amsgrad)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=1e-2, amsgrad=amsgrad, fused=True)
    for t in range(1, 81):
        without = ({0} if t <= 50 else set()) | ({1} if t % 3 else set())
        for named, stepped in ((ours, optimizer), (theirs, reference)):
            give(named, gradients, t, without)
            stepped.step()
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)


def test_a_parameter_that_joins_moves_as_far_as_at_the_start(build, parameters):
    """With a constant gradient the first step is lr, whenever it is taken: not 1.29 of it."""
    named = parameters(shapes=[(4,), (4,)])
    optimizer = build("adamw", named, lr=0.1, decay=0.0)
    for t in range(1, 52):
        named[0][1].grad, named[1][1].grad = torch.ones(4), torch.ones(4) if t == 51 else None
        before = named[1][1].detach().clone()
        optimizer.step()
    torch.testing.assert_close(before - named[1][1].detach(), torch.full((4,), 0.1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["adamw", "adamwspam"])
def test_what_was_missed_is_saved(build, parameters, gradients, same, name):
    ours, theirs = parameters(shapes=FEW), parameters(shapes=FEW)
    a, b = (build(name, named, spam_delta_t=12, spam_warmup=5) for named in (ours, theirs))
    for t in range(1, 31):
        give(ours, gradients, t, {1} if t < 10 else ())
        a.step()
        if t == 15:
            b.load_state_dict(copy.deepcopy(a.state_dict()))
            for (_, p), (_, q) in zip(ours, theirs, strict=True):
                q.data.copy_(p)
        if t > 15:
            give(theirs, gradients, t)
            b.step()
    same((ours, a), (theirs, b))


def test_a_group_that_joins_a_spam_is_in_its_phases(build, parameters):
    """Resets, clip and scale are the optimizer's; the bias corrections are the group's own."""
    named = parameters(shapes=[(4, 4), (4, 4)])
    optimizer = build("adamwspam", named[:1], decay=0.0, lr=0.1, spam_delta_t=20, spam_warmup=10)
    for t in range(1, 25):
        if t == 20:
            optimizer.add_param_group({"params": [named[1][1]], "weight_decay": 0.0})
        for _, p in named:
            p.grad = torch.ones(4, 4)
        before = named[1][1].detach().clone()
        optimizer.step()
        if t >= 20:
            moved = (before - named[1][1].detach()).mean().item()
            assert moved == pytest.approx(0.1 * optimizer.spam.scale(t), rel=1e-3)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("beta2", [0.5 + 1e-9, 0.5 + 1e-7, 0.6, 0.8, 0.849, 0.851, 0.999])
@pytest.mark.parametrize("flush", [False, True], ids=["denormal numbers", "flushed"])
def test_a_live_zero_without_gradient_stays_live(build, parameters, update, beta2, flush):
    """Whatever beta2 is once rounded, on a CPU that takes denormal numbers for 0, and however rarely it is stepped."""
    named = parameters(shapes=FEW)
    optimizer = build("adamw", named, update=update, beta2=beta2)
    torch.set_flush_denormal(flush)
    try:
        for _, p in named:
            p.data.zero_()
            optimizer.state[p]["exp_avg_sq"][0] = 1e-12
            optimizer.hold(p)
        for t in range(1, 400):
            for _, p in named:
                p.grad = torch.zeros_like(p) if t % 2 else None
            optimizer.step()
        for _, p in named:
            v = optimizer.state[p]["exp_avg_sq"]
            assert (v[0] >= TINY).all() and not v[1:].any()
            p.grad = torch.ones_like(p)
        optimizer.step()
        assert all(p[0].all() and not p[1:].any() for _, p in named)
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("name, base", [("sgd", ""), ("adam", ""), ("adamw", ""), ("adamwprune", "adamwadv")])
def test_float64_weights_are_torchs(build, parameters, gradients, name, base, clip):
    """With moments of float64, beyond what float32 could hold."""
    ours, theirs = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    optimizer = build(name, ours, base=base, decay=0.0, clip=clip)
    clip, params = optimizer.param_groups[0]["clip_norm"], [q for _, q in theirs]
    if name == "sgd":
        reference = torch.optim.SGD(params, lr=1e-2, momentum=0.9)
    else:
        reference = torch.optim.AdamW(params, lr=1e-2, amsgrad=base == "adamwadv", weight_decay=0.0)
    for t in range(1, 21):
        for named, stepped in ((ours, optimizer), (theirs, reference)):
            give(named, gradients, t, {1} if t % 2 else ())
            if clip and stepped is reference:
                torch.nn.utils.clip_grad_norm_(params, clip)
            stepped.step()
    close = {"rtol": 1e-5, "atol": 1e-7} if clip else {"rtol": 1e-12, "atol": 1e-14}  # the clip's factor is a float32
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, **close)
        assert all(t.dtype == torch.float64 for t in optimizer.state[p].values() if torch.is_tensor(t))


@pytest.mark.parametrize("mask", ["none", "state", "stored"])
def test_float64_beside_float32(build, parameters, walk, cut, mask):
    """In one optimizer, compiled where it can be."""
    mixed = parameters(shapes=FEW) + [("double", torch.nn.Parameter(torch.ones(130, 130, dtype=torch.float64)))]
    optimizer = build("adamw", mixed, update="compiled", clip=0.5)
    gone = cut(optimizer, mixed, mask)
    walk(5, (mixed, optimizer))
    assert all(p.isfinite().all() and (p not in gone or not p[gone[p]].any()) for _, p in mixed)
    assert mixed[2][1].dtype == torch.float64 and (mixed[2][1] != 1).any()


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_complex_weights_are_refused(build, name):
    named = [("w", torch.nn.Parameter(torch.ones(3, dtype=torch.complex64)))]
    with pytest.raises(ValueError, match="a parameter of torch.complex64: these optimizers take real floating-point"):
        build(name, named)


@pytest.mark.parametrize("mask", ["state", "stored"])
@pytest.mark.parametrize("update", UPDATES)
def test_dense_weights_over_pruned_ones_are_refused(build, parameters, walk, cut, update, mask):
    """They would stay where they are and never train, or come back, while the record counts them as pruned."""
    named = parameters(shapes=FEW)
    p, optimizer = named[1][1], build("adamw", named, update=update)
    walk(2, (named, optimizer))
    dense = p.detach().clone()
    gone = cut(optimizer, named, mask)[p]
    walk(2, (named, optimizer), first=3)
    pruned = p.detach().clone()
    with torch.no_grad():
        p.copy_(dense)
    count = int((dense[gone] != 0).sum())
    with pytest.raises(ValueError, match=rf"{count} pruned weights of a tensor of shape \(130, 130\) are not 0: dense"):
        walk(1, (named, optimizer), first=5)
    assert optimizer.updates == 4 and torch.equal(p, dense)
    with torch.no_grad():
        p.copy_(pruned)
    walk(1, (named, optimizer), first=5)
    assert optimizer.updates == 5 and not p[gone].any()


@pytest.mark.parametrize("mask", ["state", "stored"])
def test_a_mask_loaded_over_dense_weights_is_refused(build, parameters, walk, cut, mask):
    pruned, dense = parameters(shapes=FEW), parameters(shapes=FEW)
    one, other = build("adamw", pruned), build("adamw", dense)
    cut(one, pruned, mask)
    walk(2, (pruned, one))
    other.load_state_dict(one.state_dict())
    other.masks = {q: one.masks[p] for (_, p), (_, q) in zip(pruned, dense, strict=True) if p in one.masks}
    with pytest.raises(ValueError, match="pruned weights of a tensor of shape .* are not 0: dense weights were loaded"):
        walk(1, (dense, other), first=3)


def test_a_write_that_spares_pruned_weights_is_none_of_its_business(build, parameters, walk, cut):
    named = parameters(shapes=FEW)
    optimizer = build("adamw", named)
    gone = cut(optimizer, named, "state")
    walk(2, (named, optimizer))
    with torch.no_grad():
        named[1][1].mul_(0.5)
    walk(2, (named, optimizer), first=3)
    assert all(not p[where].any() for p, where in gone.items())
