"""AdamW with AMSGrad (Reddi et al. 2018), a cosine schedule and a global gradient-norm clip of 1.0."""

from lib.optim.base import MAXIMUM, MOMENTS, OPTIMIZERS, AdamOptions, Optim, UpdateOptions, compiled

REPLACES = {"lr_schedule": "cosine", "clip_norm": 1.0}


def build(groups, hyper, read, base="", amsgrad=True):
    from lib.optim.kernel.adam import Adam

    return Adam(groups, hyper, eps=read(AdamOptions).adam_eps, amsgrad=amsgrad, compiled=compiled(read))


OPTIMIZERS.add(
    "adamwadv",
    Optim(
        "adamwadv",
        build,
        (AdamOptions, UpdateOptions),
        replaces=lambda base: REPLACES,
        state=lambda read, base: MOMENTS | MAXIMUM,
    ),
)
