"""The compiled update against the eager one, for every layout of memory, and when it is compiled."""

import pytest
import torch

COMPILED = {"large", "line", "conv", "turned"}
SPAM = {"spam_theta": 20.0, "spam_delta_t": 60, "spam_warmup": 30}  # resets and clips within the steps
ARMS = {
    "adam": ("adam", {}),
    "l2": ("adamwprune", {"base": "adam", "adamwprune_weight_decay": 0.05}),
    "adamw": ("adamwprune", {"base": "adamw"}),
    "spam": ("adamwprune", {"base": "adamwspam", **SPAM}),
}


def apart(a, b):
    """The largest difference, in units of the tensor's root mean square."""
    a, b = a.double(), b.double()
    return float((a - b).abs().max() / b.square().mean().sqrt().clamp(min=1e-30)) if a.numel() else 0.0


def farthest(ours, mine, theirs, its):
    """Of weights, of first moments, and of the roots of second moments."""
    found = [0.0, 0.0, 0.0]
    for (_, p), (_, q) in zip(ours, theirs, strict=True):
        state, other = mine.state[p], its.state[q]
        found[0] = max(found[0], apart(p.detach(), q.detach()))
        found[1] = max(found[1], apart(state["exp_avg"], other["exp_avg"]))
        for key in {"exp_avg_sq", "max_exp_avg_sq"} & state.keys():
            found[2] = max(found[2], apart(state[key].sqrt(), other[key].sqrt()))
    return found


def pair(build, zoo, arm, amsgrad, clip, dtype):
    name, options = ARMS[arm]
    if amsgrad:
        name, options = "adamwprune", {"base": name, **options, "adamwprune_amsgrad": True}
    made = []
    for update in ("compiled", "eager"):
        named = zoo(dtype=dtype)
        made.append((named, build(name, named, clip=clip, update=update, **options)))
    return made


def masked(cut, pairs, mask):
    return [(optimizer, cut(optimizer, named, mask)) for named, optimizer in pairs]


def check_masks(masks, mask):
    for optimizer, gone in masks:
        for p, where in gone.items():
            assert not any(t[where].any() for t in [p, *optimizer.state[p].values()] if torch.is_tensor(t))
            assert mask != "state" or (optimizer.state[p]["exp_avg_sq"][~where] > 0).all()


def differential(build, zoo, walk, cut, arm, mask, amsgrad, clip):
    """Asserts that 200 steps of both forms end within 1e-5. Only roundings differ, of 6e-8 each, most of which cancel;
    the most found is 5e-6."""
    pairs = pair(build, zoo, arm, amsgrad, clip, torch.float32)
    walk(5, *pairs)
    masks = masked(cut, pairs, mask)
    walk(195, *pairs, first=6)
    (ours, a), (theirs, b) = pairs
    assert {n for n, p in ours if a.onepass.takes(p)} == COMPILED
    check_masks(masks, mask)
    found = farthest(ours, a, theirs, b)
    assert max(found) < 1e-5, found


QUICK = [
    ("l2", "state", False, 0.0),
    ("adamw", "none", False, 0.5),
    ("adamw", "stored", True, 0.5),
    ("spam", "state", False, 0.0),
]


@pytest.mark.parametrize("arm, mask, amsgrad, clip", QUICK)
def test_is_the_eager_one(build, zoo, walk, cut, arm, mask, amsgrad, clip):
    differential(build, zoo, walk, cut, arm, mask, amsgrad, clip)


# Every pair of settings is in one of these.
MANY = [
    (arm, mask, (i + j) % 2 == 0, (0.0, 0.5)[(i // 2 + j + k) % 2])
    for i, arm in enumerate(ARMS)
    for j, mask in enumerate(("none", "state", "stored"))
    for k in range(2)
]


@pytest.mark.slow
@pytest.mark.parametrize("arm, mask, amsgrad, clip", MANY)
def test_is_the_eager_one_for_every_setting(build, zoo, walk, cut, arm, mask, amsgrad, clip):
    differential(build, zoo, walk, cut, arm, mask, amsgrad, clip)


@pytest.mark.slow
@pytest.mark.parametrize("arm, mask, amsgrad, clip", MANY)
def test_bf16_steps_are_the_eager_ones(build, zoo, walk, cut, arm, mask, amsgrad, clip):
    """Each step from one state: bf16 weights that differ in a rounding once go their own ways. The eager form rounds
    clipped gradients, by a clip of norm or spikes, to their 8 bits once more; the largest is 6 times the mean."""
    pairs = pair(build, zoo, arm, amsgrad, clip, torch.bfloat16)
    (ours, a), (theirs, b) = pairs
    masks = None
    rounded = 6 * 2**-8 if clip or arm == "spam" else 1e-5
    for t in range(1, 61):
        walk(1, *pairs, first=t)
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=2**-7, atol=2e-3 if rounded > 1e-5 else 1e-6)
            p.data.copy_(q)
        _, m, v = farthest(ours, a, theirs, b)
        assert m < rounded and v < rounded, (m, v)
        a.load_state_dict(b.state_dict())
        if t == 5:
            masks = masked(cut, pairs, mask)
    check_masks(masks, mask)
