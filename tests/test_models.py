"""The networks: their sizes, that published weights fit them, and that GPT-2 is GPT-2."""

import pytest
import torch
import torchvision.models

import gpt2.model
import resnet18.model
import resnet50.model
from lenet5.model import LeNet5
from lib import kconfig
from lib.language import VOCABULARY
from lib.prune.kernel.pruner import prunable

RESNETS = {"resnet18": resnet18.model.network, "resnet50": resnet50.model.network}


def size(model) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: LeNet5(10), 61_750),
        (lambda: RESNETS["resnet18"](10, "cifar"), 11_173_962),
        (lambda: RESNETS["resnet18"](1000, "imagenet"), 11_689_512),
        (lambda: RESNETS["resnet50"](100, "cifar"), 23_705_252),
        (lambda: RESNETS["resnet50"](100, "imagenet"), 23_712_932),
        (lambda: RESNETS["resnet50"](1000, "imagenet"), 25_557_032),
        (lambda: gpt2.model.network("124m", VOCABULARY["bpe"], 1024), 124_475_904),
        (lambda: gpt2.model.network("124m", 50257, 1024), 124_439_808),
        (lambda: gpt2.model.network("350m", 50257, 1024), 354_823_168),
        (lambda: gpt2.model.network("774m", 50257, 1024), 774_030_080),
        (lambda: gpt2.model.network("1558m", 50257, 1024), 1_557_611_200),
    ],
)
def test_parameters(make, parameters):
    with torch.device("meta"):
        assert size(make()) == parameters


@pytest.mark.parametrize(
    ("lines", "make"),
    [
        ("MODEL_LENET5 LENET5_DATASET_MNIST", lambda: LeNet5(10)),
        ("MODEL_RESNET18 RESNET18_DATASET_CIFAR10", lambda: RESNETS["resnet18"](10, "cifar")),
        ("MODEL_RESNET18 RESNET18_DATASET_CIFAR100", lambda: RESNETS["resnet18"](100, "cifar")),
        ("MODEL_RESNET18 RESNET18_DATASET_IMAGENET", lambda: RESNETS["resnet18"](1000, "imagenet")),
        ("MODEL_RESNET50 RESNET50_DATASET_DIGITS", lambda: RESNETS["resnet50"](10, "cifar")),
        ("MODEL_RESNET50 RESNET50_DATASET_CIFAR100", lambda: RESNETS["resnet50"](100, "cifar")),
        ("MODEL_RESNET50 RESNET50_DATASET_IMAGENET", lambda: RESNETS["resnet50"](1000, "imagenet")),
        ("MODEL_GPT2 GPT2_SIZE_TINY", lambda: gpt2.model.network("tiny", VOCABULARY["bytes"], 256)),
        *(
            (f"MODEL_GPT2 GPT2_SIZE_{size.upper()}", lambda size=size: gpt2.model.network(size, 50304, 1024))
            for size in ("124m", "350m", "774m", "1558m")
        ),
    ],
)
def test_the_facts_that_a_plan_is_told_are_the_networks(lines, make):
    """<MODEL>_PARAMETERS and <MODEL>_PRUNABLE of Kconfig, which a plan's memory rests on."""
    config = kconfig.apply(None, [(name, "y", "t") for name in lines.split()])
    with torch.device("meta"):
        model = make()
    head = lines.split()[0].removeprefix("MODEL_")
    assert int(config[f"{head}_PARAMETERS"]) == size(model)
    assert int(config[f"{head}_PRUNABLE"]) == sum(p.numel() for _, p in prunable(model))


@pytest.mark.parametrize("name", RESNETS)
def test_torchvisions_weights_fit(name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=7).eval()
    ours = RESNETS[name](7, "imagenet").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", RESNETS)
def test_the_stem_for_small_images_keeps_their_size(name):
    model = RESNETS[name](10, "cifar").eval()
    with torch.no_grad():
        assert model.conv1(torch.zeros(1, 3, 32, 32)).shape[2:] == (32, 32)
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    std = float(model.conv1.weight.detach().std())
    assert std == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)  # He's initialisation, by what goes out


def small_gpt2(vocabulary=300, block=48):
    torch.manual_seed(0)
    return gpt2.model.GPT2(gpt2.model.Size(3, 4, 32), vocabulary, block).eval()


@pytest.mark.slow
def test_gpt2_is_hugging_faces():
    transformers = pytest.importorskip("transformers")
    ours = small_gpt2()
    config = transformers.GPT2Config(vocab_size=300, n_positions=48, n_embd=32, n_layer=3, n_head=4)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    turned = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    given = {n: p.t() if n.endswith(turned) else p for n, p in theirs.state_dict().items()}
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    ours.load_state_dict({n: given[n] for n in ours.state_dict()})
    tokens = torch.randint(300, (3, 48))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_gpt2s_arithmetic():
    """PaLM's formula by hand, for the 124M: 6 N without positions, and 12 L H Q T."""
    from gpt2.train import make_task

    with torch.device("meta"):
        model = gpt2.model.network("124m", 50304, 1024)
    weights = 50304 * 768 + 12 * (12 * 768 * 768 + 13 * 768) + 2 * 768
    assert make_task().flops_per_token(model) == 6 * weights + 12 * 12 * 768 * 1024


def test_gpt2_sees_no_future():
    model, tokens = small_gpt2(), torch.randint(300, (1, 48))
    other = tokens.clone()
    other[0, 30:] = (other[0, 30:] + 1) % 300
    with torch.no_grad():
        a, b = model(tokens), model(other)
    torch.testing.assert_close(a[:, :30], b[:, :30])
    assert not torch.allclose(a[:, 30:], b[:, 30:])


def test_gpt2s_head_is_its_embedding_and_starts_small():
    model = small_gpt2()
    assert model.lm_head.weight is model.transformer["wte"].weight
    assert "lm_head.weight" in model.state_dict()
    residual = [p for n, p in model.named_parameters() if n.endswith("c_proj.weight")]
    assert len(residual) == 6
    assert float(torch.stack([p.detach().std() for p in residual]).mean()) == pytest.approx(0.02 / 6**0.5, rel=0.1)
