"""No pruning: the null object, so that nobody asks `if pruning`."""

from lib.prune.base import PRUNERS, Method

PRUNERS.add("none", Method("none", None))
