"""Overrides change one invocation, are checked as a .config is, and are recorded in each run's own config."""

import pytest

from lib import describe, hyper, kconfig, overrides, runner
from lib.config import Config, InputError
from lib.matrix import expand
from lib.rundir import RunDir


def given(**values: str) -> dict[str, str]:
    return overrides.from_environment({f"OVERRIDE_{k}": v for k, v in values.items()})


def test_only_overrides_are_taken():
    environ = {"EPOCHS": "3", "OVERRIDE_EPOCHS": "4", "OVERRIDE_NONE": "5", "OVERRIDE_SET": "A=1", "SEEDS": "7"}
    assert overrides.from_environment(environ) == {"EPOCHS": "4", "SET": "A=1"}


@pytest.mark.parametrize("name", overrides.NAMES)
@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_given_but_empty(name, value):
    with pytest.raises(InputError, match=f"{name}= is given but empty"):
        given(**{name: value})


@pytest.mark.parametrize("name", overrides.NAMES)
def test_a_line_break(name):
    with pytest.raises(InputError, match=f"{name}: a line break"):
        given(**{name: "1\nCONFIG_RUN_ID=x"})


@pytest.mark.parametrize("name", ["EPOCHS", "MAX_ITERS"])
@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5", "1e3", "٣", "²", "3 4", "$(shell touch x)", "0x3", "+3"])
def test_lengths_that_are_none(quickstart, name, value):
    with pytest.raises(InputError) as e:
        overrides.apply(quickstart, {name: value})
    assert str(e.value) == f"{name}={value}: give a whole number of at least 1"


@pytest.mark.parametrize(("name", "top"), [("EPOCHS", 1_000_000), ("MAX_ITERS", 1_000_000_000)])
def test_lengths_beyond_kconfigs_range(quickstart, name, top):
    overrides.apply(quickstart, {name: str(top)})
    with pytest.raises(InputError, match=f"{name}.* from [01] to {top}"):
        overrides.apply(quickstart, {name: str(top + 1)})


def test_epochs_keep_the_recipes_own_length(quickstart):
    config = overrides.apply(quickstart, {"EPOCHS": "03"})
    assert (config["LENET5_EPOCHS"], config["LENET5_RECIPE_EPOCHS"]) == ("3", "20")
    again = overrides.apply(config, {"EPOCHS": "2"})
    assert (again["LENET5_EPOCHS"], again["LENET5_RECIPE_EPOCHS"]) == ("2", "20")


def test_max_iters_keeps_the_recipes_own_length(quickstart):
    config = overrides.apply(quickstart, {"MAX_ITERS": "5"})
    assert (config["MAX_ITERS"], config["LENET5_EPOCHS"], config["LENET5_RECIPE_EPOCHS"]) == ("5", "20", "20")


def test_epochs_and_max_iters(quickstart):
    with pytest.raises(InputError, match="EPOCHS=3 and MAX_ITERS=5: both set the length"):
        overrides.apply(quickstart, {"EPOCHS": "3", "MAX_ITERS": "5"})


@pytest.mark.parametrize("also", [{}, {"SET": "MAX_ITERS=7"}], ids=["in .config", "in SET"])
def test_epochs_that_max_iters_would_make_idle(quickstart, also):
    config = quickstart if also else quickstart.replace({"MAX_ITERS": "7"})
    with pytest.raises(InputError, match="EPOCHS=3 would be ignored: CONFIG_MAX_ITERS='7'|SET: CONFIG_MAX_ITERS='7'"):
        overrides.apply(config, {"EPOCHS": "3"} | also)


@pytest.mark.parametrize(
    ("preset", "epochs", "mends"),
    [("gpt2-finewebedu-bitter-lesson", "3", "750"), ("gpt2-finewebedu-bitter-lesson", "50", "1000")],
)
def test_the_message_names_the_command_that_shortens_the_runs(preset, epochs, mends):
    """So many epochs in steps, or, where that is no shorter than MAX_ITERS=10000, a tenth of it."""
    config = kconfig.load(kconfig.PRESETS / preset)
    with pytest.raises(InputError, match=rf"ends the runs; `make MAX_ITERS={mends}` makes them shorter"):
        overrides.apply(config, {"EPOCHS": epochs})
    shorter = overrides.apply(config, {"MAX_ITERS": mends})
    assert {runner.lengths(shorter, spec).steps for spec in expand(shorter)} == {int(mends)}


def test_simple_overrides(quickstart):
    config = overrides.apply(quickstart, {"SEEDS": "4,7", "DATA_DIR": "a b", "RESULTS": "$(x)"})
    assert (config["SEEDS"], config["DATA_DIR"], config["RESULTS"]) == ("4,7", "a b", "$(x)")


def test_no_overrides_change_nothing(quickstart):
    assert overrides.apply(quickstart, {}) is quickstart


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LENET5_ADAM_LR=0.01", {"LENET5_ADAM_LR": "0.01"}),
        ("CONFIG_LENET5_ADAM_LR=0.01", {"LENET5_ADAM_LR": "0.01"}),
        ("LENET5_EPOCHS=3 SEEDS=2", {"LENET5_EPOCHS": "3", "SEEDS": "2"}),
        ("DATA_DIR='two words' SEEDS=2", {"DATA_DIR": "two words", "SEEDS": "2"}),
        ('DATA_DIR="it\'s"', {"DATA_DIR": "it's"}),
        ("DATA_DIR=a\\ b", {"DATA_DIR": "a b"}),
        ("'DATA_DIR=$(shell touch x)'", {"DATA_DIR": "$(shell touch x)"}),
        ("DATA_DIR=`id`", {"DATA_DIR": "`id`"}),
        ("DATA_DIR=a=b", {"DATA_DIR": "a=b"}),
        ("DATA_DIR=", {"DATA_DIR": ""}),
        ("OPTIMIZER_SGD=y SGD_NESTEROV=y", {"OPTIMIZER_SGD": "y", "SGD_NESTEROV": "y"}),
        ("SGD_NESTEROV=y OPTIMIZER_SGD=y", {"OPTIMIZER_SGD": "y", "SGD_NESTEROV": "y"}),
        ("DEVICE_CPU=y", {"DEVICE_CPU": "y", "DEVICE_AUTO": "n"}),
        ("ADAMWPRUNE_BASE_OPTIMIZER_NAME=adamwspam", {"ADAMWPRUNE_BASE_ADAMWSPAM": "y", "ADAMWPRUNE_BASE_ADAMW": "n"}),
    ],
)
def test_set(quickstart, text, expected):
    config = overrides.apply(quickstart, {"SET": text})
    assert {n: config[n] for n in expected} == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("LENET5_EPOCH=3", "SET: CONFIG_LENET5_EPOCH: unknown symbol 'LENET5_EPOCH'; did you mean LENET5_EPOCHS"),
        ("SPAM_THETA=50", "SET: CONFIG_SPAM_THETA=50 is dropped: it depends on"),
        ("LENET5_EPOCHS=0", "SET: CONFIG_LENET5_EPOCHS=0 is refused: give a whole number from 1"),
        ("LENET5_EPOCHS", "'LENET5_EPOCHS' is not NAME=value"),
        ("=3", "'=3' is not NAME=value"),
        ("CONFIG_=3", "'CONFIG_=3' is not NAME=value"),
        ("DATA_DIR=two words", "'words' is not NAME=value"),
        ("DATA_DIR='open", "No closing quotation"),
        ("LENET5_ADAM_LR=$(shell touch x)", "'touch' is not NAME=value"),
        ("ADAMWPRUNE_BASE_OPTIMIZER_NAME=sgd", "unknown base optimizer 'sgd'"),
        ("ADAMWPRUNE_BASE_OPTIMIZER_NAME=adam ADAMWPRUNE_BASE_ADAMW=y", "disagrees"),
    ],
)
def test_set_that_is_refused(quickstart, text, says):
    with pytest.raises(InputError) as e:
        overrides.apply(quickstart, {"SET": text})
    assert says in str(e.value)


def test_lengths_in_steps_shrink_with_the_run(quickstart):
    """A count given in steps is scaled by the share of the recipe's length that is left; a share of the run is not."""
    config = overrides.apply(quickstart, {"SET": "PRUNING_WARMUP=40 PRUNING_RAMP_END=200 PRUNING_FREQUENCY=20"})
    spec = next(s for s in expand(config) if s.id == "lenet5_adamw_magnitude_50")
    full = describe.pruning_schedule(config, spec)
    assert (runner.lengths(config, spec).steps, full.warmup, full.ramp_end, full.frequency) == (360, 40, 200, 20)
    for short in (overrides.apply(config, {"EPOCHS": "10"}), overrides.apply(config, {"MAX_ITERS": "180"})):
        found = describe.pruning_schedule(short, spec)
        assert (runner.lengths(short, spec).steps, found.warmup, found.ramp_end, found.frequency) == (180, 20, 100, 10)
    longer = describe.pruning_schedule(overrides.apply(config, {"EPOCHS": "40"}), spec)
    assert (longer.warmup, longer.ramp_end, longer.frequency) == (40, 200, 20)


@pytest.mark.parametrize("short", [{"EPOCHS": "1"}, {"MAX_ITERS": "1"}, {"MAX_ITERS": "2"}, {"MAX_ITERS": "7"}])
def test_a_shortened_run_still_reaches_its_target(quickstart, short):
    config = overrides.apply(quickstart, short)
    for spec in expand(config):
        if spec.target_sparsity:
            found = describe.pruning_schedule(config, spec)
            assert found.asked(runner.lengths(config, spec).steps) == spec.target_sparsity


def test_overrides_are_recorded_in_each_runs_config(quickstart, tmp_path):
    dotconfig = tmp_path / ".config"
    quickstart.write(dotconfig)
    before = dotconfig.read_bytes()
    values = {"EPOCHS": "3", "SEEDS": "4,7", "RESULTS": str(tmp_path / "results"), "SET": "LENET5_ADAM_LR=0.01"}
    root = runner.prepare(overrides.apply(kconfig.load(dotconfig), given(**values)))
    assert dotconfig.read_bytes() == before
    runs = sorted(p.parent for p in root.glob("*/config"))
    assert len(runs) == 22
    for run in runs:
        config = Config.load(run / "config")
        assert hyper.read_recipe(config, "lenet5", "digits").epochs == 3
        assert (config["LENET5_RECIPE_EPOCHS"], config["LENET5_ADAM_LR"]) == ("20", "0.01")
        assert expand(config) == [RunDir(run).spec()]
        assert expand(kconfig.load(run / "config")) == [RunDir(run).spec()]
    assert Config.load(root / "config")["SEEDS"] == "4,7"
