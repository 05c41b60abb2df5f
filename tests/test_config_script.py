"""What the scripts behind menuconfig, olddefconfig and savedefconfig say of the .config that they leave."""

import importlib

import pytest

from lib import kconfig
from lib.config import InputError

RUNS = "CONFIG_MODEL_LENET5=y\nCONFIG_OPTIMIZER_ADAMW=y\nCONFIG_PRUNING_METHOD_NONE=y\n"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """scripts/config.py on a .config of its own."""
    module = importlib.import_module("scripts.config")
    monkeypatch.setattr(module, "CONFIG", tmp_path / ".config")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(kconfig, "CONFIG", tmp_path / ".config")
    return module


@pytest.mark.parametrize("command", ["olddefconfig", "savedefconfig"])
def test_a_model_without_a_data_set_is_said(script, capsys, command):
    script.CONFIG.write_text(RUNS)
    getattr(script, command)()
    said = capsys.readouterr().out
    assert said.startswith("missing: the axis LENET5_DATASET is empty: set at least one of LENET5_DATASET_MNIST, ")
    assert "CONFIG_LENET5_DATASET_MNIST=y in .config" in said
    assert "is complete" not in said


@pytest.mark.parametrize("command", ["olddefconfig", "savedefconfig"])
def test_nothing_is_missing_where_there_are_runs(script, capsys, command):
    script.CONFIG.write_text(RUNS + "CONFIG_LENET5_DATASET_DIGITS=y\n")
    getattr(script, command)()
    said = capsys.readouterr().out
    assert "missing" not in said
    assert ("is complete" in said) == (command == "olddefconfig")


def test_the_beginning_of_presets_names_them(script):
    with pytest.raises(InputError) as e:
        script.preset("resnet50-imagenet-")
    assert str(e.value).endswith("these begin so: resnet50-imagenet-adamwprune-vs-adamwspam")
    with pytest.raises(InputError, match="these begin so: resnet18-adamw-vs-adamwprune, .*, resnet18-state-pruning"):
        script.preset("resnet18")
