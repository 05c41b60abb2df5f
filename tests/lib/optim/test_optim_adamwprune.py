"""AdamWPrune without pruning is its base, bit for bit; its overrides are that base with those settings."""

import pytest
import torch

from lib.optim.adamwprune import AdamWPruneOptions
from lib.optim.base import OPTIMIZERS

BASES = ["adam", "adamw", "adamwadv", "adamwspam"]
STEPS = 100
SPAM = {"spam_theta": 20.0, "spam_delta_t": 40, "spam_warmup": 30}  # resets and clips within the steps


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("update", ["eager", "compiled"])
def test_is_its_base(build, zoo, walk, same, base, update):
    ours, theirs = zoo(), zoo()
    start = [p.clone() for _, p in ours if p.numel()]
    a = (ours, build("adamwprune", ours, base=base, clip=2.0, update=update, **SPAM))
    b = (theirs, build(base, theirs, clip=2.0, update=update, **SPAM))
    walk(45, a, b)
    same(a, b)
    moved = [p for _, p in ours if p.numel()]
    assert not any(torch.equal(p, s) for p, s in zip(moved, start, strict=True))
    assert [g["weight_decay"] for g in a[1].param_groups] == [g["weight_decay"] for g in b[1].param_groups]


@pytest.mark.parametrize("base", BASES)
def test_its_record_is_its_bases(base):
    ours, theirs = OPTIMIZERS["adamwprune"], OPTIMIZERS[base]
    assert ours.replaces(base) == theirs.replaces("")
    assert ours.resets(lambda cls: cls(), base) == theirs.resets(lambda cls: cls(), "")
    assert (ours.family, ours.keeps) == (theirs.family, theirs.keeps)


def test_empty_overrides_are_the_default():
    assert AdamWPruneOptions() == AdamWPruneOptions(None, None, None, None)


OVERRIDES = [
    ({"adamwprune_beta1": 0.5}, {"beta1": 0.5}),
    ({"adamwprune_beta2": 0.9}, {"beta2": 0.9}),
    ({"adamwprune_beta1": 0.0, "adamwprune_beta2": 0.0}, {"beta1": 0.0, "beta2": 0.0}),
    ({"adamwprune_weight_decay": 0.0}, {"decay": 0.0}),
    ({"adamwprune_weight_decay": 0.5}, {"decay": 0.5}),
]
# adam itself has no decay to compare with: test_l2_penalty_of_adam_is_adams_own
CASES = [(base, *case) for base in BASES for case in OVERRIDES[: 4 if base == "adam" else 5]]


@pytest.mark.parametrize("base, given, same_as", CASES)
def test_overrides_are_the_base_with_those_settings(build, parameters, walk, same, base, given, same_as):
    ours, theirs, plain = parameters(), parameters(), parameters()
    a = (ours, build("adamwprune", ours, base=base, **given, **SPAM))
    b = (theirs, build(base, theirs, **same_as, **SPAM))
    c = (plain, build(base, plain, **SPAM))
    walk(STEPS, a, b, c)
    same(a, b)
    differs = any(not torch.equal(p, q) for (_, p), (_, q) in zip(ours, plain, strict=True))
    assert differs == (base != "adam" or "adamwprune_weight_decay" not in given)


def test_weight_decay_where_the_recipe_has_none(build, parameters, walk, same):
    ours, theirs = parameters(), parameters()
    a = (ours, build("adamwprune", ours, decay=0.0, adamwprune_weight_decay=0.5))
    b = (theirs, build("adamw", theirs, decay=0.5))
    walk(STEPS, a, b)
    same(a, b)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("amsgrad", [False, True])
def test_amsgrad_override(build, parameters, walk, same, base, amsgrad):
    """adamwadv without AMSGrad is AdamW with its clip; the others with it have the maximum among their state."""
    ours, theirs = parameters(), parameters()
    a = (ours, build("adamwprune", ours, base=base, adamwprune_amsgrad=amsgrad, **SPAM))
    own = base == "adamwadv"
    b = (theirs, build("adamw", theirs, clip=1.0) if own and not amsgrad else build(base, theirs, **SPAM))
    walk(STEPS, a, b)
    assert all(("max_exp_avg_sq" in a[1].state[p]) == amsgrad for _, p in ours)
    if amsgrad == own or (own and not amsgrad):
        same(a, b)
    else:
        assert any(not torch.equal(p, q) for (_, p), (_, q) in zip(ours, theirs, strict=True))
