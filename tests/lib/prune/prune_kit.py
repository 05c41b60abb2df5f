"""What the pruning tests build and compare: pruners, gradients, a small training session, masks."""

import hashlib
import math

import torch
from torch import nn

from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS, PruningOptions
from lib.prune.importance import IMPORTANCE
from lib.prune.kernel.pruner import Plan, prunable
from lib.prune.schedule import Schedule, schedule

SPARSE = [m for m in PRUNERS.names() if PRUNERS[m].sparse]
REVERSIBLE = [m for m in SPARSE if PRUNERS[m].reversible]
BASES = ["adam", "adamw", "adamwadv", "adamwspam"]


def events(*given):
    return Schedule(tuple(given), 0, given[-1][0], 1, target=given[-1][1])


def optimizer_for(method):
    """An optimizer that a method pairs with."""
    only = PRUNERS[method].pairs_with
    return sorted(only)[0] if only else "adamw"


def distributions(method, variant=""):
    """Those that a method, or its variant, can have, the default first; None is any."""
    own = IMPORTANCE[variant].distribution if variant else None
    return (own,) if own else PRUNERS[method].distributions


def attach(method, model, optimizer, when, **plan):
    """A pruner on an optimizer, and the list that its records go to."""
    rows = []
    takes = distributions(method, plan.get("variant", ""))
    plan.setdefault("distribution", takes[0] if takes else "global")
    pruner = PRUNERS[method].build(prunable(model), Plan(when, record=rows.append, **plan))
    pruner.attach(optimizer)
    return pruner, rows


@torch.no_grad()
def prune(pruner, share):
    """An event without a step."""
    pruner.event(share)


def random_gradients(model, generator, size=1.0):
    for p in model.parameters():
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.dtype)


def zeros(pruner):
    return sum(int((p == 0).sum()) for _, p in pruner.weights)


def digest(pruner):
    """Which weights are kept, as a short text."""
    found = hashlib.sha256()
    for name, keep in pruner.keep.items():
        found.update(name.encode() + keep.contiguous().numpy().tobytes())
    return found.hexdigest()


def lowest(scores, k):
    """The k lowest of several tensors, among equals the last: by a stable sort, as selection is defined."""
    flat = torch.cat([s.reshape(-1) for s in scores]) + 0.0
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[len(flat) - 1 - flat.flip(0).sort(stable=True).indices[:k]] = True
    return [g.view(s.shape) for g, s in zip(gone.split([s.numel() for s in scores]), scores, strict=True)]


class Session:
    """A small network in the middle of training, on data that depends on the step alone."""

    def __init__(self, build, method, name, base="", seed=1, total=90, target=0.8, model=None, settings=None, **plan):
        torch.manual_seed(seed)
        self.model = model() if model else network()
        settings = {"spam_delta_t": 25, "spam_warmup": 8, "spam_theta": 50.0} | (settings or {})
        self.optimizer = build(name, self.model, base=base, **settings)
        when = schedule(PruningOptions(), target, total, own=PRUNERS[method].schedule)
        self.pruner, self.rows = attach(method, self.model, self.optimizer, when, **{"seed": 5} | plan)

    def gradients(self, t):
        g = torch.Generator().manual_seed(t)
        x, y = torch.randn(16, 4, 5, 5, generator=g), torch.randint(3, (16,), generator=g)
        x[:, 3] = 0  # an input that is always off: weights whose gradient is always 0
        self.optimizer.zero_grad()
        dtype = next(self.model.parameters()).dtype
        nn.functional.cross_entropy(self.model(x.to(dtype)).float(), y).backward()

    def train(self, first, last):
        for t in range(first, last + 1):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.02 * (1 - t / 100)
            self.gradients(t)
            self.optimizer.step()

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict(),
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.pruner.load_state_dict(state["pruner"])


def network():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10), nn.ReLU(), nn.Linear(10, 3))


def same(a, b, where=""):
    """Raise where two structures differ in a bit."""
    assert type(a) is type(b), where
    if torch.is_tensor(a):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for k in a:
            same(a[k], b[k], f"{where}/{k}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}/{i}")
    else:
        assert a == b or (isinstance(a, float) and math.isnan(a)), where


def pairs(names=("sgd", "adamw", "adamwspam")):
    """(method, optimizer, base): every sparse method on optimizers that it goes with."""
    found = [("state", "adamwprune", b) for b in BASES]
    for method in SPARSE:
        if PRUNERS[method].pairs_with is None:
            found += [(method, n, "") for n in names]
    return found


ADAMS = [n for n in OPTIMIZERS.names() if OPTIMIZERS[n].holds_masks and n != "adamwprune"]
