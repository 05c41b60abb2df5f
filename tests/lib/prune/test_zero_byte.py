"""The mask that takes no bytes, w = v = 0, where it could be mistaken: zeros that are not pruned, second moments that
underflow, other dtypes, shared tensors, copies."""

import copy

import pytest
import torch
from prune_kit import BASES, Session, attach, digest, events, network, optimizer_for, prune, random_gradients, same
from torch import nn

TINY = torch.finfo(torch.float32).tiny
HELD = ["magnitude", "random", "displacement", "state"]  # methods whose mask is in the state, one a kind of score


def zero_layer(build, method, share=0.25, **settings):
    """A layer that starts at 0, half of its inputs off, so that half of its weights are 0 with no gradient so far."""
    model = nn.Linear(10, 8, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = build(optimizer_for(method), model, **settings)
    pruner, rows = attach(method, model, optimizer, events((3, share), (30, 0.75)))
    g = torch.Generator().manual_seed(0)

    def train(steps, on=5):
        for _ in range(steps):
            model.weight.grad = torch.randn(8, 10, generator=g)
            model.weight.grad[:, on:] = 0
            optimizer.step()

    return model, pruner, rows, train


@pytest.mark.parametrize("method", HELD)
def test_a_layer_that_starts_at_0_is_not_frozen(build, method):
    model, pruner, rows, train = zero_layer(build, method)
    assert pruner.count() == 0
    train(2)
    assert pruner.count() == 0 and model.weight[:, :5].all() and not model.weight[:, 5:].any()
    train(1)
    assert rows[0]["pruned"] == pruner.count() == 20, "what is 0 and stays is live"
    kept = pruner.keep["weight"]
    train(5, on=10)  # the other inputs come on
    assert torch.equal(pruner.keep["weight"], kept) and model.weight[kept].all() and pruner.count() == 20
    train(22, on=10)
    assert pruner.count() == rows[-1]["pruned"] == 60


@pytest.mark.parametrize("beta2", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("method", HELD)
def test_a_dead_unit_stays_live(build, method, beta2):
    """3,000 steps with no gradient: v underflows, the weight is 0 as from the start, and it is live all the same."""
    settings = {"adamwprune_beta2": beta2} if method == "state" else {"beta2": beta2}
    model, pruner, _, train = zero_layer(build, method, lr=0.5, decay=1.0, **settings)
    train(3)
    kept, state = digest(pruner), pruner.optimizer.state[model.weight]
    pruner.next_event = 2
    train(3000, on=0)
    live = pruner.keep["weight"]
    assert live[:, 5:].any() and not model.weight[:, 5:].any() and model.weight.abs().max() < 1e-30
    assert (state["exp_avg_sq"][live] > 0).all() and state["exp_avg_sq"].max() < 1e-30
    assert digest(pruner) == kept and pruner.count() == 20
    train(2, on=10)
    assert model.weight[live].all() and not model.weight[~live].any()


@pytest.mark.parametrize("method", ["magnitude", "state"])
def test_a_reset_takes_no_live_zero(build, method):
    """SPAM sets every moment to 0: a weight that is 0 and live must not be taken for a pruned one."""
    own = {"base": "adamwspam"} if method == "state" else {}
    model, pruner, _, train = zero_layer(build, method, spam_delta_t=5, spam_warmup=2, **own)
    if method == "magnitude":
        pruner.optimizer.spam = build("adamwspam", nn.Linear(1, 1), spam_delta_t=5, spam_warmup=2).spam
    train(3)
    kept = digest(pruner)
    assert pruner.count() == 20
    for _ in range(10):
        train(1)
        assert digest(pruner) == kept
    train(1, on=10)
    assert model.weight[pruner.keep["weight"]].all()


def test_an_event_after_underflow_takes_exactly_what_is_asked(build):
    model, pruner, _, train = zero_layer(build, "magnitude", lr=0.5, decay=1.0, beta2=0.9)
    train(3)
    pruner.next_event = 2
    train(3000, on=0)
    gone = ~pruner.keep["weight"]
    random_gradients(model, torch.Generator().manual_seed(0))
    pruner.optimizer.step()
    prune(pruner, 0.5)
    assert pruner.count() == 40 and not (gone & pruner.keep["weight"]).any()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_resets_and_amsgrad_keep_the_mask(build, base, amsgrad):
    """Through three resets, and on the step of each, when every v is all but 0."""
    session = Session(build, "state", "adamwprune", base, settings={"adamwprune_amsgrad": amsgrad})
    session.train(1, 69)
    kept, count = digest(session.pruner), session.pruner.count()
    assert session.pruner.finished
    for t in range(70, 111):
        session.train(t, t)
        assert digest(session.pruner) == kept and session.pruner.count() == count == round(0.8 * session.pruner.total)


@pytest.mark.parametrize("method", HELD)
def test_bf16_weights(build, method):
    session = Session(build, method, optimizer_for(method), model=lambda: network().bfloat16())
    session.train(1, 90)
    pruner = session.pruner
    assert pruner.count() == session.rows[-1]["pruned"] == round(0.8 * pruner.total)
    for name, p in pruner.weights:
        state = session.optimizer.state[p]
        assert p.dtype == torch.bfloat16 and state["exp_avg_sq"].dtype == torch.float32
        assert not p[~pruner.keep[name]].any() and (state["exp_avg_sq"][pruner.keep[name]] >= TINY / 2).all()


class Shared(nn.Module):
    """Two layers on one tensor."""

    def __init__(self):
        super().__init__()
        self.body, self.flat = nn.Conv2d(4, 2, 3), nn.Flatten()
        self.a, self.b, self.head = nn.Linear(18, 18), nn.Linear(18, 18), nn.Linear(18, 3)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.head(self.b(self.a(self.flat(self.body(x)).relu()).relu()))


@pytest.mark.parametrize("method", HELD)
def test_tied_weights(build, method):
    session = Session(build, method, optimizer_for(method), model=Shared)
    session.train(1, 90)
    assert [n for n, _ in session.pruner.weights] == ["body.weight", "a.weight", "head.weight"]
    assert session.pruner.count() == round(0.8 * session.pruner.total)
    assert torch.equal(session.model.a.weight == 0, ~session.pruner.keep["a.weight"])
    assert session.model.b.weight is session.model.a.weight


@pytest.mark.parametrize("method", ["magnitude", "state"])
def test_gradient_accumulation(build, method):
    """Two backward passes a step: what is pruned stays so, and the step is that of the sum."""
    twice, once = (Session(build, method, optimizer_for(method)) for _ in range(2))
    for t in range(1, 91):
        for session in (twice, once):
            session.gradients(t)
            for p in session.model.parameters():
                p.grad *= 2
        first = [p.grad.clone() / 2 for p in twice.model.parameters()]
        twice.optimizer.zero_grad()
        for part in (first, first):
            sum((p * g).sum() for p, g in zip(twice.model.parameters(), part, strict=True)).backward()
        for session in (twice, once):
            session.optimizer.step()
    assert twice.pruner.count() == round(0.8 * twice.pruner.total)
    same(twice.state(), once.state())


@pytest.mark.parametrize("method", ["magnitude", "displacement", "state", "movement", "rigl"])
def test_a_deep_copy_goes_on_by_itself(build, method):
    """Model, optimizer and pruner together: the copy is bit for bit what the original is, and touches nothing of it."""
    session = Session(build, method, optimizer_for(method))
    session.train(1, 45)
    kept = digest(session.pruner)
    other = copy.deepcopy(session)
    assert digest(other.pruner) == kept and other.pruner.count()
    before = copy.deepcopy(session.state())
    other.train(46, 90)
    same(before, session.state())
    session.train(46, 90)
    same(session.state(), other.state())
    assert session.pruner.count() == round(0.8 * session.pruner.total)


def test_before_the_first_event_nothing_is_pruned_whatever_is_0(build):
    """A frozen bias of zeros is one thing; a weight that is 0 with v = 0 before any event is another: it trains."""
    model = nn.Linear(6, 4)
    nn.init.zeros_(model.weight)
    optimizer = build("adamw", model)
    pruner, _ = attach("magnitude", model, optimizer, events((9, 0.5)))
    assert pruner.count() == 0 and pruner.keep["weight"].all()
    random_gradients(model, torch.Generator().manual_seed(0))
    optimizer.step()
    assert model.weight.all() and model.bias.all()
