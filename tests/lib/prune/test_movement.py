"""Movement pruning against a straight-through autograd reference, and what becomes of a weight that returns."""

import pytest
import torch
from prune_kit import attach, events, lowest
from torch import nn
from torch.nn import functional as F

SIZES = [(20, 16), (16, 12), (12, 4)]


class Mask(torch.autograd.Function):
    """top-v of the scores, with the identity as its gradient (Sanh, Wolf and Rush 2020, eq. 3)."""

    @staticmethod
    def forward(ctx, scores, keep):
        return keep.to(scores.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Masked(nn.Module):
    """Dense weights W and scores S are both parameters; the forward uses W * mask(S). The mask is chosen anew at each
    event."""

    def __init__(self, weights):
        super().__init__()
        self.w = nn.ParameterList([nn.Parameter(w.clone()) for w in weights])
        self.s = nn.ParameterList([nn.Parameter(torch.zeros_like(w)) for w in weights])
        self.keep = [torch.ones_like(w, dtype=torch.bool) for w in weights]

    def prune(self, share):
        flat = torch.cat([s.detach().flatten() for s in self.s])
        k = round(share * len(flat))
        gone = torch.zeros_like(flat, dtype=torch.bool)
        gone[flat.sort(stable=True).indices[:k]] = True
        self.keep = [~g.view(s.shape) for g, s in zip(gone.split([s.numel() for s in self.s]), self.s, strict=True)]

    def forward(self, x):
        for i, (w, s, keep) in enumerate(zip(self.w, self.s, self.keep, strict=True)):
            x = F.linear(x if i == 0 else x.relu(), w * Mask.apply(s, keep))
        return x


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(*SIZES[0], bias=False),
        nn.ReLU(),
        nn.Linear(*SIZES[1], bias=False),
        nn.ReLU(),
        nn.Linear(*SIZES[2], bias=False),
    )


def movement(model, optimizer, *when):
    return attach("movement", model, optimizer, events(*when))[0]


def batch(t):
    g = torch.Generator().manual_seed(t)
    x = torch.randn(32, 20, generator=g)
    return x, (x[:, :4] * 2 + x[:, 4:8]).argmax(1)


def test_against_straight_through_autograd(build):
    """300 steps, an event every ten up to 80%: the same masks, scores and weights, dense values under the mask too."""
    when = [(t, 0.8 * (1 - (1 - (t - 20) / 200) ** 3)) for t in range(30, 221, 10)]
    model = network()
    optimizer = build("sgd", model, lr=0.1, decay=0.0, sgd_momentum=0.0)
    pruner = movement(model, optimizer, *when)
    reference = Masked([p.detach() for _, p in pruner.weights])
    plain = torch.optim.SGD(reference.parameters(), lr=0.1)
    returned, due = 0, dict(when)
    for t in range(1, 301):
        x, y = batch(t)
        for group in [*optimizer.param_groups, *plain.param_groups]:
            group["lr"] = 0.1 * (1 - t / 400)
        for net, step in ((model, optimizer), (reference, plain)):
            step.zero_grad()
            F.cross_entropy(net(x), y).backward()
            step.step()
        if t in due:
            before = reference.keep
            reference.prune(due[t])
            returned += sum(int((~a & b).sum()) for a, b in zip(before, reference.keep, strict=True))
        for (n, p), w, s, keep in zip(pruner.weights, reference.w, reference.s, reference.keep, strict=True):
            assert torch.equal(pruner.keep[n], keep), f"step {t}"
            torch.testing.assert_close(pruner.scores[n], s.detach(), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(torch.where(keep, p, pruner.frozen[n]), w, rtol=1e-5, atol=1e-6)
    assert returned > 20, "no weight came back: the freeze was not tried"
    assert pruner.count() == round(0.8 * pruner.total)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "adamwadv", "adamwspam"])
def test_a_weight_returns_as_it_left(build, name):
    """With the value it had, with no momentum, and untouched by the decay in between."""
    model = nn.Linear(6, 5, bias=False)
    optimizer = build(name, model, decay=0.5, lr=0.1)
    pruner = movement(model, optimizer, (10, 0.4), (20, 0.4))
    scores, p = pruner.scores["weight"], model.weight
    g = torch.Generator().manual_seed(0)
    order, left = torch.randperm(30, generator=g).view(5, 6), []
    for t in range(1, 21):
        p.grad = torch.randn(p.shape, generator=g)
        if t in (10, 20):  # the pruner reads them after this step's update; the gradient adds less than 1
            scores.copy_(order * 1000 if t == 10 else -order * 1000)
        if t == 10:
            optimizer.on_updated.insert(0, lambda: left.append(p.detach().clone()))
        optimizer.step()
        if t == 10:
            optimizer.on_updated.pop(0)
            gone, value = ~pruner.keep["weight"], left[0]
            assert torch.equal(gone, order < 12) and value[gone].all()
    assert torch.equal(~pruner.keep["weight"], order >= 18)
    assert torch.equal(p[gone], value[gone])
    state = {k: v for k, v in optimizer.state[p].items() if torch.is_tensor(v)}
    assert state and all(not v[gone].any() for v in state.values())
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert (p[gone] != value[gone]).all(), "a weight that is back trains again"


def test_scores_start_with_the_first_step_and_go_on_under_the_mask(build):
    """S adds -lr * w * dL/dw with the dense value and the gradient before masking, clipping and decay."""
    model = nn.Linear(6, 5, bias=False)
    optimizer = build("adamw", model, clip=1e-3, decay=0.9)
    pruner = movement(model, optimizer, (3, 0.5))
    want, g = torch.zeros(5, 6), torch.Generator().manual_seed(0)
    for t in range(1, 8):
        dense = torch.where(pruner.keep["weight"], model.weight, pruner.frozen["weight"]).detach().clone()
        model.weight.grad = torch.randn(5, 6, generator=g)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * t
        want -= 0.01 * t * dense * model.weight.grad
        optimizer.step()
        torch.testing.assert_close(pruner.scores["weight"], want)
        assert pruner.scores["weight"].all()


def test_what_is_kept_is_the_top_of_the_scores(build):
    model = network()
    optimizer = build("adamw", model)
    pruner = movement(model, optimizer, (1, 0.3), (2, 0.6), (3, 0.6))
    for t in range(1, 4):
        x, y = batch(t)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        want = lowest(list(pruner.scores.values()), pruner.count())
        assert all(torch.equal(~k, w) for k, w in zip(pruner.keep.values(), want, strict=True))
