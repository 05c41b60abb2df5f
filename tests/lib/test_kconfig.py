"""lib.kconfig: every line of a configuration survives, or an error names it."""

import re

import pytest

from lib import kconfig
from lib.config import Config, InputError

# The configuration block of the published ResNet-50 findings, as it stands there.
PUBLISHED = """\
CONFIG_ADAMWPRUNE_BASE_OPTIMIZER_NAME="adamw"
CONFIG_ADAMWPRUNE_BETA1=0.9
CONFIG_ADAMWPRUNE_BETA2=0.999
CONFIG_ADAMWPRUNE_WEIGHT_DECAY=0.01
CONFIG_ADAMWPRUNE_AMSGRAD=true
"""
LIST = "ADAMWPRUNE_BASE_OPTIMIZER_NAME"
PRESETS = sorted(p.name for p in (kconfig.ROOT / "defconfigs").iterdir())


@pytest.fixture
def load(tmp_path):
    """Load a preset with lines appended, or lines alone."""

    def load(text: str, preset: str = "quickstart") -> Config:
        base = (kconfig.ROOT / "defconfigs" / preset).read_text() if preset else ""
        path = tmp_path / "config"
        path.write_text(base + text)
        return kconfig.load(path)

    return load


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("CONFIG_SPAM_TETA=50", ["CONFIG_SPAM_TETA", "unknown symbol", "did you mean SPAM_THETA"]),
        ("CONFIG_OPTIMISER_ADAM=y", ["CONFIG_OPTIMISER_ADAM", "did you mean OPTIMIZER_ADAM"]),
        ("CONFIG_XYZZY=y", ["CONFIG_XYZZY", "unknown symbol 'XYZZY'. ", "are known"]),
        (
            "CONFIG_SPAM_THETA=50",
            ["CONFIG_SPAM_THETA=50 is dropped", "depends on OPTIMIZER_ADAMWSPAM || ADAMWPRUNE_BASE_ADAMWSPAM"]
            + ["OPTIMIZER_ADAMWSPAM=n", "ADAMWPRUNE_BASE_ADAMWSPAM=n"],
        ),
        ("CONFIG_SGD_NESTEROV=y", ["CONFIG_SGD_NESTEROV=y is dropped", "OPTIMIZER_SGD=n"]),
        ("# CONFIG_MONITOR is not set\nCONFIG_MONITOR_INTERVAL=5", ["MONITOR_INTERVAL=5 is dropped", "MONITOR=n"]),
        ("CONFIG_LENET5_EPOCHS=0", ["CONFIG_LENET5_EPOCHS=0 is refused", "whole number from 1 to 1000000"]),
        ("CONFIG_LENET5_EPOCHS=1000001", ["is refused", "from 1 to 1000000"]),
        ("CONFIG_LENET5_EPOCHS=-3", ["is refused", "from 1 to 1000000"]),
        ("CONFIG_LENET5_EPOCHS=three", ["CONFIG_LENET5_EPOCHS=three", "whole number from 1 to 1000000"]),
        ('CONFIG_LENET5_EPOCHS=""', ["CONFIG_LENET5_EPOCHS=", "whole number"]),
        ("CONFIG_FULL_TRAIN=maybe", ["CONFIG_FULL_TRAIN=maybe", "give y or n"]),
        ("CONFIG_FULL_TRAIN=m", ["CONFIG_FULL_TRAIN=m", "give y or n"]),
        ("CONFIG_DEVICE_CPU=y\nCONFIG_DEVICE_CUDA=y", ["DEVICE_CUDA=y and CONFIG_DEVICE_CPU=y", "one choice"]),
        ("# CONFIG_DEVICE_AUTO is not set", ["CONFIG_DEVICE_AUTO=n is refused", "set another one"]),
        ("CONFIG_LENET5_MFLOP=9", ["CONFIG_LENET5_MFLOP=9 is refused", "a fact (3)"]),
        ("CONFIG_DATA_DIR", ["not a configuration line"]),
        (f"CONFIG_{LIST}=adamvv", [f"CONFIG_{LIST}", "unknown base optimizer 'adamvv'", "did you mean adam or adamw"]),
        (f"CONFIG_{LIST}=sgd", [f"CONFIG_{LIST}", "unknown base optimizer 'sgd'", "adamwspam"]),
        (f"CONFIG_{LIST}=adam", [f"CONFIG_{LIST}='adam' disagrees", "CONFIG_ADAMWPRUNE_BASE_*, which sets adamw"]),
        (f"CONFIG_{LIST}=adam,adamw", ["disagrees", "which sets adamw:"]),
    ],
)
def test_a_line_that_does_not_survive(load, tmp_path, lines, says):
    with pytest.raises(InputError) as e:
        load(lines + "\n")
    at = (tmp_path / "config").read_text().count("\n")
    assert str(e.value).startswith(f"{tmp_path / 'config'}:{at}: ")
    for part in says:
        assert part in str(e.value)


def test_the_message_gives_the_present_value(load):
    """The dependency is named with its value after all lines are set, not with its default."""
    with pytest.raises(InputError, match=r"depends on OPTIMIZER_ADAMWPRUNE \(now OPTIMIZER_ADAMWPRUNE=n\)"):
        load("CONFIG_OPTIMIZER_ADAMW=y\nCONFIG_ADAMWPRUNE_BETA1=0.5\n", preset="")


def test_a_later_line_wins(load):
    assert load("CONFIG_LENET5_EPOCHS=3\nCONFIG_LENET5_EPOCHS=4\n")["LENET5_EPOCHS"] == "4"


def test_published_block_loads(load, tmp_path):
    config = load(PUBLISHED)
    assert config.on("ADAMWPRUNE_BASE") == ["adamw"]
    values = [config[f"ADAMWPRUNE_{n}"] for n in ("BETA1", "BETA2", "WEIGHT_DECAY", "AMSGRAD")]
    assert values == ["0.9", "0.999", "0.01", "true"]
    config.write(tmp_path / "written")
    text = (tmp_path / "written").read_text()
    assert LIST not in text
    assert 'CONFIG_ADAMWPRUNE_BETA1="0.9"\n' in text
    assert dict(kconfig.load(tmp_path / "written")) == dict(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_published_block_loads_with_every_preset_that_has_adamwprune(load, preset):
    text = (kconfig.ROOT / "defconfigs" / preset).read_text()
    bases = re.findall(r"^CONFIG_ADAMWPRUNE_BASE_(\w+)=y", text, re.MULTILINE)
    if "CONFIG_OPTIMIZER_ADAMWPRUNE=y" not in text:
        with pytest.raises(InputError, match="depends on OPTIMIZER_ADAMWPRUNE"):
            load(PUBLISHED, preset)
    elif bases not in ([], ["ADAMW"]):
        with pytest.raises(InputError, match="disagrees"):
            load(PUBLISHED, preset)
    else:
        assert load(PUBLISHED, preset)["ADAMWPRUNE_AMSGRAD"] == "true"


@pytest.mark.parametrize(
    ("value", "bases"),
    [
        ('"adam,adamwspam"', ["adam", "adamwspam"]),
        ('" AdamWSPAM , adam "', ["adam", "adamwspam"]),
        ('""', []),
        ("adamwadv", ["adamwadv"]),
    ],
)
def test_base_list_becomes_bools(load, value, bases):
    config = load(f"CONFIG_OPTIMIZER_ADAMWPRUNE=y\nCONFIG_{LIST}={value}\n", preset="")
    assert config.on("ADAMWPRUNE_BASE") == bases
    assert LIST not in config


def test_base_list_is_the_whole_list():
    """On top of a configuration with other bases it replaces them: what it leaves out is off."""
    base = kconfig.apply(None, [("OPTIMIZER_ADAMWPRUNE", "y", "t"), ("ADAMWPRUNE_BASE_ADAMW", "y", "t")])
    config = kconfig.apply(base, kconfig.expand_base_list([(LIST, "adam,adamwadv", "t")]))
    assert config.on("ADAMWPRUNE_BASE") == ["adam", "adamwadv"]


def test_base_list_that_agrees_with_the_bools(load):
    assert load(f"CONFIG_{LIST}=adamw\n").on("ADAMWPRUNE_BASE") == ["adamw"]


@pytest.mark.parametrize("value", ["0.9", "a b", "50%", "y", "$(shell x)", "`x`", "it's", "a#b", "n"])
def test_bare_values_of_string_symbols_are_taken(load, value):
    assert load(f"CONFIG_DATA_DIR={value}\n")["DATA_DIR"] == value


def test_load_is_complete(load):
    """A preset names only what differs; the config has every symbol that could matter."""
    config = load("", "lenet5-sgd")
    assert config["LENET5_ADAM_LR"] == "0.003"
    assert config["OPTIMIZER_ADAM"] == "n"
    assert config["SGD_MOMENTUM"] == "0.9"
    assert "SPAM_THETA" not in config  # what it depends on is off
    assert "ADAMWPRUNE_BASE_ADAM" not in config


def test_load_forgets_the_file_before(load):
    load("CONFIG_LENET5_SGD_LR=0.7\nCONFIG_DEVICE_CPU=y\n")
    config = load("")
    assert (config["LENET5_SGD_LR"], config.on("DEVICE")) == ("0.05", ["auto"])


def test_apply_leaves_the_base(quickstart):
    before = dict(quickstart)
    config = kconfig.apply(quickstart, [("DEVICE_CUDA", "y", "t"), ("SEEDS", "3", "t")])
    assert (config.on("DEVICE"), config["SEEDS"]) == (["cuda"], "3")
    assert dict(quickstart) == before


def test_normalise_leaves_out_what_is_off(lenet5):
    assert "SGD_MOMENTUM" in lenet5
    config = kconfig.normalise(lenet5.replace({"OPTIMIZER_SGD": "n"}))
    assert "SGD_MOMENTUM" not in config
    assert {k: v for k, v in lenet5.items() if not k.startswith("SGD_")} | {"OPTIMIZER_SGD": "n"} == dict(config)
    assert dict(kconfig.normalise(config)) == dict(config)


def test_tidy_names_each_line_that_it_drops(tmp_path):
    path = tmp_path / "config"
    lines = [
        "MODEL_LENET5=y",
        "LENET5_EPOCHS=7",
        "GONE=1",
        "SPAM_THETA=50",
        "LENET5_MICRO_BATCH=-1",
        "FULL_TRAIN=maybe",
    ]
    path.write_text("".join(f"CONFIG_{line}\n" for line in lines))
    config, dropped = kconfig.tidy(path)
    assert config["LENET5_EPOCHS"] == "7"
    assert [re.match(r".*:(\d): CONFIG_(\w+)", d).groups() for d in dropped] == [
        ("3", "GONE"),
        ("4", "SPAM_THETA"),
        ("5", "LENET5_MICRO_BATCH"),
        ("6", "FULL_TRAIN"),
    ]
    config.write(path)
    assert kconfig.tidy(path)[1] == []
    assert dict(kconfig.load(path)) == dict(config)


def test_tidy_keeps_the_last_line_of_a_symbol(tmp_path):
    """And says which earlier ones it dropped: those that said something else."""
    path = tmp_path / "config"
    lines = [
        'ADAMWPRUNE_BETA1=""',
        "LENET5_EPOCHS=7",
        "OPTIMIZER_ADAM=y",
        "OPTIMIZER_ADAMWPRUNE=y",
        "OPTIMIZER_ADAM=n",
        "ADAMWPRUNE_BETA1=0.9",
        "LENET5_EPOCHS=7",
    ]
    path.write_text("".join(f"CONFIG_{line}\n" for line in ["MODEL_LENET5=y", *lines]))
    config, dropped = kconfig.tidy(path)
    assert dropped == [f"{path}:4: CONFIG_OPTIMIZER_ADAM=y is set again in line 6, which counts"]
    assert (config["ADAMWPRUNE_BETA1"], config["OPTIMIZER_ADAM"], config["LENET5_EPOCHS"]) == ("0.9", "n", "7")


def test_prompt():
    assert kconfig.prompt("SPAM_THETA") == "Spike threshold"
    assert kconfig.prompt("NO_SUCH") is None
