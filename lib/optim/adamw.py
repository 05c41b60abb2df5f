"""AdamW: decoupled weight decay (Loshchilov and Hutter 2017, algorithm 2)."""

from lib.optim.base import OPTIMIZERS, AdamOptions, Optim, UpdateOptions, compiled


def build(groups, hyper, read, base="", amsgrad=False):
    from lib.optim.kernel.adam import Adam

    return Adam(groups, hyper, eps=read(AdamOptions).adam_eps, amsgrad=amsgrad, compiled=compiled(read))


OPTIMIZERS.add("adamw", Optim("adamw", build, (AdamOptions, UpdateOptions)))
