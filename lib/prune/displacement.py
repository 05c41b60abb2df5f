"""w * (w - w0), with w0 the weight when pruning was set up: the baseline that was published under the name movement."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.displacement import Displacement

    return Displacement(weights, plan)


PRUNERS.add("displacement", Method("displacement", build, holds={"start": 4}))
