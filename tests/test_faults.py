"""What can go wrong while a matrix runs: a run that fails, is killed or times out, Ctrl-C, and going on afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from house import NO_GRAPHS, PATIENCE_S, wait

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """CONFIG_MODEL_LENET5=y
CONFIG_LENET5_DATASET_DIGITS=y
CONFIG_MAX_ITERS=20
CONFIG_NUM_THREADS=1
CONFIG_OPTIMIZER_ADAMW=y
CONFIG_PRUNING_METHOD_NONE=y
CONFIG_PRUNING_METHOD_MAGNITUDE=y
CONFIG_TARGET_SPARSITY="0.5,0.9"
"""
IDS = ["lenet5_adamw_none", "lenet5_adamw_magnitude_50", "lenet5_adamw_magnitude_90"]


@pytest.fixture
def program(repo):
    """A copy of the program with a matrix of three short runs."""
    repo.config.write_text(CONFIG + NO_GRAPHS)
    return repo


def matrix(program, command: str, *, code: int, **overrides: str) -> str:
    env = {"OVERRIDE_RESULTS": "out", **{f"OVERRIDE_{k}": v for k, v in overrides.items()}}
    done = program.script("scripts/matrix.py", command, **env)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def records(program) -> dict:
    found = json.loads((program.path / "out" / "all_results.json").read_text())
    return {r["id"]: r["status"] for r in found["runs"]} | dict.fromkeys(found["missing"], "missing")


def sabotage(program, code: str) -> None:
    """Put `code` where every run passes, with `self.spec` at hand."""
    path = program.path / "lib" / "trainer.py"
    mark = "    def _epoch(self, started: float) -> None:\n"
    text = path.read_text()
    assert mark in text
    path.write_text(text.replace(mark, f"{mark}        import os, signal, time\n        {code}\n"))


def mend(program) -> None:
    shutil.copy(ROOT / "lib" / "trainer.py", program.path / "lib" / "trainer.py")


def test_failed_runs_stop_nothing_and_are_done_later(program):
    """One raises, one is killed; what comes after them is done."""
    program.config.write_text(program.config.read_text().replace('"0.5,0.9"', '"0.5,0.7,0.9"'))
    raises, killed = IDS[1], "lenet5_adamw_magnitude_70"
    sabotage(
        program,
        "if self.spec.target_sparsity == 0.5: raise RuntimeError('of its own making')\n"
        "        if self.spec.target_sparsity == 0.7: os.kill(os.getpid(), signal.SIGKILL)",
    )
    text = matrix(program, "run", code=1)
    assert records(program) == {IDS[0]: "done", raises: "failed", killed: "failed", IDS[2]: "done"}
    assert "of its own making" in (program.path / "out" / raises / "error.txt").read_text()
    assert "ended with status -9" in (program.path / "out" / killed / "error.txt").read_text()
    assert "2 of 4 runs did not finish" in text
    assert f"{raises}: failed" in text
    before = (program.path / "out" / IDS[0] / "summary.json").read_bytes()
    mend(program)
    matrix(program, "rerun-failed", code=0)
    assert set(records(program).values()) == {"done"}
    assert (program.path / "out" / IDS[0] / "summary.json").read_bytes() == before
    assert not (program.path / "out" / raises / "error.txt").exists()


@pytest.mark.slow  # the limit must be far above what a run takes on a busy machine
def test_a_run_that_takes_too_long_is_stopped(program):
    sabotage(program, "if self.spec.target_sparsity == 0.5: time.sleep(600)")
    text = matrix(program, "run", code=1, SET="RUN_TIMEOUT=45")
    assert records(program) == {IDS[0]: "done", IDS[1]: "failed", IDS[2]: "done"}
    assert "RUN_TIMEOUT" in text


def test_ctrl_c_keeps_what_is_finished_and_continue_does_the_rest(program):
    sabotage(program, "if self.spec.target_sparsity == 0.5: time.sleep(600)")
    command, env = [sys.executable, "scripts/matrix.py", "run"], {**os.environ, "OVERRIDE_RESULTS": "out"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = subprocess.Popen(command, cwd=program.path, env=env, **pipes)
    wait((program.path / "out" / IDS[1] / "monitor.jsonl").exists)
    assert "is in use" in matrix(program, "continue", code=2)  # beside the one that runs
    running.send_signal(signal.SIGINT)
    text = running.communicate(timeout=PATIENCE_S)[0]
    assert running.returncode == 130, text
    assert "finished runs are kept: `make continue RESULTS=out` does the rest" in text
    assert records(program) == {IDS[0]: "done", IDS[1]: "interrupted", IDS[2]: "missing"}
    before = (program.path / "out" / IDS[0] / "metrics.jsonl").read_bytes()
    (program.path / "out" / IDS[2] / "summary.json").write_text('{"schema": 1, "id"')  # as a crash might leave it
    mend(program)
    matrix(program, "continue", code=0)
    assert set(records(program).values()) == {"done"}
    assert (program.path / "out" / IDS[0] / "metrics.jsonl").read_bytes() == before
    assert "EPOCHS" in matrix(program, "continue", code=2, EPOCHS="3")


def exact(run: Path) -> list[dict]:
    """Everything that a run recorded and that time does not change."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if not k.endswith("_s") and k != "memory"} for r in rows]


@pytest.mark.slow
def test_a_directory_is_enough(program):
    """A run's directory reproduces it bitwise in a fresh interpreter, whatever process it was forked from and whatever
    ran before it; report and graphs come from the results directory alone, without torch and without a .config."""
    program.config.write_text(CONFIG + NO_GRAPHS.replace("# CONFIG_GRAPH_ACCURACY_EVOLUTION is not set\n", ""))
    matrix(program, "run", code=0)
    out = program.path / "out"
    again = program.path / "again"
    shutil.copytree(out / IDS[2], again)
    (again / "summary.json").unlink()
    (again / "metrics.jsonl").unlink()
    assert program.script("lenet5/train.py", "--run", str(again)).returncode == 0
    assert exact(again) == exact(out / IDS[2])

    first = json.loads((out / "all_results.json").read_text())
    for name in ("all_results.json", "summary_report.txt", "report.md"):
        (out / name).unlink()
    shutil.rmtree(out / "graphs")
    program.config.unlink()
    blocked = program.path / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ImportError('torch is blocked')\n")
    for command in ("report", "graphs"):
        done = program.script("scripts/report.py", command, OVERRIDE_RESULTS="out", PYTHONPATH=str(blocked))
        assert done.returncode == 0, done.stderr
    assert json.loads((out / "all_results.json").read_text()) == first
    drawn = {p.stem for p in (out / "graphs").glob("*.png")}
    assert drawn == {"adamw_accuracy_evolution"}
