"""What the pruning tests share."""

from dataclasses import fields

import pytest

from lib.optim.base import OPTIMIZERS, Hyper, decay_groups


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Every test here computes, and leaves the other cores to the other workers."""


@pytest.fixture(scope="session")
def build():
    """A function: an optimizer by name, as the trainer makes it, with settings by the name of their field."""

    def make(name, model, *, lr=1e-2, decay=0.1, clip=0.0, base="", **options):
        def read(cls):
            return cls(**{f.name: options[f.name] for f in fields(cls) if f.name in options})

        record = OPTIMIZERS[name]
        base = base or ("adamw" if record.has_base else "")
        hyper = Hyper(lr, decay, clip_norm=record.replaces(base).get("clip_norm", clip))
        return record.build(decay_groups(model.named_parameters(), decay), hyper, read, base)

    return make
