"""The optimizers against torch's own, step by step: the same bits on the same kernels."""

import pytest
import torch

from lib.optim.base import decay_groups

STEPS = 200
# On the fused kernel it is to the bit; another order of the same operations may round otherwise.
LOOSE = {"rtol": 1e-5, "atol": 2e-6}


def compare(ours, theirs, **loose):
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        if loose:
            torch.testing.assert_close(a, b, **loose)
        else:
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
    compare(ours, theirs)


@pytest.mark.parametrize("beta1, beta2", [(0.9, 0.999), (0.8, 0.95), (0.0, 0.9), (0.9, 0.3)])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("name, decay", [("adam", 0.1), ("adamw", 0.1), ("adamw", 0.0)])
def test_adam_and_adamw(build, parameters, walk, name, decay, amsgrad, beta1, beta2):
    """adam has no decay, whatever the recipe says. AMSGrad on these two is what adamwprune may ask for."""
    ours, own = parameters(), {"decay": decay, "beta1": beta1, "beta2": beta2}
    if amsgrad:
        optimizer = build("adamwprune", ours, base=name, adamwprune_amsgrad=True, **own)
    else:
        optimizer = build(name, ours, **own)
    cls, decay = {"adam": (torch.optim.Adam, 0.0), "adamw": (torch.optim.AdamW, decay)}[name]
    options = {"lr": 1e-2, "betas": (beta1, beta2), "eps": 1e-8, "amsgrad": amsgrad}
    near = ("foreach", "loop") if beta2 == 0.999 else ()
    theirs = {how: parameters() for how in ("fused", *near)}
    kinds = {"fused": {"fused": True}, "foreach": {"foreach": True}, "loop": {"foreach": False}}
    references = {how: cls(decay_groups(theirs[how], decay), **options, **kinds[how]) for how in theirs}
    walk(STEPS, (ours, optimizer), *((theirs[how], references[how]) for how in theirs))
    compare(ours, theirs["fused"])
    for how in near:
        compare(ours, theirs[how], **LOOSE)
    for (_, a), (_, b) in zip(ours, theirs["fused"], strict=True):
        assert optimizer.state[a].keys() == references["fused"].state[b].keys() - {"step"}
        assert all(torch.equal(v, references["fused"].state[b][k]) for k, v in optimizer.state[a].items())


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_every_layout_is_torchs(build, zoo, walk, same, name):
    """What the fused kernel cannot take as it is goes through a copy, with the same bits. torch's own wants float32 in
    one layout, so it gets copies."""
    ours = zoo()
    theirs = [(n, torch.nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format))) for n, p in ours]
    cls = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    reference = cls(decay_groups(theirs, 0.0 if name == "adam" else 0.1), lr=1e-2, fused=True)

    def one_layout(step, which, named):
        if which == 1:
            for (_, p), (_, q) in zip(named, ours, strict=True):
                p.grad = q.grad.clone(memory_format=torch.contiguous_format)

    walk(20, (ours, build(name, ours)), (theirs, reference), before=one_layout)
    compare(ours, theirs)


@pytest.mark.parametrize("size", [1.0, 1e-3], ids=["clipped", "not clipped"])
def test_adamwadv_is_adamw_with_amsgrad_and_a_norm_clip(build, parameters, walk, size):
    ours, theirs = parameters(), parameters()
    optimizer = build("adamwadv", ours, clip=7.0)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=1e-2, amsgrad=True, fused=True)
    norms = []

    def scale_and_clip(step, which, named):
        for _, p in named:
            p.grad *= size
        if which == 1:
            norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0).item())

    walk(STEPS, (ours, optimizer), (theirs, reference), before=scale_and_clip)
    assert (min(norms) < 1 < max(norms)) == (size == 1.0)
    compare(ours, theirs, **LOOSE)  # the sum of squares under the root may be taken in another order


def test_l2_penalty_of_adam_is_adams_own(build, parameters, walk):
    """Only adamwprune can ask for a decay on Adam, and then it is torch.optim.Adam's, not AdamW's."""
    ours, theirs = parameters(), parameters()
    optimizer = build("adamwprune", ours, base="adam", decay=0.3, adamwprune_weight_decay=0.05)
    reference = torch.optim.Adam(decay_groups(theirs, 0.05), lr=1e-2, fused=True)
    walk(STEPS, (ours, optimizer), (theirs, reference))
    compare(ours, theirs)


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


def test_bf16_weights_are_the_rounded_float32_step(build, parameters, walk):
    """One step from the same weights and gradients, rounded once at its end."""
    ours = parameters(dtype=torch.bfloat16)
    theirs = [(n, torch.nn.Parameter(p.detach().float())) for n, p in ours]
    optimizer = build("adamw", ours)
    reference = torch.optim.AdamW(decay_groups(theirs, 0.1), lr=1e-2, fused=True)

    def same_start(step, which, named):
        if which == 1:
            for (_, p), (_, q), start in zip(named, ours, starts, strict=True):
                p.data.copy_(start)
                p.grad = q.grad.float()

    for t in range(1, 30):
        starts = [p.detach().float() for _, p in ours]
        walk(1, (ours, optimizer), (theirs, reference), first=t, before=same_start)
        compare(ours, [(n, p.detach().bfloat16()) for n, p in theirs])
