"""For parameters of any shape, layout and type, and gradients of any size: what always holds."""

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lib.optim.base import Hyper
from lib.optim.kernel.adam import Adam
from lib.optim.kernel.onepass import SMALL
from lib.optim.kernel.spam import Spam

SIZES = [1.0, 1e-3, 1e-25, 1e-40, 1e25, 1e30]
BAD = [float("nan"), float("inf"), float("-inf")]
PLAIN = {"decoupled": False, "amsgrad": False, "clip": 0.0, "spam": False, "dtype": torch.float32, "seed": 0}
few = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@st.composite
def cases(draw, large=False):
    """Shapes with a type and a layout each, and the settings of an Adam. Large ones are for the compiled update, which
    is compiled for few settings."""
    shapes = st.lists(st.integers(0, 4), max_size=5).map(tuple)
    if large:
        shapes |= st.sampled_from([(SMALL,), (SMALL + 3,), (129, 128), (130, 3, 43)])
    params = st.tuples(shapes, st.sampled_from(["dense", "turned", "gappy"]), st.booleans())
    given = {
        "decoupled": large or draw(st.booleans()),
        "amsgrad": not large and draw(st.booleans()),
        "clip": draw(st.sampled_from([0.0, 0.5])),
        "beta2": 0.999 if large else draw(st.sampled_from([0.0, 0.5, 0.9, 0.999])),
        "spam": not large and draw(st.booleans()),
        "dtype": torch.float32 if large else draw(st.sampled_from([torch.float32, torch.bfloat16])),
        "seed": draw(st.integers(0, 2**20)),
        "sizes": draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=6)),
    }
    return draw(st.lists(params, min_size=1, max_size=4)), given


def laid(x, layout):
    if layout == "turned":
        back = list(reversed(range(x.ndim)))
        return x.permute(back).contiguous().permute(back)
    return torch.stack([x, x], -1)[..., 0] if layout == "gappy" else x


class Run:
    def __init__(self, case, compiled=False):
        params, self.o = case
        # inf x 0 is nan, in torch's as well.
        self.sizes = [x for x in self.o["sizes"] if self.o["beta2"] or x < 1e19]
        self.g = torch.Generator().manual_seed(self.o["seed"])
        self.params, self.layouts = [], [layout for _, layout, _ in params]
        for shape, layout, zero in params:
            x = torch.zeros(shape) if zero else torch.randn(shape, generator=self.g)
            self.params.append(torch.nn.Parameter(laid(x.to(self.o["dtype"]), layout)))
        hyper = Hyper(1e-2, 0.1, 0.9, self.o["beta2"], self.o["clip"])
        spam = Spam(theta=20.0, delta_t=4, warmup=2, grace=1) if self.o["spam"] else None
        own = {"decoupled": self.o["decoupled"], "amsgrad": self.o["amsgrad"], "spam": spam, "compiled": compiled}
        self.optimizer = Adam([{"params": self.params}], hyper, 1e-8, **own)

    def step(self, size, bad=None):
        for p, layout in zip(self.params, self.layouts, strict=True):
            x = torch.randn(p.shape, generator=self.g) * size
            x = torch.where(torch.rand(p.shape, generator=self.g) < 0.3, 0.0, x).to(p.dtype)
            p.grad = laid(x, layout) if layout == "turned" else x
        if bad is not None:
            p = max(self.params, key=torch.numel)
            p.grad[tuple(n - 1 for n in p.shape)] = bad
        self.optimizer.step()

    def prune(self):
        """Half of everything, the parameters that have a dimension."""
        gone = {p: torch.rand(p.shape, generator=self.g) < 0.5 for p in self.params if p.ndim}
        for p, where in gone.items():
            p.data.masked_fill_(where, 0)
            self.optimizer.clear(p, slice(None), ~where)
            p.data[~where & (p.data == 0)] = 0.5  # w = v = 0 is pruned, so what is live is to differ
            self.optimizer.hold(p)
        return gone

    def everything(self):
        return [t.clone() for p in self.params for t in [p, *self.optimizer.state[p].values()] if torch.is_tensor(t)]


def a_held_mask_stays(run):
    run.step(1.0)
    gone = run.prune()
    for size in run.sizes:
        run.step(size)
        for p, where in gone.items():
            state = run.optimizer.state[p]
            for t in [p, *(x for x in state.values() if torch.is_tensor(x))]:
                assert not t[where].any()
            assert (state["exp_avg_sq"][~where] > 0).all()
            assert torch.equal(run.optimizer.pruned(p), where)
        assert not any(p.isnan().any() for p in run.params)
    assert run.optimizer.updates == run.optimizer.calls == 1 + len(run.sizes)


@given(cases())
@few
def test_a_held_mask_stays(case):
    a_held_mask_stays(Run(case))


@given(cases(large=True))
@settings(few, max_examples=30)
def test_a_held_mask_stays_compiled(case):
    a_held_mask_stays(Run(case, compiled=True))


def nothing_changes(run, bad):
    run.step(1.0)
    if any(p.numel() for p in run.params):
        run.prune()
        before = run.everything()
        run.step(1.0, bad)
        assert (run.optimizer.calls, run.optimizer.updates, run.optimizer.skipped) == (2, 1, 1)
        assert all(torch.equal(a, b) for a, b in zip(run.everything(), before, strict=True))


@given(cases(), st.sampled_from(BAD))
@few
def test_what_is_not_finite_changes_nothing(case, bad):
    nothing_changes(Run(case), bad)


@given(cases(large=True), st.sampled_from(BAD))
@settings(few, max_examples=30)
def test_what_is_not_finite_changes_nothing_compiled(case, bad):
    nothing_changes(Run(case, compiled=True), bad)


@given(cases())
@example(([((3, 3, 3), "turned", True)], {**PLAIN, "beta2": 0.5, "sizes": [1.0, 1.0]}))
@few
def test_what_holds_nothing_is_torchs(case):
    """To the bit, for float32 without clip and spikes, in a copy without gaps but of the same order: torch's kernel
    rounds otherwise in what is left beyond its vectors."""
    params, o = case
    run = Run((params, o | {"clip": 0.0, "spam": False, "dtype": torch.float32}))
    theirs = [p.detach().clone().requires_grad_() for p in run.params]
    cls = torch.optim.AdamW if o["decoupled"] else torch.optim.Adam
    options = {"lr": 1e-2, "betas": (0.9, o["beta2"]), "eps": 1e-8, "amsgrad": o["amsgrad"], "weight_decay": 0.1}
    reference = cls(theirs, **options, fused=True)
    for size in run.sizes:
        run.step(size)
        for p, q in zip(run.params, theirs, strict=True):
            q.grad = p.grad.clone()
        reference.step()
        assert all(torch.equal(p, q) for p, q in zip(run.params, theirs, strict=True))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_zero_layer_that_gets_no_gradient_stays_live_once_held(compiled):
    """Zero-initialised weights have w = 0, and without a gradient nothing but their second moment says that they are
    live: it has to outlast any number of steps, and the first gradient has to move them."""
    p = torch.nn.Parameter(torch.zeros(130, 130))
    optimizer = Adam([{"params": [p]}], Hyper(1e-2), 1e-8, compiled=compiled)
    optimizer.state[p]["exp_avg_sq"][1:] = 1e-44
    optimizer.hold(p)
    for size in [0.0] * 50 + [1.0]:
        p.grad = torch.full_like(p, size)
        optimizer.step()
    assert optimizer.pruned(p)[0].all() and not optimizer.pruned(p)[1:].any()
    assert not p[0].any() and p[1:].all()
