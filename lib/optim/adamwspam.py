"""AdamW with SPAM: Spike-Aware Adam with Momentum Reset (Huang et al. 2025, arXiv 2501.06842)."""

from dataclasses import dataclass

from lib.config import number
from lib.optim.base import OPTIMIZERS, Optim, Resets, UpdateOptions, compiled


@dataclass(frozen=True)
class SpamOptions:
    spam_theta: float = number(5000.0, above=0)
    spam_delta_t: int = number(500, low=0)
    spam_warmup: int = number(150, low=1)
    spam_grace: int = number(20, low=1)
    spam_eps: float = number(1e-6, low=1e-12)


def build(groups, hyper, read, base="", amsgrad=False):
    from lib.optim.kernel.adam import Adam
    from lib.optim.kernel.spam import Spam

    o = read(SpamOptions)
    spam = Spam(o.spam_theta, o.spam_delta_t, o.spam_warmup, o.spam_grace)
    return Adam(groups, hyper, eps=o.spam_eps, amsgrad=amsgrad, spam=spam, compiled=compiled(read))


def resets(read, base=""):
    o = read(SpamOptions)
    return Resets(o.spam_delta_t, o.spam_warmup) if o.spam_delta_t else None


OPTIMIZERS.add("adamwspam", Optim("adamwspam", build, (SpamOptions, UpdateOptions), resets=resets))
