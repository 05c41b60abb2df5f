"""What the optimizers' tests share."""

from dataclasses import fields

import pytest
import torch

from lib.optim.base import OPTIMIZERS, Hyper, decay_groups

# Two or more dimensions decay, the others do not; a single element, and more than one vector register.
SHAPES = [(7, 5), (5,), (3, 2, 3, 3), (1,), (64, 33), (33,)]


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Every test here computes, and leaves the other cores to the other workers."""


@pytest.fixture
def parameters():
    """A function: equal random parameters each time it is called."""

    def make(seed=0, shapes=SHAPES, dtype=torch.float32):
        g = torch.Generator().manual_seed(seed)
        return [(f"p{i}", torch.nn.Parameter(torch.randn(s, generator=g).to(dtype))) for i, s in enumerate(shapes)]

    return make


@pytest.fixture
def zoo():
    """A function: parameters of every memory layout, below and above the size from which an update is compiled. The
    gradients of `crossed` have other strides than it; `gappy` and `gaps` are strided; the others are compiled."""

    def make(seed=0, dtype=torch.float32):
        g = torch.Generator().manual_seed(seed)

        def randn(*shape):
            return torch.randn(shape, generator=g).to(dtype)

        made = {
            "large": randn(130, 130),
            "line": randn(17001),
            "conv": randn(16, 16, 8, 9).to(memory_format=torch.channels_last),
            "turned": randn(140, 130).t(),
            "crossed": randn(128, 130),
            "gappy": randn(130, 2, 130)[:, 0],
            "gaps": randn(9, 2, 7)[:, 1],
            "small": randn(7, 5),
            "scalar": randn(),
            "empty": randn(0, 3),
        }
        return [(name, torch.nn.Parameter(value)) for name, value in made.items()]

    return make


@pytest.fixture
def gradients():
    """A function: the gradients of one step, of sizes that differ between tensors and steps, with some exact zeros."""

    def make(step, named, seed=1):
        g = torch.Generator().manual_seed(1000 * seed + step)
        found = []
        for name, p in named:
            size = 10 ** (torch.rand((), generator=g) * 5 - 4)
            x = torch.randn(p.shape, generator=g) * size
            x = torch.where(torch.rand(p.shape, generator=g) < 0.1, 0.0, x).to(p.dtype)
            found.append(x.t().contiguous().t() if name == "crossed" else torch.empty_like(p).copy_(x))
        return [x.detach() for x in found]

    return make


@pytest.fixture
def build():
    """A function: an optimizer by name, as the trainer makes it, with settings by the name of their field."""

    def make(name, named, *, lr=1e-2, decay=0.1, clip=0.0, base="", beta1=0.9, beta2=0.999, **options):
        record = OPTIMIZERS[name]
        base = base or ("adamw" if record.has_base else "")
        hyper = Hyper(lr, decay, beta1, beta2, record.replaces(base).get("clip_norm", clip))
        return record.build(decay_groups(named, decay), hyper, lambda cls: read(cls, options), base)

    return make


def read(cls, options):
    return cls(**{f.name: options[f.name] for f in fields(cls) if f.name in options})


@pytest.fixture
def walk(gradients):
    """A function: `steps` steps of each (parameters, optimizer) along the same gradients, with a learning rate that
    changes every step; `before` is called with a step and the parameters, when they have their gradients."""

    def go(steps, *pairs, lr=1e-2, first=1, before=None):
        for t in range(first, first + steps):
            for i, (named, optimizer) in enumerate(pairs):
                for (_, p), g in zip(named, gradients(t, named), strict=True):
                    p.grad = g
                for group in optimizer.param_groups:
                    group["lr"] = lr * (1 + 0.5 * (t % 7) / 7)
                if before:
                    before(t, i, named)
                optimizer.step()

    return go


@pytest.fixture
def cut():
    """A function: prune a random half of every weight of two or more dimensions as a pruner does, its mask in the
    optimizer's state or stored. Returns parameter -> what is pruned."""

    def make(optimizer, named, kind, seed=2):
        g = torch.Generator().manual_seed(seed)
        gone = {p: torch.rand(p.shape, generator=g) < 0.5 for _, p in named if p.ndim >= 2 and kind != "none"}
        for p, where in gone.items():
            with torch.no_grad():
                p.masked_fill_(where, 0)
            optimizer.clear(p, slice(None), ~where)
            if kind == "state":
                optimizer.hold(p)
        if kind == "stored":
            optimizer.masks = {p: torch.empty_like(p, dtype=torch.bool).copy_(~where) for p, where in gone.items()}
        return gone

    return make


@pytest.fixture
def tensors():
    """A function: name -> every tensor that a step may change, copied."""

    def collect(named, optimizer):
        found = {n: p.detach().clone() for n, p in named}
        for n, p in named:
            found |= {f"{n}/{k}": v.clone() for k, v in optimizer.state[p].items() if torch.is_tensor(v)}
        return found

    return collect


@pytest.fixture
def same(tensors):
    """A function: whether two (parameters, optimizer) are equal, weights and state, to the bit. Asserts it."""

    def check(*pairs):
        first, *others = (tensors(*pair) for pair in pairs)
        for other in others:
            assert first.keys() == other.keys()
            assert [k for k in first if not torch.equal(first[k], other[k])] == []

    return check
