"""RigL, dynamic sparse training that grows where the dense gradient is largest (Evci et al. 2020, arXiv 1911.11134)."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.sparse import RigL

    return RigL(weights, plan)


PRUNERS.add(
    "rigl",
    Method("rigl", build, reversible=True, schedule="constant", distributions=("erk", "uniform"), whole_layers=True),
)
