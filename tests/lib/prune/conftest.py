"""What the pruning tests share."""

from dataclasses import fields

import pytest
import torch

from lib.optim.base import OPTIMIZERS, Hyper, decay_groups


@pytest.fixture(autouse=True)
def one_thread():
    """Workers that run in parallel would fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
