"""Adam (Kingma and Ba 2014, algorithm 1), without weight decay."""

from lib.optim.base import OPTIMIZERS, AdamOptions, Optim, UpdateOptions, compiled


def build(groups, hyper, read, base="", weight_decay=0.0, amsgrad=False):
    """A weight decay other than 0 (only adamwprune can ask for one) is Adam's own L2 penalty, not decoupled."""
    from lib.optim.kernel.adam import Adam

    for group in groups:
        group["weight_decay"] = weight_decay if group["weight_decay"] else 0.0
    return Adam(
        groups, hyper, eps=read(AdamOptions).adam_eps, decoupled=False, amsgrad=amsgrad, compiled=compiled(read)
    )


OPTIMIZERS.add("adam", Optim("adam", build, (AdamOptions, UpdateOptions)))
