"""Movement pruning (Sanh, Wolf and Rush 2020, arXiv 2005.07683): keep what moves away from zero."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.movement import Movement

    return Movement(weights, plan)


PRUNERS.add("movement", Method("movement", build, holds={"scores": 4, "frozen": 4}, reversible=True))
