"""SET, dynamic sparse training that grows at random (Mocanu et al. 2018, arXiv 1707.04780)."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.sparse import SET

    return SET(weights, plan)


PRUNERS.add(
    "set",
    Method("set", build, reversible=True, schedule="constant", distributions=("erk", "uniform"), whole_layers=True),
)
