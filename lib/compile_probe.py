"""Compile a little of what runs compile, and say what works: `python -m lib.compile_probe DEVICE FORM...`

A process of its own, started by lib/compiling.py before any run. One JSON line on standard output for each form, as
soon as it is known: {"form", "reason" (null where it works), "traceback"}.
"""

import json
import os
import secrets
import sys
import traceback

import torch
from torch import nn

from lib.optim.base import Hyper
from lib.optim.kernel.adam import Adam
from lib.optim.kernel.inductor import cause
from lib.optim.kernel.onepass import SMALL

STEPS = 2


def update(device: torch.device) -> None:
    """Take steps of AdamW in the compiled and in the eager form; raise where they differ by more than roundings."""
    found = []
    beta1 = 0.9 + secrets.randbits(24) * 2.0**-40  # a constant of the code: code of an earlier trial is no answer
    for compiled in (True, False):
        p = nn.Parameter(torch.linspace(-1, 1, SMALL, device=device))
        optimizer = Adam([{"params": [p]}], Hyper(1e-2, weight_decay=0.1, beta1=beta1), eps=1e-8, compiled=compiled)
        for step in range(STEPS):
            p.grad = (p.detach() * (7 + step)).sin()
            optimizer.step()
        found.append(p.detach())
    agree("update", *found)


def model(device: torch.device) -> None:
    """Compile the loss of a small network; raise where its gradients are not those of the plain one."""
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 32), nn.GELU(), nn.Linear(32, 8)
    ).to(device)
    x = torch.linspace(-1, 1, 4 * 64, device=device).view(4, 1, 8, 8)
    y = torch.arange(4, device=device)

    def loss(x, y):
        return nn.functional.cross_entropy(network(x), y)

    found = []
    for f in (torch.compile(loss), loss):
        network.zero_grad()
        f(x, y).backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    agree("model", *found)


def agree(form: str, compiled: torch.Tensor, eager: torch.Tensor) -> None:
    if not torch.allclose(compiled, eager, rtol=1e-3, atol=1e-4):
        apart = (compiled - eager).abs().max().item()
        raise ArithmeticError(f"the compiled {form} computes other numbers than the eager one, {apart:.3g} apart")


FORMS = {"update": update, "model": model}


def main(device: str, forms: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w")  # compilers print to standard output, too
    os.dup2(2, 1)
    for form in forms:
        reason = text = None
        try:
            FORMS[form](torch.device(device))
        except Exception as e:
            reason, text = cause(e), traceback.format_exc()
        print(json.dumps({"form": form, "reason": reason, "traceback": text}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
