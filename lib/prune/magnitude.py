"""Gradual magnitude pruning (Zhu and Gupta 2017, arXiv 1710.01878): the smallest |w| go."""

from lib.prune.base import PRUNERS, Method


def build(weights, plan):
    from lib.prune.kernel.pruner import Pruner

    return Pruner(weights, plan, lambda name, p, optimizer: p.detach().float().abs())


PRUNERS.add("magnitude", Method("magnitude", build, bytes_per_param=1))
