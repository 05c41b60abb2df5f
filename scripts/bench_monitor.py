"""What the monitor costs: CPU of a sampler, the slowdown of a LeNet-5 run beside it, bytes a day, and how soon the live
view shows its first frame.

A sampler's CPU is the kernel's own count over 30 s, its start left out, three times. The slowdown is of turns with and
without a sampler, 25 at least, of two seconds each. Writes bench_results/monitor.json; exits with 1 where a reach is
missed.
"""

import argparse
import importlib
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil  # noqa: E402

from lib import provenance  # noqa: E402
from lib.files import write_json  # noqa: E402
from lib.monitor import stats  # noqa: E402
from lib.monitor.base import Sample  # noqa: E402
from lib.monitor.client import Monitor, MonitorOptions  # noqa: E402
from lib.rundir import ROOT  # noqa: E402
from lib.schema import SCHEMA  # noqa: E402
from scripts.bench_core import row  # noqa: E402
from scripts.bench_models import MadeImages, advance, made, pictures, trainer  # noqa: E402

WINDOW, WINDOWS = 30.0, 3  # seconds of a sampler's work, and how often
TURN = 2.0  # seconds of training
FRAMES = 7
DAY = 86400
# Every reading there is, with as many digits as it can have.
FULL = Sample(
    99.9, 80000.4, 12345.6, 71, 350.3, 41, 1980, 2619, 123456789.0, 88.1, 76.2, 1234.5, 1234.5, 9876.4, 9876.4
)


def reported(measure: str, values: list[float], reach: float | None, reference: str = "none: reported") -> dict:
    found = {"value": min(values), "median": statistics.median(values), "n": len(values), "s": min(values)}
    return {"measure": measure, "reference": reference, **found, "reach": reach}


def cpu(n: int, folder: Path) -> Iterator[dict]:
    """Percent of a core at 1 and at 10 samples a second, on this process and its children."""
    for rate, reach in ((1, 0.5), (10, 3.0)):
        out = folder / f"m{rate}.jsonl"
        with Monitor(MonitorOptions(monitor_interval=1 / rate), out) as monitor:
            wait_for(lambda out=out: stats.read(out)[1])
            sampler = psutil.Process(monitor.process.pid)
            shares = [share(sampler) for _ in range(WINDOWS)]
        yield reported(f"sampler at {rate} Hz, % of a core", shares, reach, f"{WINDOW:.0f} s of work")
        kept = [s for s in stats.read(out)[1] if s["phase"] != "end"]
        if rate == 1:
            size = max(map(len, out.read_bytes().splitlines()[1:])) + 1
            devices = len(kept[0]["devices"])
            yield reported("MB a day and device at 1 Hz, here", [size / devices * DAY / 1e6], 20.0, "the longest line")
    yield reported("MB a day and device at 1 Hz, every reading", [line() * DAY / 1e6], 20.0, "the longest line")


def share(process: psutil.Process) -> float:
    def spent():
        t = process.cpu_times()
        return t.user + t.system

    before, begun = spent(), time.perf_counter()
    time.sleep(WINDOW)
    return 100 * (spent() - before) / (time.perf_counter() - begun)


def line() -> int:
    """Bytes of a sample of one device that reports everything."""
    with tempfile.TemporaryDirectory() as folder, stats.Writer(Path(folder) / "m") as writer:
        writer.sample(DAY - 0.001, "checkpoint", [FULL])
        return writer.path.stat().st_size


def slowdown(n: int, folder: Path) -> Iterator[dict]:
    """Steps of the trainer's own loop, with a sampler at 1 Hz beside it and without."""
    images, labels = pictures(6400, 1, 28)
    lines = {"MODEL_LENET5": "y", "LENET5_DATASET_MNIST": "y", "OPTIMIZER_ADAMW": "y"}
    run = trainer(
        MadeImages(importlib.import_module("lenet5.train").make_task(), made(images, labels, 2)), folder, lines
    )
    advance(run, 20)
    begun = time.perf_counter()
    advance(run, 20)
    steps = max(20, round(20 * TURN / (time.perf_counter() - begun)))
    beside = {}

    def with_sampler():
        run.monitor = beside["monitor"]
        run.enter("train")
        advance(run, steps)

    def alone():
        run.monitor = beside["silent"]
        advance(run, steps)

    beside["silent"] = run.monitor
    times: dict[str, list[float]] = {"with": [], "without": []}
    for i in range(n + 1):
        out = folder / f"s{i}.jsonl"
        with Monitor(MonitorOptions(), out) as monitor:
            beside["monitor"] = monitor
            wait_for(lambda out=out: stats.read(out)[1])
            times["with"].append(timed(with_sampler))
        times["without"].append(timed(alone))
    times = {k: v[1:] for k, v in times.items()}
    yield row("lenet5/steps with a sampler at 1 Hz", "the same without", times, "with", "without", 1.02)


def timed(arm) -> float:
    begun = time.perf_counter()
    arm()
    return time.perf_counter() - begun


def frame(n: int, folder: Path) -> Iterator[dict]:
    """Seconds to the first frame with readings in a terminal of 80x24, after the imports and with them."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from lib.gputop.tui import Gputop; from lib.gputop.watch import Watch\n"
        "assert 'torch' not in sys.modules\n"
        "os.write(1, b'IMPORTED'); Gputop(Watch()).run()"
    )
    after, whole = [], []
    for _ in range(FRAMES + 1):
        imported, shown, begun = first_frame(code)
        after.append(shown - imported)
        whole.append(shown - begun)
    yield reported("gputop to its first frame after imports, s", after[1:], 0.5, "80x24, a pseudo-terminal")
    yield reported("gputop to its first frame, s", whole[1:], None)


def first_frame(code: str) -> tuple[float, float, float]:
    """When the imports were done, when there were readings on the screen, and when it was started."""
    leader, follower = pty.openpty()
    os.set_blocking(leader, False)
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT)], stdin=follower, stdout=follower, stderr=follower, env=env
    )
    seen, imported = b"", None
    try:
        while b"memory:" not in seen:
            time.sleep(0.001)
            try:
                seen += os.read(leader, 65536)
            except BlockingIOError:
                pass
            if imported is None and b"IMPORTED" in seen:
                imported = time.perf_counter()
            if process.poll() is not None or time.perf_counter() - begun > 30:
                raise RuntimeError(f"gputop showed nothing: {seen[-500:]!r}")
        return imported, time.perf_counter(), begun
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(follower)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the sampler wrote nothing")
        time.sleep(0.01)


PARTS = {f.__name__: f for f in (cpu, slowdown, frame)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts of the bench")
    args = parser.parse_args()
    print(f"{provenance.cpu_name()}, {provenance.cores()} threads, {len(psutil.pids())} processes")
    rows = []
    for name in args.only or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            for r in PARTS[name](args.repetitions, Path(folder)):
                rows.append(r)
                reach = "" if r["reach"] is None else f"<= {r['reach']:g}"
                late = "  missed" if reach and r["value"] > r["reach"] else ""
                print(
                    f"{r['measure']:<46} {r['value']:8.3f} {r['median']:8.3f} {r['n']:3d} {reach:>8}{late}", flush=True
                )
    out = ROOT / "bench_results"
    out.mkdir(exist_ok=True)
    facts = {"provenance": provenance.collect(), "threads": provenance.cores()}
    write_json(out / "monitor.json", {"schema": SCHEMA, **facts, "rows": rows})
    print(f"written: {out / 'monitor.json'}")
    return int(any(r["reach"] is not None and r["value"] > r["reach"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
