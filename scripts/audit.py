"""Audit the scores of state pruning on the finished runs of the newest results, or of RESULTS=dir: what would each
prune from the same weights and the same optimizer state? Writes audit.json and graphs/audit_overlap.png there."""

import argparse
import importlib
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import audit, overrides, results
    from lib.figure.audit import audit_overlap
    from lib.figure.folder import GraphFolder
    from lib.files import write_record
    from lib.rundir import find_root
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))


@cache
def task(model: str):
    return importlib.import_module(f"{model}.train").make_task()


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = results.load(find_root(overrides.existing()))
    record = audit.audit(found, task)
    write_record(found.root / audit.FILE, record)
    for state in record.states:
        print("\n" + "\n".join(audit.table(state)))
    print("\n" + "\n".join(audit.findings(record)))
    folder = GraphFolder(found.root / "graphs", keep=True)
    pictures = [folder.save(fig, stem) for stem, fig in audit_overlap(found)]
    print(f"\naudit:  {found.root / audit.FILE}\ngraph:  {pictures[0]}\n`make report` takes these findings up")
    return 0


if __name__ == "__main__":
    lib.call(main)
