"""SPAM against plain float64 code written from its definition, with spikes and resets; and each part on its own."""

import math

import numpy as np
import pytest
import torch

from lib.optim.base import OPTIMIZERS, Resets
from lib.optim.kernel.sgd import SGD
from lib.optim.kernel.spam import SEED, Spam

GRACE, WARMUP = 20, 150


class Reference:
    """Spike-Aware Adam with Momentum Reset, one array at a time."""

    def __init__(self, w, theta, delta_t, decay, amsgrad, eps=1e-6):
        self.w = w.astype(np.float64)
        self.m, self.v, self.top = (np.zeros_like(self.w) for _ in range(3))
        self.theta, self.delta_t, self.decay, self.amsgrad, self.eps = theta, delta_t, decay, amsgrad, eps
        self.t = self.clipped = 0

    def step(self, g, lr, beta1=0.9, beta2=0.999):
        self.t += 1
        t, since = self.t, self.t % self.delta_t
        if since == 0:
            self.m[:], self.v[:], self.top[:] = 0, 0, 0
        g = g.astype(np.float64)
        if t >= GRACE and since >= GRACE:
            spike = (self.v > 0) & (g**2 > self.theta * self.v)
            g = np.where(spike, np.sign(g) * np.sqrt(self.theta * self.v), g)
            self.clipped += spike.sum()
        self.w *= 1 - lr * self.decay
        self.m = beta1 * self.m + (1 - beta1) * g
        self.v = beta2 * self.v + (1 - beta2) * g**2
        self.top = np.maximum(self.top, self.v)
        root = np.sqrt((self.top if self.amsgrad else self.v) / (1 - beta2**t)) + self.eps
        scale = 1.0
        if t >= self.delta_t and since < WARMUP:
            scale = 1 - 0.99 * (1 + math.cos(math.pi * since / (WARMUP + 1))) / 2
        self.w -= lr * scale * (self.m / (1 - beta1**t)) / root


@pytest.mark.parametrize(
    "theta, delta_t, amsgrad, update, mask",
    [
        (5000.0, 500, False, "eager", "none"),
        (50.0, 500, False, "eager", "none"),
        (5000.0, 200, True, "eager", "none"),
        (50.0, 160, False, "eager", "state"),
        (10.0, 100, True, "eager", "none"),
        (50.0, 160, False, "compiled", "state"),
        (10.0, 100, True, "compiled", "none"),
    ],
)
def test_against_plain_code(build, parameters, walk, cut, theta, delta_t, amsgrad, update, mask):
    named = parameters(**{"shapes": [(130, 130), (7, 5)]} if update == "compiled" else {})
    options = {"adamwprune_amsgrad": True, "base": "adamwspam"} if amsgrad else {}
    name = "adamwprune" if amsgrad else "adamwspam"
    optimizer = build(name, named, spam_theta=theta, spam_delta_t=delta_t, update=update, **options)
    gone = cut(optimizer, named, mask)
    plain = [Reference(p.detach().numpy(), theta, delta_t, 0.1 if p.ndim >= 2 else 0.0, amsgrad) for _, p in named]
    noise = np.random.default_rng(0)

    def spikes_then_reference(step, which, named):
        for (_, p), reference in zip(named, plain, strict=True):
            p.grad[torch.from_numpy(noise.random(p.shape) < 0.01)] *= 1e4
            if p in gone:
                p.grad[gone[p]] = 0.0
            reference.step(p.grad.numpy(), optimizer.param_groups[0]["lr"])

    for t in range(1, 701 if update == "eager" else 351):
        walk(1, (named, optimizer), first=t, before=spikes_then_reference)
        if t % 25 == 0 or t % delta_t < 3:
            for (name, p), reference in zip(named, plain, strict=True):
                state = optimizer.state[p]
                np.testing.assert_allclose(p.detach(), reference.w, rtol=2e-5, atol=4e-6, err_msg=f"{name}, step {t}")
                np.testing.assert_allclose(state["exp_avg"], reference.m, rtol=1e-4, atol=5e-6)
                np.testing.assert_allclose(state["exp_avg_sq"], reference.v, rtol=1e-4, atol=2 * SEED)
                if amsgrad:
                    np.testing.assert_allclose(state["max_exp_avg_sq"], reference.top, rtol=1e-4, atol=2 * SEED)
    assert sum(r.clipped for r in plain) > 100


@pytest.mark.parametrize("delta_t", [0, 160, 500])
@pytest.mark.parametrize("theta", [50.0, 5000.0])
def test_never_resetting_and_never_clipping_is_adamw(build, parameters, walk, theta, delta_t):
    """Up to the first reset, and while nothing is a spike, SPAM is AdamW with its own eps, to the bit."""
    ours, theirs = parameters(), parameters()
    spam = build("adamwspam", ours, spam_theta=1e30, spam_delta_t=delta_t)
    walk(159, (ours, spam), (theirs, build("adamw", theirs, adam_eps=1e-6)))
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(ours, theirs, strict=True))


def quiet(named, value=1e-3):
    for _, p in named:
        p.grad = torch.full_like(p, value)


def test_a_spike_is_clipped_in_what_the_moments_see(build, parameters):
    named = parameters(shapes=[(4, 4)])
    p, optimizer = named[0][1], build("adamwspam", named, spam_theta=100.0)
    for _ in range(30):
        quiet(named)
        optimizer.step()
    m, v = (optimizer.state[p][k].clone() for k in ("exp_avg", "exp_avg_sq"))
    quiet(named)
    p.grad[1, 2], p.grad[3, 0] = 1e6, -1e6
    optimizer.step()
    limit = (100.0 * v).sqrt()
    g = torch.full_like(p, 1e-3)
    g[1, 2], g[3, 0] = limit[1, 2], -limit[3, 0]
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], m.lerp(g, 0.1))
    torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"], v * 0.999 + g * g * 0.001)


@pytest.mark.parametrize("step, clipped", [(19, False), (20, True), (39, True), (40, False), (59, False), (60, True)])
def test_no_clip_in_the_first_steps_and_after_a_reset(build, parameters, step, clipped):
    named = parameters(shapes=[(4, 4)])
    p, optimizer = named[0][1], build("adamwspam", named, spam_theta=100.0, spam_delta_t=40)
    for _ in range(step - 1):
        quiet(named)
        optimizer.step()
    quiet(named)
    p.grad[0, 0] = 1.0
    optimizer.step()
    assert (optimizer.state[p]["exp_avg_sq"][0, 0] < 0.5e-3) == clipped


@pytest.mark.parametrize("update", ["eager", "compiled"])
@pytest.mark.parametrize("mask", ["none", "state", "stored"])
@pytest.mark.parametrize("steps", [40, 65], ids=["never reset", "reset"])
def test_without_a_second_moment_there_is_no_spike(build, parameters, cut, update, mask, steps):
    """The first gradient that an element ever gets, or gets after a reset, has nothing to be compared with. A live one
    of a tensor that holds its mask has the smallest normal number as its second moment till then."""
    named = parameters(shapes=[(130, 130)])
    p, optimizer = named[0][1], build("adamwspam", named, spam_theta=100.0, spam_delta_t=45, update=update)
    live = ~cut(optimizer, named, mask).get(p, torch.zeros_like(p, dtype=torch.bool))
    for _ in range(steps):
        quiet(named)
        p.grad[0] = 0.0
        optimizer.step()
    quiet(named)
    p.grad[0] = 3.0
    optimizer.step()
    assert live[0].any()
    torch.testing.assert_close(optimizer.state[p]["exp_avg"][0], torch.where(live[0], 0.3, 0.0))


@pytest.mark.parametrize("mask", ["none", "state"])
@pytest.mark.parametrize("v", [0.0, 1e-36, 1e-30, 1e-10])
@pytest.mark.parametrize("g", [0.0, 1.0, 1e4, 1e15])
def test_a_step_that_does_not_clip_is_as_wide_as_the_eager_one(build, parameters, cut, mask, v, g):
    """However small the second moment is that a gradient meets."""
    moved = []
    for update in ("eager", "compiled"):
        named = parameters(shapes=[(130, 130)])
        p, optimizer = named[0][1], build("adamwspam", named, update=update)
        cut(optimizer, named, mask)
        optimizer.state[p]["exp_avg_sq"].masked_fill_(p != 0, v)
        p.grad = torch.full_like(p, g)
        optimizer.step()
        moved.append([p.detach(), optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]])
    for one, other in zip(*moved, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-36)


@pytest.mark.parametrize("update", ["eager", "compiled"])
def test_a_reset_keeps_the_mask_in_the_state(build, zoo, walk, cut, update):
    named = zoo()
    optimizer = build("adamwspam", named, spam_delta_t=8, update=update)
    gone = cut(optimizer, named, "state")
    for t in range(1, 18):
        walk(1, (named, optimizer), first=t)
        for p, where in gone.items():
            assert torch.equal(optimizer.pruned(p), where)
            assert torch.equal(optimizer.state[p]["exp_avg_sq"] == 0, where)
            assert not p[where].any() and not optimizer.state[p]["exp_avg"][where].any()


@pytest.mark.parametrize("amsgrad", [False, True])
def test_a_reset_forgets_everything_but_the_step(build, parameters, amsgrad):
    named = parameters(shapes=[(4, 4), (4,)])
    optimizer = build("adamwprune", named, base="adamwspam", spam_delta_t=40, adamwprune_amsgrad=amsgrad)
    for t in range(1, 41):
        quiet(named, 1.0 if t < 40 else 0.0)
        optimizer.step()
    for _, p in named:
        assert len(optimizer.state[p]) == 2 + amsgrad
        assert all(not value.any() for value in optimizer.state[p].values())
    assert [g["step"] for g in optimizer.param_groups] == [40, 40]


@pytest.mark.parametrize("update", ["eager", "compiled"])
def test_the_decay_is_not_scaled_after_a_reset(build, parameters, update):
    named = parameters(shapes=[(130, 130)])
    p, optimizer = named[0][1], build("adamwspam", named, spam_delta_t=40, lr=0.1, decay=0.5, update=update)
    for _ in range(40):
        before = p.detach().clone()
        quiet(named, 0.0)
        optimizer.step()
        torch.testing.assert_close(p.detach(), before * (1 - 0.1 * 0.5))


def test_nothing_compounds_in_the_learning_rate(build, parameters):
    """Over many resets the learning rate is what was set, and each step on a constant gradient has its closed form."""
    named = parameters(shapes=[(2, 2)])
    p, optimizer = named[0][1], build("adamwspam", named, spam_delta_t=160, decay=0.0, lr=1e-3)
    for t in range(1, 10 * 160):
        before = p.detach().clone()
        quiet(named, 1.0)
        optimizer.step()
        since = t % 160
        n = since + 1 if t >= 160 else t  # gradients in the moments
        m, v = (1 - 0.9**n) / (1 - 0.9**t), (1 - 0.999**n) / (1 - 0.999**t)
        scale = 1 - 0.99 * (1 + math.cos(math.pi * since / 151)) / 2 if t >= 160 and since < 150 else 1.0
        want = 1e-3 * scale * m / (v**0.5 + 1e-6)
        assert (before - p.detach()).mean().item() == pytest.approx(want, rel=0.02), t
    assert [g["lr"] for g in optimizer.param_groups] == [1e-3]


def authors_scale(warmup):
    """What the authors multiply the Adam step by, from the reset on: 1 less what torch's own cosine leaves of 0.99."""
    sgd = SGD([{"params": [torch.nn.Parameter(torch.zeros(1))]}], lr=0.99)  # ours: torch's imports its compiler
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, warmup + 1)
    for _ in range(warmup):
        yield 1 - sgd.param_groups[0]["lr"]
        sgd.step()
        cosine.step()
    while True:
        yield 1.0


@pytest.mark.parametrize("warmup", [1, 2, 20, 150])
def test_the_scale_is_the_authors(warmup):
    spam, theirs = Spam(delta_t=500, warmup=warmup), authors_scale(warmup)
    assert [spam.scale(t) for t in range(500, 700)] == pytest.approx([next(theirs) for _ in range(200)], rel=1e-9)


@pytest.mark.parametrize("theta", [50.0, 5000.0])
@pytest.mark.parametrize("delta_t", [160, 200])
def test_trajectories_of_the_authors_formula(build, parameters, theta, delta_t):
    """With no decay and an eps that nothing shows: moments, reset, clip and scale in float64, by the authors' steps.
    A half cosine over 150 steps, not 151, is 2e-5 off."""
    named = parameters(shapes=[(8, 8)])
    p = named[0][1]
    p.data.mul_(0.01)  # so that rounding of the weights shows nothing
    optimizer = build("adamwspam", named, lr=1e-3, decay=0.0, spam_theta=theta, spam_delta_t=delta_t, spam_eps=1e-12)
    w, scale, random = p.detach().double(), None, torch.Generator().manual_seed(0)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t in range(1, 401):
        p.grad = torch.randn(8, 8, generator=random) * (1 + 1000 * (torch.rand(8, 8, generator=random) < 0.01))
        g = p.grad.double()
        optimizer.step()
        if t % delta_t == 0:
            m, v, scale = torch.zeros_like(w), torch.zeros_like(w), authors_scale(150)
        if t >= GRACE and t % delta_t >= GRACE:
            g = torch.where(g**2 > theta * v, g.sign() * (theta * v).sqrt(), g)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        size = 1e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        w -= size * (next(scale) if scale else 1.0) * m / (v.sqrt() + 1e-12)
        torch.testing.assert_close(p.detach().double(), w, rtol=0, atol=2.4e-7)


def test_the_scale_rises_after_every_reset():
    spam = Spam(delta_t=500, warmup=WARMUP)
    assert [spam.scale(t) for t in (1, 499, 650, 999)] == [1.0] * 4
    assert spam.scale(500) == spam.scale(1000) == pytest.approx(0.01)
    rising = [spam.scale(t) for t in range(500, 651)]
    assert rising == sorted(rising) and rising[-1] == 1.0


def test_the_record_says_when_it_resets():
    record = OPTIMIZERS["adamwspam"]
    assert record.resets(lambda cls: cls(), "") == Resets(500, 150)
    assert record.resets(lambda cls: cls(spam_delta_t=0), "") is None
