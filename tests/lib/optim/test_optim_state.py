"""What an Adam keeps of each weight: from when it joins, and while no gradient comes."""

import pytest
import torch

from lib.optim.kernel.spam import TINY

FEW = [(9, 7), (130, 130)]


@pytest.mark.parametrize("update", ["eager", "compiled"])
@pytest.mark.parametrize("beta2", [0.85, 0.95, 0.999])
def test_a_live_weight_without_gradients_meets_no_denormal_number(build, parameters, walk, cut, update, beta2):
    """They are not wrong, but 15 to 20 times as slow."""
    named = parameters(shapes=FEW)
    optimizer = build("adamw", named, update=update, beta2=beta2)
    gone = cut(optimizer, named, "state")
    for t in range(1, 400):
        for _, p in named:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for p, where in gone.items():
            v = optimizer.state[p]["exp_avg_sq"]
            assert torch.equal(v == 0, where) and (v[~where] >= TINY).all(), t


@pytest.mark.parametrize("update", ["eager", "compiled"])
def test_a_group_that_joins_later(build, parameters, walk, update):
    ours, theirs = parameters(shapes=FEW), parameters(shapes=FEW)
    late, whole = build("adamwadv", ours[:1], update=update), build("adamwadv", theirs, update=update)
    late.add_param_group({"params": [ours[1][1]], "weight_decay": whole.param_groups[0]["weight_decay"]})
    walk(5, (ours, late), (theirs, whole))
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        assert late.state[p].keys() == whole.state[q].keys() and torch.equal(p, q)
