"""Random pruning: what any score has to beat. The draw depends on the seed, the layer and the position alone."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.noise import uniform
    from lib.prune.kernel.pruner import Pruner
    from lib.prune.kernel.select import Alone

    if type(plan.group) is not Alone:
        raise ValueError("random needs whole layers: its weights cannot be shared by processes")
    place = {name: i for i, (name, _) in enumerate(weights)}
    return Pruner(weights, plan, lambda name, p, rows: uniform(plan.seed, place[name], p, rows))


PRUNERS.add("random", Method("random", build, whole_layers=True))
