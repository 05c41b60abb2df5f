"""Magnitude pruning: the smallest |w| go. Three arms of one score.

magnitude: gradual, one threshold over all layers (Zhu and Gupta 2017, arXiv 1710.01878). magnitude_layerwise: the same
share of each layer (Han et al. 2015, arXiv 1506.02626, prune by layer). magnitude_one_shot: all at the end of the ramp.
"""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.pruner import Pruner

    return Pruner(weights, plan, lambda name, p, rows: p.detach()[rows].float().abs())


PRUNERS.add("magnitude", Method("magnitude", build))
PRUNERS.add("magnitude_layerwise", Method("magnitude_layerwise", build, distributions=("uniform",)))
PRUNERS.add("magnitude_one_shot", Method("magnitude_one_shot", build, schedule="one_shot"))
