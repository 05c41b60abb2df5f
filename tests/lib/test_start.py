"""What a run does not import: a start of some seconds would be felt in every run from train.py."""

import os
import subprocess
import sys

import pytest
from house import PATIENCE_S, shared

from lib.rundir import ROOT

CASES = {
    "lenet5": ["--dataset", "digits"],
    "gpt2": ["--dataset", "stdlib", "--size", "tiny", "--block", "16", "--eval-tokens", "64"],
}
HEAVY = ("torch._dynamo", "sympy", "sklearn", "torchvision", "tiktoken", "torch.distributed.fsdp")


@pytest.mark.parametrize("model", CASES)
def test_an_eager_run_imports_no_compiler(model, tmp_path):
    """Not by torch's optimizers either, which import it to switch it off. Pictures are drawn after the run."""
    code = f"""
import sys, runpy
sys.argv = ["train.py", *{CASES[model]!r}, "--optimizer", "adamwprune", "--pruning-method", "state",
            "--target-sparsity", "0.5", "--max-iters", "2", "--batch-size", "2", "--eval-batch-size", "4",
            "--results", {str(tmp_path / "r")!r}, "--data-dir", {str(shared() / "data")!r}, "--device", "cpu"]
sys.modules["lib.report"] = type(sys)("lib.report")  # the report is not part of the start
sys.modules["lib.report"].write, sys.modules["lib.report"].Written = (lambda results: None), None
import lib.terminal
lib.terminal.show_report = lambda results, written: None
try:
    runpy.run_path("{ROOT / model / "train.py"}", run_name="__main__")
except SystemExit as e:
    assert not e.code, e.code
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
