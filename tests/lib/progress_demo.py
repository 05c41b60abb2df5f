"""Runs that only say how far they are, to watch the live view of a matrix with: jobs of the real executor, one after
the other, or several at a time in this process.

    python tests/lib/progress_demo.py one|several [SECONDS A RUN]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent.parent), str(Path(__file__).parent)]

import lib  # noqa: E402
from lib.executor.base import EXECUTORS, Job, Status  # noqa: E402
from lib.progress import Progress  # noqa: E402

IDS = [
    "lenet5_adamw_none",
    "lenet5_adamw_magnitude_50",
    "lenet5_adamwprune_bitter7_state_70",
    "resnet18_adamwprune_adamwspam_bitter7_state_90_s0",
]
EVALUATIONS = 10
STEPS = 1070
RUN = """
import json, pathlib, sys, time
for row in json.loads(sys.argv[1]):
    with pathlib.Path("metrics.jsonl").open("a") as f:
        f.write(json.dumps(row) + "\\n")
    time.sleep(float(sys.argv[2]))
"""


def rows(accuracy: float = 90.0) -> list[dict]:
    """The metrics of one run."""
    found = [{"event": "start", "steps": STEPS}]
    for i in range(1, EVALUATIONS + 1):
        known = {"validation_loss": 0.1, "validation_accuracy": accuracy + i * 0.77, "sparsity": 0.07 * i}
        found.append({"event": "epoch", "step": STEPS * i // EVALUATIONS, **known})
    return found


def one(root: Path, seconds: float) -> None:
    script = root / "run.py"
    script.write_text(RUN)
    each = str(seconds / EVALUATIONS)
    jobs = [Job(made(root, name), (str(script), json.dumps(rows()), each)) for name in IDS]
    with Progress(len(jobs)) as progress:
        for job, status in EXECUTORS["local"](poll=progress.poll).run(jobs):
            progress.ended(job, status)


def several(root: Path, seconds: float) -> None:
    jobs = [Job(made(root, name), ()) for name in IDS]
    with Progress(len(jobs) + 7) as progress:
        for row in rows():
            for i, job in enumerate(jobs):
                if row.get("step", 0) <= STEPS - 200 * i:
                    with (job.run_dir / "metrics.jsonl").open("a") as f:
                        f.write(json.dumps(row) + "\n")
            for _ in range(4):
                time.sleep(seconds / EVALUATIONS / 4)
                for job in jobs:
                    progress.poll(job)
        progress.ended(jobs[0], Status("done", 0))
        progress.ended(jobs[1], Status("failed", 1))
        for _ in range(8):
            time.sleep(seconds / EVALUATIONS)
            for job in jobs[2:]:
                progress.poll(job)


def made(root: Path, name: str) -> Path:
    path = root / name
    path.mkdir()
    return path


def main() -> int:
    way = {"one": one, "several": several}[(sys.argv[1:] or ["several"])[0]]
    with tempfile.TemporaryDirectory() as folder:
        way(Path(folder), float((sys.argv[2:] or ["5"])[0]))
    print("the end")
    return 0


if __name__ == "__main__":
    lib.call(main)
