"""AdamWPrune: its base optimizer, whose moments are what state pruning reads.

Nothing here steps differently from the base: without pruning the two are the same, bit for bit.
"""

import inspect
from dataclasses import dataclass, replace

from lib.config import InputError, number
from lib.optim.base import MAXIMUM, OPTIMIZERS, Optim

DEFAULT_BASE = "adamw"


@dataclass(frozen=True)
class AdamWPruneOptions:
    """None is the base's own."""

    adamwprune_beta1: float | None = number(None, low=0, below=1)
    adamwprune_beta2: float | None = number(None, low=0, below=1)
    adamwprune_weight_decay: float | None = number(None, low=0)
    adamwprune_amsgrad: bool | None = None


def build(groups, hyper, read, base=DEFAULT_BASE):
    o = read(AdamWPruneOptions)
    given = {"beta1": o.adamwprune_beta1, "beta2": o.adamwprune_beta2, "weight_decay": o.adamwprune_weight_decay}
    hyper = replace(hyper, **{k: v for k, v in given.items() if v is not None})
    own = {} if o.adamwprune_amsgrad is None else {"amsgrad": o.adamwprune_amsgrad}
    if o.adamwprune_weight_decay is not None:
        groups = [{**g, "weight_decay": hyper.weight_decay if g["params"][0].ndim >= 2 else 0.0} for g in groups]
        if base == "adam":
            own["weight_decay"] = hyper.weight_decay
    return OPTIMIZERS[base].build(groups, hyper, read, **own)


def check(read, base=DEFAULT_BASE):
    takes = inspect.signature(OPTIMIZERS[base].build).parameters
    if read(AdamWPruneOptions).adamwprune_amsgrad is not None and "amsgrad" not in takes:
        raise InputError(f"ADAMWPRUNE_AMSGRAD is set, and the base {base} has no AMSGrad: clear it")


def state(read, base=DEFAULT_BASE):
    own, inherited = read(AdamWPruneOptions).adamwprune_amsgrad, OPTIMIZERS[base].state(read, "")
    if own is None:
        return inherited
    return {n: size for n, size in inherited.items() if n not in MAXIMUM} | (MAXIMUM if own else {})


OPTIMIZERS.add(
    "adamwprune",
    Optim(
        "adamwprune",
        build,
        (AdamWPruneOptions,),
        pairs_with=frozenset({"none", "state"}),
        replaces=lambda base: OPTIMIZERS[base].replaces(""),
        resets=lambda read, base: OPTIMIZERS[base].resets(read, ""),
        state=state,
        check=check,
        has_base=True,
    ),
)
