"""What `make plan` says beside the list of runs."""

import pytest

from lib import describe, kconfig
from lib.matrix import plan
from lib.rundir import ROOT


def notes(preset: str, **symbols: str) -> list[str]:
    config = kconfig.load(ROOT / "defconfigs" / preset)
    config = kconfig.apply(config, [(n, v, "test") for n, v in symbols.items()])
    return list(describe.notes(config, plan(config)))


@pytest.mark.parametrize(
    ("symbols", "says"),
    [
        ({"PRUNING_FREQUENCY": "100000"}, "lenet5: PRUNING_FREQUENCY=100000 leaves one event, at step 802"),
        ({"UPDATE_COMPILED": "y"}, "lenet5: UPDATE_COMPILED gains nothing on a model this small"),
    ],
)
def test_what_has_no_effect_is_said(symbols, says):
    assert any(n.startswith(says) for n in notes("lenet5-adamwprune", **symbols)), notes("lenet5-adamwprune", **symbols)


@pytest.mark.parametrize("symbols", [{}, {"PRUNING_SCHEDULE_ONE_SHOT": "y"}, {"UPDATE_EAGER": "y"}])
def test_nothing_is_said_of_what_was_meant(symbols):
    assert notes("lenet5-adamwprune", **symbols) == []
