"""A model's command line, made from the settings that exist: no flag is written down twice.

A flag is an assignment: `--target-sparsity 0.7` sets TARGET_SPARSITY, `--epochs 3` of lenet5 sets LENET5_EPOCHS, and
`--optimizer adamw` the axis member OPTIMIZER_ADAMW. All are set in one Kconfig, so what a flag cannot combine with is
refused with the reason, as it is in a `.config`. The help text of a flag is its prompt in Kconfig.
"""

import argparse
import dataclasses
import re
from dataclasses import dataclass
from difflib import get_close_matches

from lib import kconfig
from lib.config import Config, InputError, Steps
from lib.hyper import Recipe, Training, own_batch
from lib.monitor.client import MonitorOptions
from lib.optim.adamwprune import DEFAULT_BASE
from lib.optim.base import OPTIMIZERS, AdamOptions, UpdateOptions
from lib.prune.base import PruningOptions
from lib.prune.state import DEFAULT_VARIANT
from lib.registry import unknown

AXES = ("dataset", "optimizer", "pruning_method", "adamwprune_variant", "adamwprune_base")
DEFAULTS = {"adamwprune_variant": DEFAULT_VARIANT, "adamwprune_base": DEFAULT_BASE}  # of the axes that may be empty
# What a flag takes, by the type of its setting; everything else is text.
KINDS = {bool: "y|n", bool | None: "y|n", int: "N", float: "X", float | None: "X", Steps: "STEPS|%"}
NEAR = 4  # names that an error offers


@dataclass(frozen=True)
class Request:
    """Either the directory of a run, to be trained or to be probed for a few steps, or a config of one run."""

    run: str | None = None
    probe: bool = False
    config: Config | None = None


def settings(model: str) -> dict[str, tuple[type, str]]:
    """Flag name -> (settings class, prefix of its symbol) for every setting of a run."""
    head = f"{model.upper()}_"
    found = {f.name: (Recipe, head) for f in dataclasses.fields(Recipe) if known(head + f.name.upper())}
    classes = [Training, PruningOptions, MonitorOptions, *(o for n in OPTIMIZERS for o in OPTIMIZERS[n].options)]
    for cls in dict.fromkeys(classes):
        found |= {f.name: (cls, "") for f in dataclasses.fields(cls) if f.name not in ("seeds", "run_id")}
    return found


class Parser(argparse.ArgumentParser):
    """argparse, with what it does not take as an InputError of two lines: its own usage of 90 flags hides them."""

    def error(self, message: str):
        raise InputError(f"{message}\n{self.hint}")

    @property
    def hint(self) -> str:
        return f"`python {self.prog} --help` lists every flag with its default"

    def known_flags(self) -> dict[str, str]:
        """Flag -> its help text, in order."""
        shown = (a for a in self._actions if a.option_strings and a.help is not argparse.SUPPRESS)
        return {a.option_strings[-1]: a.help or "" for a in shown}

    def unknown_flag(self, word: str) -> InputError:
        """The error for a flag that there is not: near names first, then flags whose help has all of its words."""
        name = word.partition("=")[0]
        if not name.startswith("--"):
            return InputError(f"{word!r} is no flag: every setting is given as --name value\n{self.hint}")
        flags, words = self.known_flags(), name.strip("-").split("-")
        said = [
            f for f, text in flags.items() if all(re.search(rf"\b{re.escape(w)}", f"{f} {text}", re.I) for w in words)
        ]
        names = [*get_close_matches(name, list(flags), n=3, cutoff=0.75), *said]
        bare = {f.strip("-"): f for f in flags}
        near = [bare[n] for n in get_close_matches(name.strip("-"), list(bare), n=3, cutoff=0.6)]
        names = list(dict.fromkeys(names or near))[:NEAR]
        mean = f"; did you mean {' or '.join(names)}?" if names else ""
        return InputError(f"unknown flag {name}{mean}\n{self.hint}")


def parser(model: str) -> Parser:
    p = Parser(
        prog=f"{model}/train.py",
        usage=f"python {model}/train.py [--dataset NAME] [--optimizer NAME] [--epochs N]\n"
        f"       [--pruning-method NAME --target-sparsity SHARE] [any flag below]",
        description=f"Train one {model} run. Without flags: adamw, no pruning, the model's recipe. Results go to a "
        f"test_matrix_results_* directory in the repository. In brackets: what holds where a flag is not given.",
        allow_abbrev=False,
    )
    p.add_argument("--config", metavar="FILE", help="a .config of one run; other flags are then not allowed")
    p.add_argument("--run", metavar="DIR", help="a prepared run directory; other flags are then not allowed")
    p.add_argument(
        "--probe", action="store_const", const=True, help=argparse.SUPPRESS
    )  # of lib/estimate.py, with --run
    cell = p.add_argument_group("the run")
    flagless = from_flags(model, {})
    for axis in AXES:
        head = f"{model.upper()}_DATASET" if axis == "dataset" else axis.upper()
        taken = flagless.on(head) or [a for a in (DEFAULTS.get(axis),) if a]
        cell.add_argument(flag(axis), metavar="NAME", help=f"{' | '.join(members(head))} [{', '.join(taken)}]")
    cell.add_argument("--target-sparsity", metavar="SHARE", help="share of the prunable weights: above 0, below 1")
    cell.add_argument("--seed", metavar="N", help="seed of every random choice [0]")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, (cls, prefix) in settings(model).items():
        heading = title(model, cls)
        if heading not in groups:
            groups[heading] = p.add_argument_group(heading)
        field = next(f for f in dataclasses.fields(cls) if f.name == name)
        metavar = "NAME" if field.metadata.get("choice") else KINDS.get(field.type, "TEXT")
        symbol = f"{prefix}{name}".upper()
        groups[heading].add_argument(flag(name), metavar=metavar, help=described(model, field, symbol, flagless))
    return p


def title(model: str, cls: type) -> str:
    """The heading of a group of flags."""
    if cls is Recipe:
        return f"recipe of {model}"
    if cls in (AdamOptions, UpdateOptions):
        return "Adam family"
    owner = cls.__name__.removesuffix("Options").lower()
    return f"{owner} alone" if owner in OPTIMIZERS else owner


def known(symbol: str) -> bool:
    """Whether Kconfig has it: a setting of a recipe is only some models'."""
    return symbol in kconfig.tree().syms or bool(members(symbol))


def described(model: str, field: dataclasses.Field, symbol: str, flagless: Config) -> str:
    """The prompt in Kconfig, with the members of a choice; and the value without the flag."""
    if field.metadata.get("choice"):
        text = f"{kconfig.choice_prompt(symbol + '_')}: {' | '.join(members(symbol))}"
        value = (flagless.on(symbol) or [field.default])[0]
    else:
        text, value = kconfig.prompt(symbol) or "", flagless.get(symbol, kconfig.default_text(symbol))
    if field.name == "batch_size" and value == "0":
        own = {d: own_batch(flagless, model, d) for d in members(f"{model.upper()}_DATASET")}
        usual, *others = dict.fromkeys(own.values())
        value = ", ".join([str(usual), *(f"{n} on {' and '.join(d for d in own if own[d] == n)}" for n in others)])
    return (f"{text} [{value}]" if value else text).replace("%", "%%")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def members(axis: str) -> list[str]:
    """All members of an axis or choice, in Kconfig's order, whether they can be set now or not."""
    head = axis + "_"
    bools = [s for s in kconfig.tree().unique_defined_syms if s.name.startswith(head) and s.orig_type == kconfig.BOOL]
    return [s.name[len(head) :].lower() for s in bools]


def parse(model: str, argv: list[str]) -> Request:
    """Raises InputError for flags that there are not, or that do not fit together; --help prints, and exits."""
    flags = parser(model)
    found, rest = flags.parse_known_args(argv)
    if rest:
        raise flags.unknown_flag(next((w for w in rest if w.startswith("--")), rest[0]))
    given = {k: v for k, v in vars(found).items() if v is not None}
    probe = given.pop("probe", False)
    if probe and "run" not in given:
        raise InputError("--probe goes with --run DIR: it measures a few steps of a prepared run")
    for alone in ("run", "config"):
        if alone in given and len(given) > 1:
            others = ", ".join(flag(k) for k in given if k != alone)
            raise InputError(f"--{alone} says everything about a run: {others} cannot be given beside it")
    if "run" in given:
        return Request(run=given["run"], probe=probe)
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
