"""The optimizers against torch's own, step by step: the same bits on the same kernels."""

import pytest
import torch

from lib.optim.base import decay_groups

STEPS = 200


def same(ours, theirs):
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), f"{name}: {(a - b).abs().max()}"


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "momentum, nesterov, decay", [(0.9, False, 0.0), (0.9, False, 0.1), (0.9, True, 0.1), (0.0, False, 0.1)]
)
def test_sgd(build, parameters, walk, seed, momentum, nesterov, decay):
    ours, theirs = parameters(seed), parameters(seed)
    optimizer = build("sgd", ours, decay=decay, sgd_momentum=momentum, sgd_nesterov=nesterov)
    groups = decay_groups(theirs, decay)
    reference = torch.optim.SGD(groups, lr=1e-2, momentum=momentum, nesterov=nesterov, foreach=True)
    walk(STEPS, (ours, optimizer), (theirs, reference))
    same(ours, theirs)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beta1, beta2", [(0.9, 0.999), (0.8, 0.95), (0.0, 0.9)])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name, decay", [("adam", 0.1), ("adamw", 0.1), ("adamw", 0.0)])
def test_adam_and_adamw(build, parameters, walk, seed, name, decay, amsgrad, beta1, beta2):
    """adam has no decay, whatever the recipe says. AMSGrad on these two is what adamwprune may ask for."""
    ours, theirs = parameters(seed), parameters(seed)
    options = {"decay": decay, "beta1": beta1, "beta2": beta2}
    if amsgrad:
        optimizer = build("adamwprune", ours, base=name, adamwprune_amsgrad=True, **options)
    else:
        optimizer = build(name, ours, **options)
    cls, decay = {"adam": (torch.optim.Adam, 0.0), "adamw": (torch.optim.AdamW, decay)}[name]
    groups = decay_groups(theirs, decay)
    reference = cls(groups, lr=1e-2, betas=(beta1, beta2), eps=1e-8, amsgrad=amsgrad, foreach=True)
    walk(STEPS, (ours, optimizer), (theirs, reference))
    same(ours, theirs)
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        for key in optimizer.state[a]:
            assert torch.equal(optimizer.state[a][key], reference.state[b][key]), key
        assert ("max_exp_avg_sq" in optimizer.state[a]) == amsgrad


@pytest.mark.parametrize("size", [1.0, 1e-3], ids=["clipped", "not clipped"])
def test_adamwadv_is_adamw_with_amsgrad_and_a_norm_clip(build, parameters, walk, size):
    ours, theirs = parameters(), parameters()
    optimizer = build("adamwadv", ours, clip=7.0)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=1e-2, amsgrad=True, foreach=True)
    norms = []

    def scale_and_clip(step, which, named):
        for _, p in named:
            p.grad *= size
        if which == 1:
            norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0).item())

    walk(STEPS, (ours, optimizer), (theirs, reference), before=scale_and_clip)
    assert (min(norms) < 1 < max(norms)) == (size == 1.0)
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        # The sum of squares under the root may be taken in another order.
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_l2_penalty_of_adam_is_adams_own(build, parameters, walk):
    """Only adamwprune can ask for a decay on Adam, and then it is torch.optim.Adam's, not AdamW's."""
    ours, theirs = parameters(), parameters()
    optimizer = build("adamwprune", ours, base="adam", decay=0.3, adamwprune_weight_decay=0.05)
    reference = torch.optim.Adam(decay_groups(theirs, 0.05), lr=1e-2, foreach=True)
    walk(STEPS, (ours, optimizer), (theirs, reference))
    same(ours, theirs)


def test_against_the_loop_over_tensors(build, parameters, walk):
    """torch's plain code path, which is easier to believe than its list kernels."""
    ours, theirs = parameters(), parameters()
    optimizer = build("adamw", ours)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=1e-2, foreach=False)
    walk(STEPS, (ours, optimizer), (theirs, reference))
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamwadv", "adamwspam"])
def test_bf16_weights_have_float32_moments(build, parameters, walk, name):
    """A bf16 second moment never decays: 0.999 of it rounds back to it. Saving and loading must keep the dtype too."""
    named = parameters(dtype=torch.bfloat16)
    optimizer = build(name, named)
    walk(5, (named, optimizer))
    again = parameters(dtype=torch.bfloat16)
    loaded = build(name, again)
    loaded.load_state_dict(optimizer.state_dict())
    for (_, p), (_, q) in zip(named, again, strict=True):
        assert p.dtype == torch.bfloat16
        for key, value in optimizer.state[p].items():
            assert value.dtype == loaded.state[q][key].dtype == torch.float32
            assert torch.equal(value, loaded.state[q][key])
            assert value.data_ptr() != loaded.state[q][key].data_ptr()
    before = {p: optimizer.state[p]["exp_avg_sq"].clone() for _, p in named}
    for _, p in named:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for _, p in named:
        torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"], before[p] * 0.999)
