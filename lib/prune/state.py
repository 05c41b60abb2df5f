"""State pruning: a score of the weight and the optimizer's own moments (lib/prune/importance.py)."""

from lib.prune.base import PRUNERS, Method

DEFAULT_VARIANT = "bitter7"


def build(weights, plan):
    from lib.prune.kernel.state import State

    return State(weights, plan)


PRUNERS.add(
    "state",
    Method(
        "state",
        build,
        pairs_with=frozenset({"adamwprune"}),
        has_variant=True,
    ),
)
