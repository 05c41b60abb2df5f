"""Rebuild the report, or the graphs alone, from a results directory: the newest, or RESULTS=dir. Needs no torch."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import overrides, report, results
    from lib.figure.base import render_all
    from lib.rundir import find_root
    from lib.terminal import show_report
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["report", "graphs"])
    args = parser.parse_args()
    found = results.load(find_root(overrides.existing()))
    if args.command == "report":
        show_report(found, report.write(found))
    else:
        files, skipped = render_all(found)
        print("\n".join([*map(str, files), *(f"graphs skipped, {names}: {why}" for names, why in skipped)]))
    return 0


if __name__ == "__main__":
    lib.call(main)
