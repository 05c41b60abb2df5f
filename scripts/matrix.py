"""The matrix: plan, run, continue, rerun-failed. Overrides come from the environment (see the Makefile)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import kconfig, overrides, runner
    from lib.describe import describe
    from lib.resolve import check_compiling
    from lib.rundir import find_root
    from lib.wrap import print_lines
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


def configured():
    """.config with the overrides; where nothing is configured, the preset quickstart."""
    path = kconfig.chosen()
    if path != kconfig.CONFIG:
        print_lines(
            f"no .config here: taking the preset {path.name} (`make menuconfig` or `make defconfig-<name>` make one)"
        )
    return overrides.apply(kconfig.load(path), overrides.from_environment())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["plan", "run", "continue", "rerun-failed"])
    parser.add_argument("--format", choices=["text", "ids"], default="text")
    parser.add_argument("--probe", choices=["y", "n"], default="n", help="measure a few steps of each model first")
    args = parser.parse_args()
    if args.command == "plan":
        config = configured() if args.format == "text" else quietly(configured)
        plan = runner.check(config)
        check_compiling(config, plan.specs)
        lines = (
            (s.id for s in plan.specs)
            if args.format == "ids"
            else describe(config, plan, 0.0 if args.probe == "y" else None)
        )
        for line in lines:
            print_lines(line)
        return 0
    try:
        if args.command == "run":
            runner.run(configured())
        else:
            root = find_root(overrides.existing())
            print(f"results: {root}", flush=True)
            runner.execute(root, failed_only=args.command == "rerun-failed")
    except runner.Failures as e:
        print_lines(f"\n{e}", sys.stderr)
        return 1
    return 0


def quietly(function):
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        return function()


if __name__ == "__main__":
    lib.call(main)
