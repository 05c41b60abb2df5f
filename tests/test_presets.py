"""Presets: each one loads as it stands, says which question it answers, and is the runs that it promises.

tests/golden/<preset>.txt holds the ids of its runs: `make defconfig-<preset>; make plan FORMAT=ids` prints them.
"""

import kconfiglib
import pytest

from lib import kconfig, runner
from lib.config import Config, parse_line
from lib.matrix import expand, pin, plan
from lib.rundir import ROOT

PRESETS = sorted((ROOT / "defconfigs").iterdir())
GOLDEN = ROOT / "tests" / "golden"
# Runs for one seed; a preset that is not listed here has no promise to keep but its golden list.
COUNTS = {
    "quickstart": 11,
    **dict.fromkeys(["lenet5", "lenet5-compare", "lenet5-compare-published"], 39),
    **{f"lenet5-{name}": 1 for name in ("sgd", "adam", "adamw", "adamwadv", "adamwspam", "adamwprune", "sgd-movement")},
    "lenet5-baseline-vs-bitter7": 3,
    "lenet5-bitter-variants": 11,
}

presets = pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.name)


def lines(path) -> list[tuple[str, str]]:
    """Every (symbol, value) that a preset sets."""
    parsed = [parse_line(line, str(path)) for line in path.read_text().splitlines()]
    return [(name, value) for name, value, _ in parsed if name]


def test_every_promised_preset_is_there():
    assert set(COUNTS) <= {p.name for p in PRESETS}


def test_every_golden_list_has_its_preset():
    assert {p.stem for p in GOLDEN.iterdir()} == {p.name for p in PRESETS}


@presets
def test_runs(path):
    ids = [s.id for s in expand(kconfig.load(path))]
    assert ids == (GOLDEN / f"{path.name}.txt").read_text().split()
    assert len(ids) == COUNTS.get(path.name, len(ids))


@presets
def test_kconfiglib_has_nothing_to_say(path, monkeypatch):
    """lib.kconfig checks each line itself; the library's own reading, which menuconfig uses, must agree."""
    monkeypatch.setenv("srctree", str(ROOT))
    kconf = kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)
    kconf.warn_assign_undef = True
    kconf.load_config(str(path))
    assert kconf.warnings == []
    assert {name: kconf.syms[name].str_value for name, _ in lines(path)} == dict(lines(path))


@presets
def test_every_line_survives(path):
    config = kconfig.load(path)
    assert lines(path)
    assert [(name, config[name]) for name, _ in lines(path)] == lines(path)


@presets
def test_minimal_form_under_a_header_that_asks(path):
    text = path.read_text()
    header = [line for line in text.splitlines() if line.startswith("# ") and not line.endswith(" is not set")]
    assert header, "a preset begins with the question that it answers"
    assert header[0].startswith("# ")
    assert "?" in header[0], f"no question: {header[0]}"
    assert text == "\n".join(header) + "\n" + kconfig.minimal(kconfig.load(path))


@presets
def test_every_run_comes_back_from_its_own_config(path, tmp_path):
    config = kconfig.load(path)
    for spec in expand(config):
        own = kconfig.normalise(pin(config, spec))
        assert expand(own) == [spec]
        assert not plan(own).notes
        own.write(tmp_path / "config")
        assert expand(Config.load(tmp_path / "config")) == [spec]
        loaded = kconfig.load(tmp_path / "config")
        assert expand(loaded) == [spec]
        assert dict(loaded) == dict(own) == dict(Config.load(tmp_path / "config"))


@presets
def test_a_run_differs_from_its_matrix_in_the_pinned_symbols_alone(path):
    """Settings are the matrix's; what is gone depends on an axis member that is off."""
    config = kconfig.load(path)
    axes = ("MODEL_", "OPTIMIZER_", "PRUNING_METHOD_", "ADAMWPRUNE_BASE_", "ADAMWPRUNE_VARIANT_")
    for spec in expand(config):
        own = kconfig.normalise(pin(config, spec))
        changed = {n for n in own if own[n] != config.get(n)}
        free = {n for n in changed if not n.startswith(axes) and "_DATASET_" not in n}
        assert free <= {"RUN_ID", "SEEDS", "TARGET_SPARSITY"}


@presets
def test_settings_make_sense(path):
    """Everything that a plan checks: bounds, schedules, resets."""
    config = kconfig.load(path)
    assert len(runner.check(config).specs) == len(expand(config))
    text = "\n".join(runner.describe(config, runner.check(config)))
    assert all(s.id in text for s in expand(config))
