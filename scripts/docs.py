"""Write the tables of README.md and docs/*.md from the records they name; --check only compares.

A table stands between `<!-- table: docs/results/x.json -->` and `<!-- end -->`; `bench:`, `audit:` and `ledger:` in the
place of `table:` are for the other records. `docs.py --record NAME` makes a record of the newest results, or
RESULTS=dir; `--record NAME --file bench_results/core.json` one of that file (or of an audit.json). None has the host's
name.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import audit, costs, overrides, report, results
    from lib.rundir import ROOT, SCHEMA, checked, find_root, write_json
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))

BLOCK = re.compile(r"(<!-- (table|bench|audit|ledger): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PRIVATE = ("host", "system")


def record(name: str, file: str | None) -> Path:
    data = checked(Path(file)) if file else results.record(results.load(find_root(overrides.existing())))
    data = {"schema": SCHEMA} | json.loads(json.dumps(data))
    for provenance in (data["provenance"], *(r["provenance"] for r in data.get("runs", ()) if r["provenance"])):
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


def bench(path: Path) -> str:
    """What a bench measured, and where."""
    data = checked(path)
    p = data["provenance"]
    lines = [f"{p['cpu']}; {data['threads']} threads; torch {p['versions']['torch']}; commit {p['commit'][:12]}.", ""]
    lines += ["| measure | against | minimum | median | n | reach |", "|---|---|---:|---:|---:|---:|"]
    for r in data["rows"]:
        median = f"{r['median']:.3f}" if "median" in r else ""
        cells = [r["measure"], r["reference"], f"{r['value']:.3f}", median, str(r.get("n", 1)), reach(r)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def reach(row: dict) -> str:
    return "" if row["reach"] is None else f"<= {row['reach']:.3g}"


def overlaps(path: Path) -> str:
    """What an audit found, and the overlap of what the scores keep in its first state."""
    data = checked(path)
    state, names = data["states"][0], data["scores"]
    lines = [f"* {line}" for line in audit.findings(data)] + [""]
    at = next((a for a in state["at"] if a["sparsity"] == 0.7), state["at"][0])
    lines += [
        f"Jaccard index of the kept sets in percent, {state['run']}, step {state['step']}, {state['live']} live "
        f"weights, {audit.percent(at['sparsity'])}% pruned, commit {data['commit'][:12]} (= is the same set):",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for i, name in enumerate(names):
        cells = [audit.hundred(at[audit.KEPT][i][j]) if j < i else "" for j in range(len(names))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ledger(path: Path) -> str:
    """What the bytes of a matrix's runs are for."""
    data = checked(path)
    runs = [results.Run(path.parent, r) for r in data["runs"]]
    one = runs[0]
    where = f"{one.model}, {one.model_parameters:,} parameters, {one.prunable_parameters:,} of them prunable; "
    where += f"batch {one.batch_size}; {one.device}; commit {data['commit'][:12]}. MiB:"
    return "\n".join([where, "", *costs.classes(runs, report.as_markdown)]) + "\n"


FORMS = {"table": table, "bench": bench, "audit": overlaps, "ledger": ledger}


def fill(text: str) -> str:
    return BLOCK.sub(lambda m: m[1] + "\n" + FORMS[m[2]](ROOT / m[3]) + "\n" + m[4], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", metavar="NAME")
    parser.add_argument("--file", metavar="FILE", help="with --record: a bench's or an audit's file")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.record:
        print(f"wrote {record(args.record, args.file)}")
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
