"""SGD with momentum (Sutskever et al. 2013, as torch.optim.SGD has it)."""

from dataclasses import dataclass

from lib.config import number
from lib.optim.base import OPTIMIZERS, Optim


@dataclass(frozen=True)
class SGDOptions:
    sgd_momentum: float = number(0.9, low=0, below=1)
    sgd_nesterov: bool = False


def build(groups, hyper, read, base=""):
    from lib.optim.kernel.sgd import SGD

    o = read(SGDOptions)
    return SGD(groups, lr=hyper.lr, momentum=o.sgd_momentum, nesterov=o.sgd_nesterov, clip_norm=hyper.clip_norm)


def state(read, base=""):
    return {"momentum_buffer": 4} if read(SGDOptions).sgd_momentum else {}


OPTIMIZERS.add("sgd", Optim("sgd", build, (SGDOptions,), family="sgd", keeps=frozenset(), state=state))
