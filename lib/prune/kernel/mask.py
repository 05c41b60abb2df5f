"""Where it is written which weights are pruned: nowhere but in the optimizer's own state, or in a tensor of bools."""

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1 << 18  # elements of one score chunk, in whole rows


def chunks(p: Tensor) -> Iterator[slice]:
    """Slices of the first dimension of about CHUNK elements, so of consecutive logical row-major indices."""
    rows = max(1, CHUNK * p.shape[0] // max(1, p.numel()))
    for start in range(0, p.shape[0] if p.numel() else 0, rows):
        yield slice(start, start + rows)


class StateMask:
    """No bytes: pruned is what is 0 with exp_avg_sq 0, from the first event on (lib/optim/kernel/adam.py). For methods
    that take no weight back."""

    bytes_per_param = 0

    def __init__(self, optimizer, weights):
        self.optimizer, self.weights = optimizer, weights

    def pruned(self, p: Tensor, rows: slice = slice(None)) -> Tensor | None:
        """Bool of the shape of `p[rows]`, or None where nothing can be pruned yet."""
        return self.optimizer.pruned(p, rows) if self.optimizer.held(p) else None

    def live(self, p: Tensor, rows: slice) -> Tensor | None:
        """Float, of the shape of `p[rows]`: above 0 where a weight is live, else 0; None where all are."""
        return self.optimizer.state[p]["exp_avg_sq"][rows].float() if self.optimizer.held(p) else None

    def write(self, p: Tensor, rows: slice, keep: Tensor) -> None:
        """What goes (`keep` is 0) becomes 0 in the weights and in the optimizer's state; the two say so themselves.
        What stays (1) gets a v above 0: it may be 0 with no gradient so far."""
        self.optimizer.clear(p, rows, keep)
        v = self.optimizer.state[p]["exp_avg_sq"][rows]
        torch.maximum(v, keep.mul_(self.optimizer.least), out=v)

    def lost(self) -> bool:
        """Whether no event has made the state a mask, or its state was put in the place of one that was."""
        return bool(self.weights) and not self.optimizer.held(self.weights[0][1])

    def settle(self) -> None:
        """After an event: the state is the mask from now on."""
        for _, p in self.weights:
            if not self.optimizer.held(p):
                self.optimizer.hold(p)

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """It came with the optimizer's."""


class StoredMask:
    """One byte a weight: for SGD, and for methods that take weights back."""

    bytes_per_param = 1

    def __init__(self, optimizer, weights):
        self.optimizer, self.weights = optimizer, weights
        self.keep = {n: torch.ones_like(p, dtype=torch.bool) for n, p in weights}
        self.of = {p: self.keep[n] for n, p in weights}
        optimizer.masks = self.of

    def pruned(self, p, rows=slice(None)):
        return ~self.of[p][rows]

    def live(self, p, rows):
        return self.of[p][rows].float()

    def write(self, p, rows, keep):
        self.of[p][rows].copy_(keep)
        self.optimizer.clear(p, rows, keep)

    def lost(self):
        return False

    def settle(self):
        pass

    def state_dict(self):
        return {"keep": self.keep}

    def load_state_dict(self, state):
        for name, keep in state["keep"].items():
            self.keep[name].copy_(keep)
