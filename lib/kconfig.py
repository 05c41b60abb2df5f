"""The only importer of kconfiglib: from Kconfig and a `.config` (or preset) to a complete, checked Config.

kconfiglib ignores bare values of string symbols and drops lines whose dependencies are unmet, both without a word.
Here a bare value is quoted, and every line must survive: an unknown symbol, a value Kconfig refuses or a line whose
dependencies are off is an InputError that names the symbol, the value and what it depends on.
"""

import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import kconfiglib

from lib import ROOT
from lib.config import Config, InputError, format_line, parse_line, read_whole, refuse_unwritable
from lib.registry import unknown

BOOL = kconfiglib.BOOL
CONFIG, PRESETS, DEFAULT = ROOT / ".config", ROOT / "defconfigs", "quickstart"
MISSING = "missing:"  # how a comment begins that is shown while nothing of what it stands before is set
KINDS = {kconfiglib.BOOL: "bool", kconfiglib.INT: "int", kconfiglib.STRING: "string"}
# Published as one comma list; it becomes the bools on reading and is never written.
BASE_LIST = "ADAMWPRUNE_BASE_OPTIMIZER_NAME"
BASE_AXIS = "ADAMWPRUNE_BASE"


@cache
def tree() -> kconfiglib.Kconfig:
    """The parsed Kconfig of this checkout, whatever directory the user stands in."""
    os.environ["srctree"], os.environ["CONFIG_"] = str(ROOT), "CONFIG_"
    kconf = kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)
    kconf.warn = False
    for node in kconf.comments:
        if node.prompt[0].startswith(MISSING):
            _show_while_unset(node)
    return kconf


def _show_while_unset(comment: kconfiglib.MenuNode) -> None:
    """Have a comment appear only while none of the bools after it is set (those of the menu after it, if it is one):
    Kconfig would have them all listed in a `depends on`, where a newcomer would be forgotten."""
    text, shown = comment.prompt
    node = comment.next
    node = node.list if node and node.item == kconfiglib.MENU else node
    while node and getattr(node.item, "orig_type", None) == kconfiglib.BOOL and node.prompt:
        shown = (kconfiglib.AND, shown, (kconfiglib.NOT, node.item))
        node = node.next
    comment.prompt = (text, shown)


def load(path: str | Path) -> Config:
    """Read a `.config` or a preset; every line must survive. Raises InputError naming the first line that does not."""
    return apply(None, read_lines(path))


def chosen() -> Path:
    """The configuration in force: .config, or the default preset where nothing is configured."""
    return CONFIG if CONFIG.exists() else PRESETS / DEFAULT


def read_lines(path: str | Path) -> list[tuple[str, str, str]]:
    """(symbol, value, path:line) for each line, in order, the published base list turned into its bools."""
    text = read_whole(path).split("\n")
    lines = [(f"{path}:{i}", *parse_line(line, f"{path}:{i}")) for i, line in enumerate(text, 1)]
    return expand_base_list([(name, value, where) for where, name, value, _ in lines if name])


def expand_base_list(lines: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """ADAMWPRUNE_BASE_OPTIMIZER_NAME="adamw,adamwspam" becomes ADAMWPRUNE_BASE_ADAMW=y and so on, and n for every base
    that it leaves out. A list that disagrees with bools set beside it is an InputError."""
    named = [(value, where) for name, value, where in lines if name == BASE_LIST]
    lines = [line for line in lines if line[0] != BASE_LIST]
    if not named:
        return lines
    value, where = named[-1]
    wanted = [b.strip().lower() for b in value.split(",") if b.strip()]
    head = BASE_AXIS + "_"
    known = [s.name[len(head) :].lower() for s in tree().unique_defined_syms if s.name.startswith(head)]
    for base in wanted:
        if base not in known:
            raise InputError(f"{where}: CONFIG_{BASE_LIST}: {unknown('base optimizer', base, known)}")
    bools = {n[len(head) :].lower() for n, v, _ in lines if n.startswith(head) and v == "y"}
    if not wanted:
        return lines
    if bools and bools != set(wanted):
        raise InputError(
            f"{where}: CONFIG_{BASE_LIST}={value!r} disagrees with CONFIG_{BASE_AXIS}_*, "
            f"which sets {', '.join(sorted(bools))}: keep one of the two"
        )
    return lines + [(head + base.upper(), "y" if base in wanted else "n", where) for base in known]


def apply(base: Mapping[str, str] | None, lines: Iterable[tuple[str, str, str]]) -> Config:
    """Set `lines` (symbol, value, where) on top of `base` (None: Kconfig's defaults); each line must survive."""
    kconf = tree()
    _assign(base or {})
    final: dict[str, tuple[str, str]] = {}
    chosen: dict[object, str] = {}
    for name, value, where in lines:
        refuse_unwritable(name, value)
        sym = _symbol(name, where)
        if sym.choice and value == "y":
            other = chosen.setdefault(sym.choice, name)
            if other != name:
                raise InputError(f"{where}: CONFIG_{name}=y and CONFIG_{other}=y are members of one choice: set one")
        if not sym.set_value(value):
            raise InputError(f"{where}: CONFIG_{name}={value}: {_wanted(sym)}")
        final[name] = (value, where)
    for name, (value, where) in final.items():
        _survived(kconf.syms[name], value, where)
    return _extract({name: where for name, (_, where) in final.items()})


def tidy(path: str | Path) -> tuple[Config, list[str]]:
    """What `make olddefconfig` does: keep the lines that survive, and name each one that was dropped."""
    kept, dropped, lines = [], [], read_lines(path)
    last = {name: (value, where) for name, value, where in lines}
    for name, value, where in lines:
        counts, at = last[name]
        try:
            _symbol(name, where)
            if at == where:
                kept.append((name, value, where))
            elif value not in ("", counts):
                again = f"is set again in line {at.rpartition(':')[2]}, which counts"
                dropped.append(f"{where}: CONFIG_{name}={value} {again}")
        except InputError as e:
            dropped.append(str(e))
    _assign({name: value for name, value, _ in kept})
    for name, value, where in kept:
        try:
            _survived(tree().syms[name], value, where)
        except InputError as e:
            dropped.append(str(e))
    return _extract({}), dropped


def normalise(config: Mapping[str, str]) -> Config:
    """The config as Kconfig would write it: lines whose dependencies are off are left out."""
    _assign(config)
    return _extract({})


def minimal(config: Mapping[str, str]) -> str:
    """savedefconfig form: only the lines that differ from Kconfig's defaults."""
    _assign(config)
    return tree()._min_config_contents("")


def prompt(name: str) -> str | None:
    """The prompt of a symbol, which is also the help of its command-line flag; None if Kconfig has no such symbol."""
    sym = tree().syms.get(name)
    return next((node.prompt[0] for node in sym.nodes if node.prompt), None) if sym else None


def choice_prompt(head: str) -> str:
    """The prompt of the choice whose members' names begin with `head`."""
    choices = (c for c in tree().unique_choices if c.syms[0].name.startswith(head))
    return next((node.prompt[0] for c in choices for node in c.nodes if node.prompt), "")


def default_text(name: str) -> str:
    """What a symbol is by default where nothing that its default depends on is set."""
    found = [value for value, condition, *_ in tree().syms[name].orig_defaults if condition is tree().y]
    return found[-1].name if found else "n" if tree().syms[name].orig_type == BOOL else ""


def menuconfig(kconf_path: str | Path) -> None:
    """kconfiglib's full-screen menu on a file."""
    import menuconfig as screen

    os.environ["KCONFIG_CONFIG"] = str(kconf_path)
    tree().unset_values()
    tree().load_config(str(kconf_path))
    screen.menuconfig(tree())


def _assign(values: Mapping[str, str]) -> None:
    kconf = tree()
    kconf.unset_values()
    for name, value in values.items():
        if name in kconf.syms:
            kconf.syms[name].set_value(value)


def _extract(origin: Mapping[str, str]) -> Config:
    values, kinds = {}, {}
    for sym in tree().unique_defined_syms:
        if sym.config_string:  # empty where its dependencies are off
            values[sym.name], kinds[sym.name] = sym.str_value, KINDS[sym.orig_type]
    return Config(values, kinds, origin)


def _symbol(name: str, where: str) -> kconfiglib.Symbol:
    sym = tree().syms.get(name)
    if sym is None or not sym.nodes:
        raise InputError(f"{where}: CONFIG_{name}: {unknown('symbol', name, [s.name for s in _near(name)])}")
    return sym


def _near(name: str) -> list[kconfiglib.Symbol]:
    head = name.split("_")[0]
    every = tree().unique_defined_syms
    return [s for s in every if s.name.startswith(head)] or every


def _survived(sym: kconfiglib.Symbol, value: str, where: str) -> None:
    if sym.str_value == value:
        return
    if not any(node.prompt for node in sym.nodes):
        raise InputError(f"{where}: CONFIG_{sym.name}={value} is refused: it is a fact ({sym.str_value}), no setting")
    if not sym.visibility:
        names = sorted({s.name for s in kconfiglib.expr_items(sym.direct_dep) if isinstance(s, kconfiglib.Symbol)})
        state = ", ".join(f"{n}={tree().syms[n].str_value}" for n in names if n in tree().syms)
        expr = kconfiglib.expr_str(sym.direct_dep)
        raise InputError(f"{where}: CONFIG_{sym.name}={value} is dropped: it depends on {expr} (now {state})")
    why = "a choice needs a member: set another one to y" if sym.choice and value == "n" else _wanted(sym)
    raise InputError(f"{where}: CONFIG_{sym.name}={value} is refused: {why}")


def _wanted(sym: kconfiglib.Symbol) -> str:
    """What a symbol would accept, in words."""
    if sym.orig_type == kconfiglib.BOOL:
        return "give y or n"
    if sym.orig_type == kconfiglib.INT:
        ranges = [f" from {low.str_value} to {high.str_value}" for low, high, _ in sym.ranges]
        return "give a whole number" + (ranges[0] if ranges else "")
    return f"it has the value {sym.str_value!r}"


def line(config: Config, name: str) -> str:
    """One line as it stands in a file."""
    return format_line(name, config[name], config.kind(name)).strip()
