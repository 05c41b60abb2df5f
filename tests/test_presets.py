"""Presets: each one loads as it stands, says which question it answers, and is the runs that it promises.

tests/golden/<preset>.txt holds the ids of its runs: `make defconfig-<preset>; make plan FORMAT=ids` prints them.
"""

import re

import kconfiglib
import pytest

from lib import kconfig, runner
from lib.config import Config, parse_line
from lib.describe import describe
from lib.matrix import expand, pin, plan
from lib.rundir import ROOT

PRESETS = sorted((ROOT / "defconfigs").iterdir())
GOLDEN = ROOT / "tests" / "golden"
# Runs for one seed, of every preset that the project promises. Another preset has its golden list to keep.
COUNTS = {
    "quickstart": 11,
    "lenet5": 39,
    "lenet5-compare": 39,
    **{f"lenet5-{name}": 1 for name in ("sgd", "adam", "adamw", "adamwadv", "adamwspam", "adamwprune", "sgd-movement")},
    "lenet5-baseline-vs-bitter7": 3,
    "lenet5-bitter-variants": 11,
    "lenet5-pruning-baselines": 10,
    "lenet5-two-of-four": 2,
    "resnet18-state-pruning-compare": 6,
    "resnet18-movement-pruning-compare": 5,
    "resnet18-comprehensive-pruning-compare": 39,
    "resnet18-adamw-vs-adamwprune": 11,
    "resnet18-adamwprune-match-adamw": 2,
    "resnet18-adamwprune-bases": 8,
    "resnet18-inference-test": 1,
    "resnet18-baseline-vs-bitter7": 3,
    "resnet50-adamwprune-vs-adamwspam": 15,
    "resnet50-comprehensive-pruning-compare": 39,
    "resnet50-baseline-vs-bitter7": 3,
    "resnet50-imagenet": 1,
    "resnet50-imagenet-adamwprune-vs-adamwspam": 15,
    "gpt2-vanilla-baseline": 1,
    "gpt2-adamwprune-shakespeare": 1,
    "gpt2-finewebedu-bitter7": 1,
    "gpt2-finewebedu-bitter8": 1,
    "gpt2-finewebedu-spam-vs-bitter7": 2,
    "gpt2-finewebedu-baseline-bitter7-bitter8": 4,
    "gpt2-finewebedu-bitter-lesson": 4,
    "gpt2-tiny": 4,
    "lenet5-compare-published": 39,
    "resnet18-state-pruning-compare-published": 6,
    "resnet18-movement-pruning-compare-published": 5,
    "resnet18-comprehensive-pruning-compare-published": 39,
    "resnet18-adamw-vs-adamwprune-published": 11,
    "resnet50-adamwprune-vs-adamwspam-published": 15,
    "resnet50-comprehensive-pruning-compare-published": 39,
    "gpt2-finewebedu-bitter-lesson-published": 4,
    "gpt2-finewebedu-baseline-bitter7-bitter8-published": 4,
}
# What the published documents say of their runs; docs/published.md goes through it setting by setting. A symbol that a
# preset does not have (SPAM_THETA without SPAM) is not asked of it.
PUBLISHED = {
    "": {"PRUNING_SCHEDULE_CUBIC_LATE": "y", "TEST_EACH_EPOCH": "y", "SPAM_THETA": "50"},
    "lenet5": {"LENET5_DATASET_MNIST": "y", "ADAMWPRUNE_VARIANT_BITTER0": "y", "LENET5_ADAM_BETA2": "0.999"},
    "resnet18": {
        "RESNET18_DATASET_CIFAR10": "y",
        "RESNET18_EPOCHS": "100",
        "RESNET18_BATCH_SIZE": "128",
        "RESNET18_ADAM_BETA2": "0.999",
        "ADAMWPRUNE_VARIANT_BITTER0": "y",
        "ADAMWPRUNE_BASE_ADAMW": "y",
    },
    "resnet50": {
        "RESNET50_DATASET_CIFAR100": "y",
        "RESNET50_STEM_IMAGENET": "y",
        "RESNET50_EPOCHS": "100",
        "RESNET50_BATCH_SIZE": "128",
        "RESNET50_ADAM_WEIGHT_DECAY": "0.01",
        "RESNET50_ADAM_BETA1": "0.9",
        "RESNET50_ADAM_BETA2": "0.999",
        "ADAMWPRUNE_BETA1": "0.9",
        "ADAMWPRUNE_BETA2": "0.999",
        "ADAMWPRUNE_WEIGHT_DECAY": "0.01",
        "ADAMWPRUNE_AMSGRAD": "y",
        "ADAMWPRUNE_VARIANT_BITTER0": "y",
        "ADAMWPRUNE_BASE_ADAMW": "y",
    },
    "gpt2": {
        "GPT2_DATASET_FINEWEBEDU": "y",
        "GPT2_SIZE_124M": "y",
        "GPT2_BATCH_SIZE": "1024",
        "GPT2_ADAM_LR": "0.0006",
        "GPT2_ADAM_WEIGHT_DECAY": "0.1",
        "GPT2_ADAM_BETA1": "0.9",
        "GPT2_ADAM_BETA2": "0.999",
        "TARGET_SPARSITY": "0.5",
    },
    "gpt2-finewebedu-bitter-lesson-published": {"MAX_ITERS": "10000"},
    "gpt2-finewebedu-baseline-bitter7-bitter8-published": {"MAX_ITERS": "7000"},
}
TWINS = [p for p in PRESETS if p.name.endswith("-published")]

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
    header = path.read_text().partition("\n")[0]
    assert re.findall(r"(\d+) runs?\b", header) in ([], [str(len(ids))]), header


@pytest.mark.parametrize("path", TWINS, ids=lambda p: p.name)
def test_a_twin_has_the_published_settings(path):
    config, model = kconfig.load(path), path.name.partition("-")[0]
    assert path.with_name(path.name.removesuffix("-published")).exists(), "a twin of what?"
    wanted = PUBLISHED[""] | PUBLISHED[model] | PUBLISHED.get(path.name, {})
    found = {name: config[name] for name in wanted if name in config}
    assert found == {name: value for name, value in wanted.items() if name in found}
    missing = wanted.keys() - found.keys()
    allowed = {"SPAM_THETA"} if "adamwspam" not in config.on("OPTIMIZER") else set()
    if "state" not in config.on("PRUNING_METHOD"):
        allowed |= {n for n in wanted if n.startswith("ADAMWPRUNE_")}
    assert missing <= allowed
    assert "movement" not in config.on("PRUNING_METHOD"), "published under that name: displacement"
    assert "docs/published.md" in path.read_text()


@pytest.mark.parametrize("path", TWINS, ids=lambda p: p.name)
def test_a_twin_runs_what_its_preset_runs(path):
    """The same arms, under the names that the published methods and scores have here."""
    config, plain = kconfig.load(path), kconfig.load(path.with_name(path.name.removesuffix("-published")))
    assert config.on("OPTIMIZER") == plain.on("OPTIMIZER")
    assert config.on("ADAMWPRUNE_BASE") == plain.on("ADAMWPRUNE_BASE")
    assert config["TARGET_SPARSITY"] == plain["TARGET_SPARSITY"]
    methods = ["displacement" if m == "movement" else m for m in plain.on("PRUNING_METHOD")]
    assert config.on("PRUNING_METHOD") == methods


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
    text = "\n".join(describe(config, runner.check(config)))
    assert all(s.id in text for s in expand(config))
