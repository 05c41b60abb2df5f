"""N:M: of every M weights in a row along the input dimension exactly N stay."""

import pytest
import torch
from prune_kit import attach, events, optimizer_for, prune, random_gradients
from torch import nn

from lib.prune.base import PruningOptions
from lib.prune.kernel import mask
from lib.prune.kernel.pattern import divisible, spared
from lib.prune.schedule import schedule

PATTERNS = [(1, 4), (2, 4), (4, 8), (1, 2)]


def kept_per_group(keep, m):
    """How many of every m along the input dimension, by index arithmetic alone."""
    return torch.stack([keep[:, i : i + m].sum(1) for i in range(0, keep.shape[1], m)])


class Layers(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(16, 6, 3), nn.Conv2d(3, 16, 3), nn.Linear(32, 10), nn.Linear(10, 7), nn.Linear(8, 1))


def run(build, method, pattern, channels_last=False, **options):
    torch.manual_seed(0)
    model = Layers()
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    optimizer = build(optimizer_for(method), model, decay=0.3)
    target = 1 - pattern[0] / pattern[1]
    when = schedule(PruningOptions(**options), target, 60)
    pruner, rows = attach(method, model, optimizer, when, distribution="nm", pattern=pattern)
    return model, optimizer, pruner, rows


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", ["magnitude", "state", "random", "movement"])
def test_exactly_n_of_every_m(build, method, pattern, channels_last):
    """At the end; and every event before it is exact, and but for movement takes nothing back."""
    n, m = pattern
    model, optimizer, pruner, rows = run(build, method, pattern, channels_last)
    fits = [f"{i}.weight" for i, layer in enumerate(model) if layer.weight.shape[1] % m == 0]
    assert [k for k, _ in pruner.weights] == fits and 0 < len(fits) < 5
    assert pruner.total == sum(p.numel() for _, p in pruner.weights)
    g, gone = torch.Generator().manual_seed(1), {k: torch.zeros_like(p) > 1 for k, p in pruner.weights}
    for t in range(1, 61):
        random_gradients(model, g)
        optimizer.step()
        assert pruner.count() == round(pruner.plan.schedule.asked(t) * pruner.total)
        for k, keep in pruner.keep.items():
            assert method == "movement" or not (gone[k] & keep).any()
            assert (kept_per_group(keep, m) >= n).all()
            gone[k] = ~keep
    assert len(rows) > 5
    for k, p in pruner.weights:
        assert (kept_per_group(pruner.keep[k], m) == n).all()
        assert (kept_per_group(p != 0, m) == n).all(), "and so are the weights themselves"
    for i, layer in enumerate(model):
        assert f"{i}.weight" in fits or layer.weight.all(), "what M does not divide is dense"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_in_each_group_the_smallest_go(build, pattern):
    n, m = pattern
    _, _, pruner, _ = run(build, "magnitude", pattern)
    before = {k: p.detach().clone() for k, p in pruner.weights}
    prune(pruner, 1 - n / m)
    for k, keep in pruner.keep.items():
        rows = before[k].abs().movedim(1, -1).reshape(-1, m)
        order = rows.argsort(dim=1, descending=True)
        want = torch.zeros(rows.shape, dtype=torch.bool)
        for i, best in enumerate(order[:, :n].tolist()):
            want[i, best] = True
        assert torch.equal(keep.movedim(1, -1).reshape(-1, m), want)


def test_half_way_the_smallest_of_what_may_go_goes_first(build):
    _, _, pruner, _ = run(build, "magnitude", (2, 4))
    free = {k: p.detach().abs().masked_fill(spared(p.detach().abs(), 2, 4), torch.inf) for k, p in pruner.weights}
    prune(pruner, 0.2)
    flat = torch.cat([s.reshape(-1) for s in free.values()])
    least = flat.kthvalue(round(0.2 * len(flat))).values
    assert all(torch.equal(~keep, free[k] <= least) for k, keep in pruner.keep.items())


def test_among_equals_the_first_of_a_group_stay():
    assert spared(torch.zeros(2, 8), 1, 4).tolist() == [[True, False, False, False] * 2] * 2
    assert spared(torch.tensor([[1.0, 2.0, 2.0, 2.0]]), 2, 4).tolist() == [[False, True, True, False]]
    assert spared(torch.tensor([[-torch.inf] * 3 + [-5.0]]), 1, 4).tolist() == [[False] * 3 + [True]]


@pytest.mark.parametrize("shape", [(5, 8), (3, 16, 3, 3), (4, 8, 1, 5)])
def test_spared_are_n_of_every_m_in_any_memory_format(shape):
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = spared(scores, 2, 4)
    assert found.shape == scores.shape and (kept_per_group(found, 4) == 2).all()
    if len(shape) == 4:
        assert torch.equal(found, spared(scores.to(memory_format=torch.channels_last), 2, 4))


def test_the_pattern_does_not_depend_on_the_chunks(build, monkeypatch):
    masks = []
    for chunk in (mask.CHUNK, 40):
        monkeypatch.setattr(mask, "CHUNK", chunk)
        _, _, pruner, _ = run(build, "magnitude", (2, 4))
        prune(pruner, 0.3)
        prune(pruner, 0.5)
        masks.append(pruner.keep)
    assert all(torch.equal(masks[0][k], masks[1][k]) for k in masks[0])


def test_a_model_that_no_m_divides_is_refused(build):
    with pytest.raises(ValueError, match="2:4 is moot"):
        attach("magnitude", nn.Linear(6, 4), build("adamw", nn.Linear(6, 4)), events((1, 0.5)), distribution="nm")
    assert divisible([("a", torch.empty(4, 6)), ("b", torch.empty(2, 8))], (2, 4))[0][0] == "b"
