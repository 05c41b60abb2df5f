"""A model's command line, made from the settings that exist: no flag is written down twice.

A flag is an assignment: `--target-sparsity 0.7` sets TARGET_SPARSITY, `--epochs 3` of lenet5 sets LENET5_EPOCHS, and
`--optimizer adamw` the axis member OPTIMIZER_ADAMW. All are set in one Kconfig, so what a flag cannot combine with is
refused with the reason, as it is in a `.config`. The help text of a flag is its prompt in Kconfig.
"""

import argparse
import dataclasses
from dataclasses import dataclass

from lib import kconfig
from lib.config import Config, InputError
from lib.hyper import Recipe, Training
from lib.monitor.client import MonitorOptions
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PruningOptions
from lib.registry import unknown

AXES = ("dataset", "optimizer", "pruning_method", "adamwprune_variant", "adamwprune_base")


@dataclass(frozen=True)
class Request:
    """Either the directory of a run, or a config of one run."""

    run: str | None = None
    config: Config | None = None


def settings(model: str) -> dict[str, tuple[type, str]]:
    """Flag name -> (settings class, prefix of its symbol) for every setting of a run."""
    head = f"{model.upper()}_"
    found = {f.name: (Recipe, head) for f in dataclasses.fields(Recipe) if known(head + f.name.upper())}
    classes = [Training, PruningOptions, MonitorOptions, *(o for n in OPTIMIZERS for o in OPTIMIZERS[n].options)]
    for cls in dict.fromkeys(classes):
        found |= {f.name: (cls, "") for f in dataclasses.fields(cls) if f.name not in ("seeds", "run_id")}
    return found


def parser(model: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog=f"{model}/train.py",
        description=f"Train one {model} run. Without flags: adamw, no pruning, the model's recipe. Results go to a "
        f"test_matrix_results_* directory in the repository.",
        allow_abbrev=False,
    )
    p.add_argument("--config", metavar="FILE", help="a .config of one run; other flags are then not allowed")
    p.add_argument("--run", metavar="DIR", help="a prepared run directory; other flags are then not allowed")
    cell = p.add_argument_group("the run")
    for axis in AXES:
        head = f"{model.upper()}_DATASET" if axis == "dataset" else axis.upper()
        cell.add_argument(flag(axis), metavar="NAME", help=" | ".join(members(head)))
    cell.add_argument("--target-sparsity", metavar="SHARE", help="share of the prunable weights: above 0, below 1")
    cell.add_argument("--seed", metavar="N", help="seed of every random choice (default 0)")
    groups: dict[type, argparse._ArgumentGroup] = {}
    for name, (cls, prefix) in settings(model).items():
        if cls not in groups:
            groups[cls] = p.add_argument_group(cls.__name__.removesuffix("Options").lower())
        field = next(f for f in dataclasses.fields(cls) if f.name == name)
        kind = "y|n" if field.type is bool else "VALUE"
        groups[cls].add_argument(flag(name), metavar=kind, help=described(field, f"{prefix}{name}".upper()))
    return p


def known(symbol: str) -> bool:
    """Whether Kconfig has it: a setting of a recipe is only some models'."""
    return symbol in kconfig.tree().syms or bool(members(symbol))


def described(field: dataclasses.Field, symbol: str) -> str:
    """The members of a choice, or the prompt in Kconfig; and the default."""
    text = " | ".join(members(symbol)) if field.metadata.get("choice") else kconfig.prompt(symbol) or ""
    default = {True: "y", False: "n", None: ""}.get(field.default, field.default)
    return (f"{text} [{default}]" if str(default) else text).replace("%", "%%")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def members(axis: str) -> list[str]:
    """All members of an axis or choice, in Kconfig's order, whether they can be set now or not."""
    head = axis + "_"
    bools = [s for s in kconfig.tree().unique_defined_syms if s.name.startswith(head) and s.orig_type == kconfig.BOOL]
    return [s.name[len(head) :].lower() for s in bools]


def parse(model: str, argv: list[str]) -> Request:
    """Raises InputError for flags that do not fit together; argparse itself exits with 2."""
    given = {k: v for k, v in vars(parser(model).parse_args(argv)).items() if v is not None}
    for alone in ("run", "config"):
        if alone in given and len(given) > 1:
            others = ", ".join(flag(k) for k in given if k != alone)
            raise InputError(f"--{alone} says everything about a run: {others} cannot be given beside it")
    if "run" in given:
        return Request(run=given["run"])
    if "config" in given:
        return Request(config=kconfig.load(given["config"]))
    return Request(config=from_flags(model, given))


def from_flags(model: str, given: dict[str, str]) -> Config:
    upper = model.upper()
    datasets = members(f"{upper}_DATASET")
    chosen = {"dataset": datasets[0], "optimizer": "adamw", "pruning_method": "none"} | given
    lines = [(f"MODEL_{upper}", "y", "default")]
    for axis in AXES:
        if axis in chosen:
            head = f"{upper}_DATASET" if axis == "dataset" else axis.upper()
            lines.append(_member(head, axis, chosen[axis]))
    flags = settings(model)
    for name, value in given.items():
        where = f"{flag(name)} {value}"
        if name == "seed":
            if not (value.isascii() and value.isdigit()):
                raise InputError(f"--seed {value}: give a whole number, 0 or more")
            lines.append(("SEEDS", f"{value},", where))
        elif name == "target_sparsity":
            lines.append(("TARGET_SPARSITY", value, where))
        elif name in flags:
            cls, prefix = flags[name]
            field = next(f for f in dataclasses.fields(cls) if f.name == name)
            symbol = (prefix + name).upper()
            lines.append(_member(symbol, name, value) if field.metadata.get("choice") else (symbol, value, where))
    return kconfig.apply(None, lines)


def _member(head: str, axis: str, value: str) -> tuple[str, str, str]:
    found = members(head)
    if value not in found:
        raise InputError(f"{flag(axis)}: {unknown(axis.replace('_', ' '), value, found)}")
    return (f"{head}_{value.upper()}", "y", f"{flag(axis)} {value}")
