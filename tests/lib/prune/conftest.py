"""What the pruning tests share."""

from dataclasses import fields

import pytest

from lib.optim.base import OPTIMIZERS, Hyper, decay_groups


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Every test here computes, and leaves the other cores to the other workers."""


def make(name, model, *, lr=1e-2, decay=0.1, clip=0.0, base="", beta1=0.9, beta2=0.999, **options):
    """An optimizer by name, as the trainer makes it, with settings by the name of their field."""

    def read(cls):
        return cls(**{f.name: options[f.name] for f in fields(cls) if f.name in options})

    record = OPTIMIZERS[name]
    base = base or ("adamw" if record.has_base else "")
    hyper = Hyper(lr, decay, beta1, beta2, record.replaces(base).get("clip_norm", clip))
    return record.build(decay_groups(model.named_parameters(), decay), hyper, read, base)


@pytest.fixture(scope="session")
def build():
    return make
