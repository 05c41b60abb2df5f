"""One run in two processes: the same run as in one, but for rounding; one writer; clear ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from house import PATIENCE_S, wait
from train_kit import BASE, Run

from lib import kconfig
from lib.config import InputError
from lib.data.base import Share
from lib.hyper import Training
from lib.matrix import pin, plan
from lib.resolve import pinned, resolve, sharding
from lib.rundir import ROOT, RunDir
from lib.runner import check
from lib.world import join

TOLERANCE = 1e-4  # of weights after six steps, whose updates are 1e-3 to 1e-2: sums are taken in another order
# In 32 bits a deep network with BatchNorm makes large differences of rounding within two steps, here as between any two
# devices: what is compared is its loss, and its weights in 64 bits (test_a_resnet_...).
CHAOTIC = {"resnet18-state", "resnet18-sgd"}
SMALL = {k: v for k, v in BASE.items() if "LENET5" not in k} | {"MAX_ITERS": "6", "NUM_THREADS": "2"}
GPT2 = {
    "MODEL_GPT2": "y",
    "GPT2_DATASET_STDLIB": "y",
    "GPT2_SIZE_TINY": "y",
    "GPT2_BLOCK": "32",
    "GPT2_BATCH_SIZE": "8",
    "GPT2_EVAL_INTERVAL": "3",
    "GPT2_EVAL_TOKENS": "1000",
    "GPT2_EVAL_BATCH_SIZE": "4",
}
RESNET = {"MODEL_RESNET18": "y", "RESNET18_DATASET_DIGITS": "y", "RESNET18_BATCH_SIZE": "16", "MAX_ITERS": "4"}
LENET = {"MODEL_LENET5": "y", "LENET5_DATASET_DIGITS": "y", "LENET5_BATCH_SIZE": "64"}


@pytest.fixture(autouse=True)
def handlers():
    """main() takes over what signals do; here it is called inside of the tests' own process."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def configured(optimizer, method, **settings):
    lines = {**SMALL, f"OPTIMIZER_{optimizer.upper()}": "y", f"PRUNING_METHOD_{method.upper()}": "y", **settings}
    if method != "none":
        lines = {"TARGET_SPARSITY": "0.6", "PRUNING_WARMUP": "0", "PRUNING_FREQUENCY": "2", **lines}
    return kconfig.apply(None, [(k, v, "test") for k, v in lines.items()])


def started(path, config, **how):
    """(its directory, the process) of the one run of a config, begun as an executor begins it."""
    (spec,) = plan(config).specs
    d = RunDir(path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    command = [sys.executable, str(ROOT / spec.model / "train.py"), "--run", str(d.path)]
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    # Under `make check &` it would be ignored.
    how |= {"env": env, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return d, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)


def still_running(d):
    """Process ids that name a run's directory, as text."""
    return subprocess.run(["pgrep", "-f", str(d.path)], capture_output=True, text=True).stdout


def trained(path, devices, *args, **settings):
    d, process = started(path / str(devices), configured(*args, DDP_NUM_GPUS=str(devices), **settings))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    return Run(d.path)


def distance(a, b):
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


CASES = {
    "gpt2-state": ("adamwprune", "state", GPT2),
    "gpt2-goes": ("adamw", "magnitude", {**GPT2, "GPT2_MICRO_BATCH": "2", "HYPER_PARAM_AUTO": "n"}),
    "gpt2-spread-state": (
        "adamwprune",
        "state",
        {**GPT2, "SHARDING_FULL": "y", "GPT2_CLIP_NORM": "0.5", "INFERENCE_TEST": "y"},
    ),
    "gpt2-spread-movement": ("adamwspam", "movement", {**GPT2, "SHARDING_FULL": "y", "GPT2_MICRO_BATCH": "2"}),
    "gpt2-spread-sgd": ("sgd", "magnitude", {**GPT2, "SHARDING_FULL": "y", "GPT2_CLIP_NORM": "0.5"}),
    "resnet18-state": ("adamwprune", "state", RESNET),
    "resnet18-sgd": ("sgd", "magnitude", RESNET),
    "lenet5-magnitude": ("sgd", "magnitude", LENET),
    "gpt2-rigl": ("adamw", "rigl", GPT2),
    "lenet5-compiled": ("sgd", "magnitude", {**LENET, "COMPILE_YES": "y"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_run(tmp_path, case):
    optimizer, method, settings = CASES[case]
    one, two = (trained(tmp_path, n, optimizer, method, **settings) for n in (1, 2))
    assert (one.summary["devices"], two.summary["devices"]) == (1, 2)
    assert two.summary["achieved_sparsity"] == one.summary["achieved_sparsity"] > 0.59
    for fact in ("model_parameters", "prunable_parameters", "steps", "batch_size", "data_hash", "sample"):
        assert two.summary[fact] == one.summary[fact] or case in CHAOTIC, fact
    a, b = one.last(), two.last()
    if case not in CHAOTIC:
        assert distance(a["model"], b["model"]) < TOLERANCE
    for i, state in a["optimizer"]["state"].items():
        for name, value in state.items():
            if torch.is_tensor(value):
                assert value.shape == b["optimizer"]["state"][i][name].shape
    assert a["pruner"].keys() == b["pruner"].keys()
    assert [r["event"] for r in two.rows] == [r["event"] for r in one.rows]
    assert [r["pruned"] for r in two.prunes] == [r["pruned"] for r in one.prunes]
    for x, y in zip(one.epochs, two.epochs, strict=True):
        assert y["train_loss"] == pytest.approx(x["train_loss"], rel=0.02 if case in CHAOTIC else 1e-4)
        if case not in CHAOTIC:
            assert y["validation_loss"] == pytest.approx(x["validation_loss"], rel=1e-4)
    if "keep" in a["pruner"] and case not in CHAOTIC:
        kept = [torch.equal(a["pruner"]["keep"][n], b["pruner"]["keep"][n]) for n in a["pruner"]["keep"]]
        assert all(kept)


def torchrun(*args):
    """world_worker.py in two processes, to their end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    return subprocess.run(
        [*command, str(Path(__file__).with_name("world_worker.py")), *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def worker(case):
    done = torchrun(case)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_batchnorm_sees_the_whole_batch():
    found = worker("batchnorm")
    assert len(found) == 8
    assert max(found.values()) < 1e-5, found


@pytest.mark.slow
def test_a_resnet_in_two_processes_is_one_but_for_rounding():
    found = worker("resnet")
    assert found["moved"] > 1e-3
    assert found["apart"] < 1e-7, found


@pytest.mark.slow
def test_processes_that_differ_are_noticed():
    found = worker("differ")
    assert found == {
        "noticed": "weights of process 1 differ from those of the leader",
        "by": 2,
        "leads": True,
        "pids": 2,
    }


@pytest.mark.slow
def test_the_first_failure_is_the_reason(tmp_path):
    """The text is too short for a sample: each process finds out, one says it."""
    settings = {**GPT2, "GPT2_BLOCK": "1000000", "GPT2_EVAL_TOKENS": "0"}
    d, process = started(tmp_path, configured("adamw", "none", DDP_NUM_GPUS="2", **settings))
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "give more text, or a smaller GPT2_BLOCK" in d.error.read_text()
    assert d.error.read_text() in out
    assert not d.summary.exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_ends_those_that_wait_for_it(tmp_path, rank):
    (spec,) = plan(config := configured("adamw", "none", DDP_NUM_GPUS="2", **LENET)).specs
    d = RunDir(tmp_path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    done = torchrun("fails", str(rank), str(d.path))
    assert done.returncode == 1 and d.error.exists(), done.stderr
    took = time.time() - d.error.stat().st_mtime
    assert d.error.read_text().endswith(f"RuntimeError: process {rank} is broken\n")
    assert took < 30, done.stderr
    assert not d.summary.exists()
    assert "interrupted" not in d.metrics.read_text()
    assert not still_running(d)


@pytest.mark.slow
def test_an_interrupt_ends_all_processes(tmp_path):
    settings = {**GPT2, "MAX_ITERS": "100000", "GPT2_EVAL_INTERVAL": "5"}
    d, process = started(tmp_path, configured("adamw", "none", DDP_NUM_GPUS="2", **settings))
    wait(lambda: d.metrics.exists() and "epoch" in d.metrics.read_text())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert json.loads(d.metrics.read_text().splitlines()[-1]) == {"event": "interrupted"}
    assert not d.summary.exists()
    assert not still_running(d)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["one", "group"])
def test_nothing_is_left_of_a_run_that_is_killed(tmp_path, whom):
    settings = {**GPT2, "MAX_ITERS": "100000", "GPT2_EVAL_INTERVAL": "5"}
    d, process = started(tmp_path, configured("adamw", "none", DDP_NUM_GPUS="2", **settings), start_new_session=True)
    wait(lambda: d.metrics.exists() and "epoch" in d.metrics.read_text())
    os.kill(process.pid, signal.SIGKILL) if whom == "one" else os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    wait(lambda: not still_running(d))


@pytest.mark.slow
def test_the_documented_torchrun_command(tmp_path):
    (spec,) = plan(config := configured("adamw", "none", DDP_NUM_GPUS="2", **GPT2)).specs
    d = RunDir(tmp_path / spec.id).create(kconfig.normalise(pin(config, spec)), spec)
    [line] = [
        x for x in (ROOT / "docs/hyperparameter-auto-detection.md").read_text().splitlines() if "or: torchrun" in x
    ]
    documented = (
        line.split("or: torchrun ")[1].replace("nproc-per-node 4", "nproc-per-node 2").replace("DIR", str(d.path))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *documented.split()]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=ROOT / "gpt2", check=True, timeout=PATIENCE_S, env=env)
    assert d.read_summary().status == "done"


@pytest.mark.parametrize(("rank", "rows"), [(0, slice(0, 4)), (1, slice(4, 8)), (2, slice(8, 12))])
def test_shares_of_a_batch(rank, rows):
    assert Share(rank, 3).rows(12) == rows == Share(rank, 3).rows(14)


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_batch_is_evaluated_once_and_turns_are_equal(n, size):
    turns = [list(Share(rank, size).turns(n)) for rank in range(size)]
    assert len({len(t) for t in turns}) == 1
    assert sorted(i for t in turns for i, counts in t if counts) == list(range(n))
    assert all(0 <= i < n for t in turns for i, _ in t)


def test_a_batch_that_cannot_be_shared():
    with pytest.raises(InputError, match="LENET5_BATCH_SIZE=64 cannot be shared equally by DDP_NUM_GPUS=3: give a mul"):
        check(configured("adamw", "none", **LENET, DDP_NUM_GPUS="3", HYPER_PARAM_AUTO="n"))
    check(configured("adamw", "none", **LENET, DDP_NUM_GPUS="3"))
    with pytest.raises(InputError, match="cannot be shared equally"):
        check(configured("adamw", "none", **LENET, DDP_NUM_GPUS="65"))


def test_another_number_of_processes_than_configured(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(InputError, match="DDP_NUM_GPUS=2, and torchrun has started 4: give --nproc-per-node=2"):
        join(Training(ddp_num_gpus=2, device="cpu"))


def test_a_process_of_several_that_fails_ends_at_once(monkeypatch, tmp_path):
    """Its reason is written then. An orderly end would wait for those that wait for it."""
    from lib import launch
    from lib.main import main

    def end(code):
        raise SystemExit(code, (tmp_path / "error.txt").read_text())

    class Task:
        name = "lenet5"

    (spec,) = plan(config := configured("adamw", "none", **LENET)).specs
    RunDir(tmp_path).create(kconfig.normalise(pin(config, spec)), spec)
    monkeypatch.setattr(launch, "end_process", end)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        main("lenet5", Task, ["--run", str(tmp_path)])
    code, why = ended.value.args
    assert (code, why) == (2, "DDP_NUM_GPUS=1, and torchrun has started 2: give --nproc-per-node=1\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_processes_on_several_nodes(monkeypatch):
    for name, value in {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="DDP_NUM_GPUS=2: torchrun has started processes on several nodes"):
        join(Training(ddp_num_gpus=2, device="cpu"))


def test_torchrun_with_settings_is_sent_to_what_makes_a_directory(monkeypatch, tmp_path, capsys):
    from lenet5.train import make_task
    from lib.main import main

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    flags = "--dataset digits --optimizer adamw --pruning-method none --ddp-num-gpus 2 --results".split()
    assert main("lenet5", make_task, [*flags, str(tmp_path / "r")]) == 2
    assert "give --ddp-num-gpus N to train.py" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_more_gpus_than_there_are(monkeypatch):
    from lib.monitor.base import BACKENDS

    backend = BACKENDS["nvidia"]
    monkeypatch.setattr(backend, "probe", lambda: True)
    monkeypatch.setattr(backend, "devices", lambda: ["one", "another"])
    config = {**LENET, "DEVICE_CPU": "n", "DEVICE_AUTO": "y"}
    check(configured("adamw", "none", **config, DDP_NUM_GPUS="2"))
    with pytest.raises(InputError, match="DDP_NUM_GPUS=4, and this machine has 2 GPUs: choose at most 2"):
        check(configured("adamw", "none", **config, DDP_NUM_GPUS="4"))
    for name, value in {"LOCAL_WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="DDP_NUM_GPUS=4, and torch finds 2 GPUs here"):
        join(Training(ddp_num_gpus=4))


@pytest.mark.parametrize("method", ["rigl", "set", "random"])
def test_methods_that_need_whole_layers(method):
    config = configured("adamw", method, **GPT2, SHARDING_FULL="y", DDP_NUM_GPUS="2")
    with pytest.raises(InputError, match=f"PRUNING_METHOD_{method.upper()} needs whole layers.*choose SHARDING_NONE"):
        check(config)


def test_an_audit_needs_whole_layers():
    with pytest.raises(InputError, match="PRUNING_AUDIT needs whole layers"):
        check(configured("adamwprune", "state", **GPT2, SHARDING_FULL="y", DDP_NUM_GPUS="2", PRUNING_AUDIT="y"))


@pytest.mark.parametrize(
    ("size", "devices", "want"),
    [("1558M", "4", "full"), ("774M", "2", "full"), ("350M", "2", "none"), ("1558M", "1", "none")],
)
def test_what_auto_spreads(size, devices, want):
    settings = {k: v for k, v in GPT2.items() if "TINY" not in k} | {f"GPT2_SIZE_{size}": "y", "DDP_NUM_GPUS": devices}
    config = resolve(configured("adamw", "none", **settings))
    (spec,) = plan(config).specs
    assert sharding(config, spec) == want
    assert pinned(config, spec)[f"SHARDING_{want.upper()}"] == "y"
