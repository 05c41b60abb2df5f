"""Write the tables of README.md and docs/*.md from the records they name; --check only compares.

A table stands between `<!-- table: docs/results/x.json -->` and `<!-- end -->`. A record is a results directory's
all_results.json: `docs.py --record NAME` makes one from the newest results, or RESULTS=dir, without the host's name.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import overrides, report, results
    from lib.rundir import ROOT, checked, find_root, write_json
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))

BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PRIVATE = ("host", "system")


def record(name: str) -> Path:
    found = results.load(find_root(overrides.existing()))
    data = json.loads(json.dumps(results.record(found)))
    for provenance in (data["provenance"], *(r["provenance"] for r in data["runs"] if r["provenance"])):
        for field in PRIVATE:
            provenance.pop(field, None)
    path = ROOT / "docs" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, data)
    return path


def table(path: Path) -> str:
    data = checked(path)
    runs = tuple(results.Run(path.parent, r) for r in data["runs"])
    found = results.Results(path.parent, None, runs, provenance=data["provenance"])
    return "\n".join(report.published(found)) + "\n"


def fill(text: str) -> str:
    return BLOCK.sub(lambda m: m[1] + "\n" + table(ROOT / m[2]) + "\n" + m[3], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.record:
        print(f"wrote {record(args.record)}")
    stale = []
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        old = path.read_text()
        new = fill(old)
        if new != old:
            stale.append(path.name)
            if not args.check:
                path.write_text(new)
    if stale and args.check:
        print(f"error: tables differ from their records: {', '.join(stale)}; `make docs` writes them", file=sys.stderr)
        return 1
    print(f"tables written in {', '.join(stale)}" if stale else "all tables agree with their records")
    return 0


if __name__ == "__main__":
    lib.call(main)
