"""Check data sets, and download what is missing: `data.py [NAME...]`, without a name those that .config uses."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import kconfig, matrix, overrides
    from lib.config import InputError
    from lib.data.base import DATASETS, MissingData
    from lib.rundir import place
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


def fetch(name: str, folder: Path, advise: bool = True) -> None:
    """Raises InputError where a data set cannot be had, with what to do."""
    record = DATASETS[name]
    try:
        record.check(folder)
    except MissingData as missing:
        try:
            record.download(folder)
        except (OSError, RuntimeError) as e:
            advice = f". {missing}" if advise else ""
            raise InputError(f"{record.title} could not be downloaded ({e}){advice}") from None
        record.check(folder)
    print(f"{record.title}: {'embedded' if record.embedded else f'complete in {folder}'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data-dir")
    parser.add_argument("--reason-only", action="store_true", help="for a caller that says what to do")
    args = parser.parse_args()
    # A run that names its data set and folder must not fail over a .config that it never asked for.
    config = (
        None
        if args.names and args.data_dir
        else overrides.apply(kconfig.load(kconfig.chosen()), overrides.from_environment())
    )
    folder = place(args.data_dir or config["DATA_DIR"])
    for name in args.names or dict.fromkeys(s.dataset for s in matrix.expand(config)):
        fetch(name, folder, not args.reason_only)
    return 0


if __name__ == "__main__":
    lib.call(main)
