"""Configuration files: defconfig NAME, menuconfig, savedefconfig, olddefconfig, list."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import ROOT, kconfig, matrix
    from lib.config import InputError, write_atomic
    from lib.kconfig import CONFIG, DEFAULT, PRESETS
    from lib.registry import unknown
    from lib.wrap import print_lines, terminal_width
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


def presets() -> dict[str, str]:
    """Name -> the first line of its header, which says the question it answers."""
    return {p.name: p.read_text().partition("\n")[0].lstrip("# ") for p in sorted(PRESETS.iterdir()) if p.is_file()}


def preset(name: str) -> Path:
    known = presets()
    if begin := [n for n in known if name and name not in known and n.startswith(name)]:
        raise InputError(f"unknown preset {name!r}; these begin so: {', '.join(begin)}")
    if name not in known:
        raise unknown("preset", name, list(known))
    return PRESETS / name


def replace(config) -> None:
    """Write .config; the one before stays as .config.old."""
    if CONFIG.exists():
        CONFIG.with_name(".config.old").write_bytes(CONFIG.read_bytes())
    config.write(CONFIG)


def defconfig(name: str) -> None:
    replace(kconfig.load(preset(name)))
    print_lines(f"{name} is now .config: `make plan` shows its runs, `make` runs them")


def menu(style: str) -> None:
    if not CONFIG.exists():
        kconfig.load(preset(DEFAULT)).write(CONFIG)
    # kconfiglib would ignore bare strings and drop unmet lines without a word: check and rewrite first.
    config = kconfig.load(CONFIG)
    if config.text() != CONFIG.read_text():
        replace(config)
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise InputError(f'{style} needs a terminal; edit .config by hand, or use SET="NAME=value"')
    kconfig.menuconfig(CONFIG)
    if not say_missing(kconfig.load(CONFIG)):
        print("`make plan` shows the runs of .config, `make` runs them")


def say_missing(config) -> bool:
    """Print what keeps .config from having runs; whether anything does."""
    found = matrix.missing(config)
    for line in found:
        print_lines(f"missing: {line}")
    return bool(found)


def olddefconfig() -> None:
    path = kconfig.chosen()
    config, dropped = kconfig.tidy(path)
    replace(config)
    for line in dropped:
        print_lines(f"dropped: {line}")
    state = "is written, but has no runs yet" if say_missing(config) else "is complete"
    lines = f"{len(dropped)} line{'s' * (len(dropped) != 1)}"
    print_lines(f".config {state}{f'; {lines} dropped (kept in .config.old)' if dropped else ''}")


def savedefconfig() -> None:
    config = kconfig.load(CONFIG)
    write_atomic(ROOT / "defconfig", kconfig.minimal(config))
    say_missing(config)
    print_lines(
        "wrote defconfig: give it a header that says which question it answers, and move it to defconfigs/<name>"
    )


def print_presets(known: dict[str, str]) -> None:
    """Print each name and its question, on a terminal that is too narrow for both the question below."""
    longest = max(map(len, known))
    lines = [f"{name:<{longest}}  {question}" for name, question in known.items()]
    width = terminal_width(sys.stdout)
    if width is not None and max(map(len, lines)) > width:
        lines = [f"{name}\n    {question}" for name, question in known.items()]
    print_lines("\n".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["defconfig", "menuconfig", "savedefconfig", "olddefconfig", "list"])
    parser.add_argument("name", nargs="?")
    args = parser.parse_args()
    if args.command == "list":
        print_presets(presets())
    elif args.command == "defconfig":
        defconfig(args.name or "")
    elif args.command == "menuconfig":
        menu(args.command)
    else:
        {"savedefconfig": savedefconfig, "olddefconfig": olddefconfig}[args.command]()
    return 0


if __name__ == "__main__":
    lib.call(main)
