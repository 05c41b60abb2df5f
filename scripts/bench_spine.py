"""Time what every user waits for: the start of `make plan`, the quickstart, and what a run costs beyond its training.

Prints a table, and writes bench_results/spine.json. The plan is timed at least 25 times, and the minimum decides; the
quickstart runs once. Overhead of a run is the time from its start to its end as the matrix sees it, less the time that
the run itself spent in training and evaluation.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib import kconfig, overrides, provenance, results, runner  # noqa: E402
from lib.executor.base import EXECUTORS  # noqa: E402
from lib.files import write_json  # noqa: E402
from lib.progress import Progress  # noqa: E402
from lib.rundir import ROOT  # noqa: E402

REACH = {"plan_s": 1.5, "quickstart_s": 90.0}


def plan_times(repetitions: int) -> list[float]:
    """Wall seconds of `make plan`, make included."""
    found = []
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    for _ in range(repetitions):
        begun = time.perf_counter()
        command = ["make", "-s", "plan", f"PYTHON={sys.executable}"]
        subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begun)
    return found


def quickstart(folder: Path) -> dict:
    """The preset in a directory of its own: total seconds, and the overhead of each run but the first."""
    config = kconfig.load(ROOT / "defconfigs" / "quickstart")
    config = overrides.apply(config, {"RESULTS": str(folder)})
    spans = []

    class Stopwatch(Progress):
        def ended(self, job, status):
            spans.append((job.run_dir, time.perf_counter()))

    begun = time.perf_counter()
    root = runner.prepare(config)
    jobs, imports = runner.jobs(root, runner.pending(root))
    with Stopwatch(len(jobs)) as watch:
        for job, status in EXECUTORS["local"](imports=imports).run(jobs):
            watch.ended(job, status)
    total = time.perf_counter() - begun
    runs = {r.path: r.elapsed_s for r in results.load(root).done}
    ends = [begun, *(t for _, t in spans)]
    overheads = [end - before - runs[d] for (d, end), before in zip(spans, ends, strict=False)]
    return {"quickstart_s": total, "first_overhead_s": overheads[0], "overheads_s": overheads[1:]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=25)
    args = parser.parse_args()
    plans = plan_times(args.repetitions)
    with tempfile.TemporaryDirectory() as folder:
        quick = quickstart(Path(folder) / "results")
    rows = [
        ("make plan", min(plans), statistics.median(plans), len(plans), REACH["plan_s"]),
        ("quickstart, 11 runs", quick["quickstart_s"], quick["quickstart_s"], 1, REACH["quickstart_s"]),
        ("overhead per forked run", min(quick["overheads_s"]), statistics.median(quick["overheads_s"]), 10, None),
        ("first run, with the import", quick["first_overhead_s"], quick["first_overhead_s"], 1, None),
    ]
    print(f"{provenance.cpu_name()}, {provenance.cores()} cores, commit {(provenance.collect().commit or '?')[:12]}")
    print(f"{'measure':<28} {'min s':>8} {'median s':>9} {'n':>4} {'reach s':>8}")
    for name, low, median, n, reach in rows:
        print(f"{name:<28} {low:8.2f} {median:9.2f} {n:4d} {'-' if reach is None else f'<= {reach:g}':>8}")
    out = ROOT / "bench_results"
    out.mkdir(exist_ok=True)
    write_json(out / "spine.json", {"provenance": provenance.collect(), "plan_s": plans, **quick})
    print(f"written: {out / 'spine.json'}")
    return int(min(plans) > REACH["plan_s"] or quick["quickstart_s"] > REACH["quickstart_s"])


if __name__ == "__main__":
    sys.exit(main())
