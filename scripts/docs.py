"""Write the tables of README.md and docs/*.md from the records they name; --check only compares.

A table stands between `<!-- table: docs/results/x.json -->` and `<!-- end -->`. `means:` in the place of `table:` has
one row for all seeds; `bench:`, `audit:`, `ledger:` and `versions:` are for the other records; `presets: defconfigs`
lists the presets. `docs.py --record NAME` makes a record of the newest results, or RESULTS=dir; `--record NAME --file
bench_results/core.json` one of that file (or of an audit.json). None has the host's name. A record stays as
the version wrote that made it: what it does not have is null, old names of fields are mapped, and the memory that
runs are compared by is worked out anew. `--schema` prints the JSON Schema of a results directory.
"""

import argparse
import json
import re
import statistics
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lib  # noqa: E402

try:
    from lib import audit, costs, kconfig, measure, overrides, report, results, schema
    from lib.files import read_json, write_json
    from lib.matrix import expand
    from lib.records import FILES, Audit, Outcome, Provenance
    from lib.remarks import conditions
    from lib.rundir import ROOT, find_root
    from lib.spec import RunSpec, identify
except ModuleNotFoundError as e:
    sys.exit(lib.missing(e))

BLOCK = re.compile(r"(<!-- (table|means|bench|audit|ledger|versions|presets): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
PRIVATE = ("host", "system")
RENAMED = {"gpu_memory_mean": "train_memory_mean", "gpu_memory_max": "train_memory_max"}  # of older records
RUNS = re.compile(r"[,:]? (?:\d+ runs?|One run)(?=[.,])")  # stands in a column of its own


def record(name: str, file: str | None) -> Path:
    data = (
        read_json(Path(file)) if file else schema.plain(results.record(results.load(find_root(overrides.existing()))))
    )
    data = {"schema": schema.SCHEMA} | data
    data.pop("digest", None)
    for provenance in (data["provenance"], *(r["provenance"] for r in data.get("runs", ()) if r["provenance"])):
        for field in PRIVATE:
            provenance.pop(field, None)
    path = ROOT / "docs" / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, data)
    return path


def provenance(data: dict) -> Provenance:
    names = schema.field_names(Provenance)
    return schema.parse(Provenance, {**dict.fromkeys(PRIVATE, ""), **{k: v for k, v in data.items() if k in names}})


def recorded(path: Path) -> results.Results:
    """The runs of a record, which may be older than this version: fields that it does not know are null. The memory
    that runs are compared by, and all that rests on it, is what this version takes it to be."""
    data, names = read_json(path), schema.field_names(Outcome)
    typed = schema.nullable(Outcome, ())
    runs = []
    for r in data["runs"]:
        known = {
            **dict.fromkeys(names),
            **{new: v for k, v in r.items() if (new := RENAMED.get(k, k)) in names},
            "provenance": None,
            "files": None,
        }
        row = schema.parse(typed, known)
        values = {name: getattr(row, name) for name in names}
        values |= measure.comparison(row.ledger, row.train_memory_mean, row.memory_source, row.test_accuracy_last)
        runs.append(results.Run(**values | {"provenance": r["provenance"] and provenance(r["provenance"])}))
    differing = tuple(results.derived(runs))
    return results.Results(path.parent, None, differing, provenance=provenance(data["provenance"]))


def table(path: Path) -> str:
    return "\n".join(report.published(recorded(path))) + "\n"


def means(path: Path) -> str:
    """One row for the seeds of a setting: mean, lowest and highest accuracy of the last weights, and what is kept."""
    found = recorded(path)
    under = re.sub(r", memory in MiB \(.*?\), time in seconds", "", conditions(found))
    lines = [f"{found.runs[0].model} on {found.runs[0].dataset}: {under}", ""]
    lines.append("| run | sparsity % | test accuracy, mean | lowest, highest | kept, times the weights |")
    lines.append("|---|---:|---:|---:|---:|")
    names = [f.name for f in fields(RunSpec)]
    for group in found.by(*(n for n in names if n not in ("seed", "id"))).values():
        accuracies, one = [r.test_accuracy_last for r in group], group.runs[0]
        name = identify(RunSpec(**{n: getattr(one, n) for n in names}), dataset=False, base=False, seed=False)
        spread = f"{min(accuracies):.2f}, {max(accuracies):.2f}"
        cells = [f"{100 * one.achieved_sparsity:.2f}", f"{statistics.mean(accuracies):.2f}", spread]
        lines.append(f"| {name} | {' | '.join(cells)} | {one.memory_multiple:.2f} |")
    return "\n".join(lines) + "\n"


def bench(path: Path) -> str:
    """What a bench measured, and where."""
    data = read_json(path)
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


def audited(path: Path) -> Audit:
    data = read_json(path)
    known = {k: v for k, v in data.items() if k in schema.field_names(Audit)}
    return schema.parse(Audit, known | {"provenance": schema.plain(provenance(data["provenance"]))})


def overlaps(path: Path) -> str:
    """What an audit found, and the overlap of what the scores keep in its first state."""
    data = audited(path)
    state, names = data.states[0], data.scores
    lines = [f"* {line}" for line in audit.findings(data)] + [""]
    at = next((a for a in state.at if a.sparsity == 0.7), state.at[0])
    lines += [
        f"Jaccard index of the kept sets in percent, {state.run}, step {state.step}, {state.live} live "
        f"weights, {audit.percent(at.sparsity)}% pruned, commit {data.commit[:12]} (= is the same set):",
        "",
        "| | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for i, name in enumerate(names):
        cells = [audit.hundred(at.jaccard_kept[i][j]) if j < i else "" for j in range(len(names))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ledger(path: Path) -> str:
    """What the bytes of a matrix's runs are for."""
    found = recorded(path)
    one = found.runs[0]
    where = f"{one.model}, {one.model_parameters:,} parameters, {one.prunable_parameters:,} of them prunable; "
    where += f"batch {one.batch_size}; {one.device}; commit {found.provenance.commit[:12]}. MiB:"
    return "\n".join([where, "", *costs.classes(list(found), report.as_markdown)]) + "\n"


def presets(folder: Path) -> str:
    """Every preset of a folder: how many runs it is, and the question in its first line."""
    lines = ["| preset | runs | question |", "|---|---:|---|"]
    for path in sorted(folder.iterdir()):
        question = path.read_text().partition("\n")[0].removeprefix("# ")
        runs = len(expand(kconfig.load(path)))
        lines.append(f"| `{path.name}` | {runs} | {RUNS.sub('', question).replace('?.', '?')} |")
    return "\n".join(lines) + "\n"


def versions(path: Path) -> str:
    """Which versions of torch the tests have passed with, and when."""
    lines = ["| set | torch | torchvision | numpy | Python | passed | skipped | failed | date | commit |"]
    lines.append("|---|---|---|---|---|---:|---:|---:|---|---|")
    for r in read_json(path)["rows"]:
        commit = (r["commit"] or "unknown")[:12] + (" with changes" if r["changed"] else "")
        cells = [r["set"], r["torch"], r["torchvision"] or "none", r["numpy"], r["python"]]
        cells += [r["passed"], r["skipped"], r["failed"], r["date"], commit]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


FORMS = {
    "table": table,
    "means": means,
    "bench": bench,
    "audit": overlaps,
    "ledger": ledger,
    "versions": versions,
    "presets": presets,
}


def fill(text: str) -> str:
    return BLOCK.sub(lambda m: m[1] + "\n" + FORMS[m[2]](ROOT / m[3]) + "\n" + m[4], text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", metavar="NAME")
    parser.add_argument("--file", metavar="FILE", help="with --record: a bench's or an audit's file")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a results directory's files")
    args = parser.parse_args()
    if args.schema:
        print(json.dumps(schema.json_schema(FILES), indent=1))
        return 0
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
