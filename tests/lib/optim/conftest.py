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
def gradients():
    """A function: the gradients of one step, of sizes that differ between tensors and steps, with some exact zeros."""

    def make(step, named, seed=1):
        g = torch.Generator().manual_seed(1000 * seed + step)
        found = []
        for _, p in named:
            size = 10 ** (torch.rand((), generator=g) * 5 - 4)
            x = torch.randn(p.shape, generator=g) * size
            found.append(torch.where(torch.rand(p.shape, generator=g) < 0.1, 0.0, x).to(p.dtype))
        return found

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
