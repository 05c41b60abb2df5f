"""A CPU's runs are compared, not its allocator: fixed thresholds in every run, and memory that repeats."""

import json
import platform
import subprocess
import sys

import pytest

from lib import kconfig, runner
from lib.executor.base import EXECUTORS, Job
from lib.rundir import ROOT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is glibc's malloc")

# Prints what of 16 MiB stays resident when they are freed, and after a release; by default nothing does.
KEPT = """
import ctypes
from lib import allocator

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

def kept():
    before = anonymous()
    block = libc.malloc(16 << 20)
    ctypes.memset(block, 1, 16 << 20)
    libc.free(block)
    return anonymous() - before
"""


def python(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", KEPT + code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [float(x) for x in done.stdout.split()]


def test_what_is_freed_stays_for_the_next_step_until_it_is_released():
    code = "print(kept()); assert allocator.fix_thresholds(); print(kept())"
    code += "; full = anonymous(); allocator.release_freed_memory(); print(full - anonymous())"
    plain, fixed, released = python(code)
    assert plain < 2 and fixed > 14 and released > 14, (plain, fixed, released)


def test_nothing_happens_without_glibc():
    code = "import types; ctypes.CDLL = lambda name: types.SimpleNamespace()"
    code += "; assert not allocator.fix_thresholds(); allocator.release_freed_memory(); print(kept())"
    assert python(code)[0] < 2


def test_two_identical_runs_agree(tmp_path):
    """In forks of one process, as `make` runs them. Of three, two may differ by where a block came to lie."""
    lines = {"MODEL_LENET5": "y", "LENET5_DATASET_DIGITS": "y", "OPTIMIZER_ADAMW": "y", "PRUNING_METHOD_NONE": "y"}
    lines |= {"DEVICE_CPU": "y", "NUM_THREADS": "1", "MAX_ITERS": "8", "MONITOR": "n"}
    script = tmp_path / "measured.py"
    script.write_text(
        f"import json, runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\nsys.argv = sys.argv[1:]\n{KEPT}\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\nexcept SystemExit as e:\n    assert not e.code\n"
        "used = anonymous()\nallocator.release_freed_memory()\nprint(json.dumps([used, kept()]))\n"
    )
    work = []
    for name in "abc":
        lines["RESULTS"] = str(tmp_path / name)
        root = runner.prepare(kconfig.apply(None, [(k, v, "test") for k, v in lines.items()]))
        jobs, imports = runner.jobs(root, runner.pending(root))
        work += [Job(job.run_dir, (str(script), *job.argv)) for job in jobs]
    found = []
    for job, status in EXECUTORS["local"](imports=imports).run(work):
        log = (job.run_dir / "output.log").read_text()
        assert status.state == "done", log
        found.append(json.loads(log.splitlines()[-1]))
    low, middle, high = sorted(used for used, _ in found)
    assert min(middle - low, high - middle) < 2, found
    assert min(fixed for _, fixed in found) > 14, found
