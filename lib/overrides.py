"""EPOCHS=, SEEDS=, MAX_ITERS=, DATA_DIR=, RESULTS= and SET=: changes to a Config for one invocation.

They are read from the environment (the Makefile puts them there, unexpanded), never touch `.config`, and end up in
each run's own config. Lengths given in steps shrink with a run that an override shortens: `<MODEL>_RECIPE_EPOCHS`
keeps the length they were chosen for.
"""

import os
import shlex
from collections.abc import Mapping

from lib import hyper, kconfig
from lib.config import Config, InputError, refuse_unwritable
from lib.data.base import DATASETS

NAMES = ("EPOCHS", "SEEDS", "MAX_ITERS", "DATA_DIR", "RESULTS", "SET")
PREFIX = "OVERRIDE_"


def from_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The overrides that were given; one given but empty is an InputError."""
    environ = os.environ if environ is None else environ
    found = {n: environ[PREFIX + n] for n in NAMES if PREFIX + n in environ}
    for name, value in found.items():
        if not value.strip():
            raise InputError(f"{name}= is given but empty: give it a value or leave it out")
        refuse_unwritable(name, value)
    return found


def existing() -> str:
    """RESULTS= for a command on a results directory, which goes on with its own config: no other override fits."""
    given = from_environment()
    wrong = [n for n in given if n != "RESULTS"]
    if wrong:
        raise InputError(
            f"{', '.join(wrong)}: a results directory goes on with its own config; only RESULTS= can be given"
        )
    return given.get("RESULTS", "")


def apply(config: Config, given: Mapping[str, str]) -> Config:
    """`config` with the overrides. Raises InputError naming the override and what it takes."""
    lines = parse_set(given.get("SET", ""))
    if lines:
        config = kconfig.apply(config, lines)
    lines = [(n, given[n], f"{n}={given[n]}") for n in ("SEEDS", "DATA_DIR", "RESULTS") if n in given]
    if "EPOCHS" in given and "MAX_ITERS" in given:
        raise InputError(f"EPOCHS={given['EPOCHS']} and MAX_ITERS={given['MAX_ITERS']}: both set the length; give one")
    if "EPOCHS" in given:
        if config.get("MAX_ITERS", "0") != "0":
            epochs = _whole("EPOCHS", given["EPOCHS"])
            raise InputError(
                f"EPOCHS={epochs} would be ignored: {config.where('MAX_ITERS')} ends the runs; "
                f"`make MAX_ITERS={iterations(config, int(epochs))}` makes them shorter"
            )
        _whole("EPOCHS", given["EPOCHS"])
    if "MAX_ITERS" in given:
        lines.append(("MAX_ITERS", _whole("MAX_ITERS", given["MAX_ITERS"]), "MAX_ITERS="))
    if "EPOCHS" in given or "MAX_ITERS" in given:
        for model in config.on("MODEL"):
            lines += _length(config, model.upper(), given)
    return kconfig.apply(config, lines) if lines else config


def iterations(config: Config, epochs: int) -> int:
    """Steps of so many epochs of the first run, where that is less than MAX_ITERS; else a tenth of MAX_ITERS."""
    most, model = int(config["MAX_ITERS"]), next(iter(config.on("MODEL")), "")
    dataset = next(iter(config.on(f"{model.upper()}_DATASET")), "")
    if dataset:
        samples = DATASETS[dataset].train_samples(config["FULL_TRAIN"] == "y")
        steps = epochs * hyper.length(hyper.read_recipe(config, model, dataset), 0, samples).steps_per_epoch
        if steps < most:
            return steps
    return max(1, most // 10)


def _whole(name: str, text: str) -> str:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise InputError(f"{name}={text}: give a whole number of at least 1")
    return str(int(text))


def _length(config: Config, model: str, given: Mapping[str, str]) -> list[tuple[str, str, str]]:
    keep = config[f"{model}_RECIPE_EPOCHS"]
    if keep == "0":
        keep = config[f"{model}_EPOCHS"]
    lines = [(f"{model}_RECIPE_EPOCHS", keep, "EPOCHS=")]
    if "EPOCHS" in given:
        lines.append((f"{model}_EPOCHS", str(int(given["EPOCHS"])), "EPOCHS="))
    return lines


def parse_set(text: str) -> list[tuple[str, str, str]]:
    """SET="A=1 B='two words'" -> [(A, 1, where), (B, two words, where)]."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise InputError(f"SET={text!r}: {e}") from None
    pairs = []
    for word in words:
        name, eq, value = word.partition("=")
        name = name.removeprefix("CONFIG_")
        if not eq or not name:
            raise InputError(f'SET={text!r}: {word!r} is not NAME=value, such as SET="LENET5_BATCH_SIZE=128"')
        pairs.append((name, value, "SET"))
    return kconfig.expand_base_list(pairs)
