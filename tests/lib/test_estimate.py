"""What a plan says that its runs will take: finished runs, else measured steps, else a guess that is called one."""

import json
import re

import pytest

from lib import estimate, hyper, kconfig, ledger, overrides, provenance, runner
from lib.cache import write_cache
from lib.config import Config
from lib.files import FileDigest, write_record
from lib.matrix import expand, plan
from lib.records import AllResults, Origin, Row
from lib.resolve import lengths, resolve
from lib.schema import blank

MEASURED = {
    "step_s": 0.25,
    "evaluation_s": 2.0,
    "load_s": 1.0,
    "activations": 50 << 20,
    "share": 1.0,
    "busy": False,
    "parameters": 61_750,
    "prunable": 61_470,
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMWPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(estimate, "newest", list)


def group(config: Config) -> estimate.Group:
    [found] = estimate.groups(config, expand(config))
    return found


def said(config: Config, begins: str) -> str:
    """A line of what is said, with the indented lines below it."""
    text = re.sub(r"\n +", " ", "\n".join(estimate.describe_costs(config, plan(config))))
    [line] = [line for line in text.split("\n") if line.startswith(begins)]
    return line


def hours(line: str) -> float:
    value, unit = re.search(r"about ([\d.,]+) (s|min|h|days)", line).groups()
    return float(value.replace(",", "")) * {"s": 1 / 3600, "min": 1 / 60, "h": 1, "days": 24}[unit]


def preset(name: str) -> Config:
    return kconfig.load(kconfig.PRESETS / name)


def test_a_guess_is_called_one(lenet5):
    line = said(lenet5, "estimate:")
    assert "a guess from the arithmetic of lenet5 on mnist" in line
    assert "`make plan PROBE=y` measures" in line  # for `make` itself takes no PROBE=


def test_measured_steps_take_the_place_of_the_guess(lenet5):
    found = group(lenet5)
    write_cache(estimate.KIND, estimate.probe_key(found), MEASURED)
    known = estimate.cost(found)
    assert (known.source, known.step_s, known.start_s) == ("measured", 0.25, estimate.START_S + 1.0)
    total = sum(known.run_s(lengths(found.config, s), s.target_sparsity > 0) for s in found.specs)
    assert total == pytest.approx(39 * (2.5 + 1070 * 0.25 + 12 * 2) + 33 * 2, abs=1)
    assert hours(said(lenet5, "estimate:")) == pytest.approx((total + 39 * estimate.GRAPHS_S) / 3600, rel=0.05)
    assert "measured here: 0.25 s a step of lenet5 on mnist" in said(lenet5, "estimate:")
    assert "50 MiB of activations (measured)" in said(lenet5, "memory:")


@pytest.mark.parametrize("damaged", [{}, {"step_s": 1}, MEASURED | {"share": None, "step_s": "x"}])
def test_a_damaged_entry_is_none(lenet5, damaged):
    write_cache(estimate.KIND, estimate.probe_key(group(lenet5)), damaged)
    assert estimate.cost(group(lenet5)).source == "guess"


@pytest.mark.parametrize(
    "change", ["LENET5_BATCH_SIZE=64", "NUM_THREADS=3", "PRECISION_BF16=y", "LENET5_MICRO_BATCH=8"]
)
def test_what_was_measured_of_other_work_does_not_count(lenet5, change):
    write_cache(estimate.KIND, estimate.probe_key(group(lenet5)), MEASURED)
    assert estimate.cost(group(overrides.apply(lenet5, {"SET": change}))).source == "guess"
    assert estimate.cost(group(overrides.apply(lenet5, {"SET": "LENET5_ADAM_LR=0.01"}))).source == "measured"


def test_finished_runs_come_first(monkeypatch, lenet5, tmp_path):
    found = group(lenet5)
    model, dataset, batch, threads, device, precision = estimate.run_key(found)
    run = {"model": model, "dataset": dataset, "batch_size": batch, "threads": threads, "device": device}
    run |= {"precision": precision, "status": "done", "steps": 100, "train_s": 50.0, "elapsed_s": 61.0, "epochs": 10}
    run |= {"optimizer": "adamw", "pruning_method": "none", "adamwprune_variant": "", "adamwprune_base": "", "id": "a"}
    run |= {"target_sparsity": 0.0, "seed": 0}
    changes = ({}, {"steps": 3, "train_s": 999.0}, {"status": "failed", "train_s": 999.0})
    rows = [blank(Row, run | change) for change in changes]
    origin = Origin(**vars(provenance.collect()), config=FileDigest(size=0, sha256=""))
    write_record(tmp_path / "all_results.json", AllResults(commit=None, provenance=origin, missing=[], runs=rows))
    monkeypatch.setattr(estimate, "newest", lambda: [tmp_path])
    write_cache(estimate.KIND, estimate.probe_key(found), MEASURED)
    known = estimate.cost(found)
    assert (known.source, known.step_s, known.evaluation_s) == ("recorded", 0.5, 1.0)
    assert "from finished runs here, 0.5 s a step" in said(lenet5, "estimate:")


def test_on_a_gpu_the_guess_is_made_of_gpu_figures(monkeypatch):
    """GPT-2 124M for 10,000 steps of 1,024 samples: hours on an H100, where a CPU's figures said 201,481."""
    monkeypatch.setattr("lib.resolve.trains_on_gpu", lambda config: True)
    monkeypatch.setattr(estimate, "trains_on_gpu", lambda config: True)
    config = overrides.apply(preset("gpt2-finewebedu-bitter7"), {"SET": "PRECISION_BF16=y"})
    found = {}
    for name in ("NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "A GPU that nobody knows"):
        monkeypatch.setattr(estimate, "device_name", lambda config, name=name: name)
        found[name] = hours(said(config, "estimate:"))
    h100, a100, other = found.values()
    assert 3 < h100 < 20
    assert h100 < a100 < other < 200


def test_above_two_days_a_shorter_command_is_named():
    config = preset("resnet50-adamwprune-vs-adamwspam")
    command = re.search(r"`make EPOCHS=(\d+)` takes about a day", said(config, "shorter:"))
    shorter = overrides.apply(config, {"EPOCHS": command[1]})
    assert 8 < hours(said(shorter, "estimate:")) < 48
    assert not [line for line in estimate.describe_costs(shorter, plan(shorter)) if line.startswith("shorter:")]


def test_runs_that_end_by_max_iters_are_shortened_by_it():
    config = preset("gpt2-finewebedu-bitter-lesson")
    command = re.search(r"`make MAX_ITERS=(\d+)` takes about a day", said(config, "shorter:"))
    assert hours(said(overrides.apply(config, {"MAX_ITERS": command[1]}), "estimate:")) < 48


@pytest.mark.parametrize(("value", "found"), [(0.4, 0), (7.9, 7), (10, 10), (19.9, 10), (356, 300), (99_999, 90_000)])
def test_a_round_number_of_steps(value, found):
    assert estimate.rounded(value) == found


def test_missing_data_is_said(tmp_path, lenet5, quickstart):
    config = overrides.apply(lenet5, {"DATA_DIR": str(tmp_path)})
    assert "MNIST: train-images-idx3-ubyte" in said(config, "missing data:")
    assert "`make data` downloads it" in said(config, "missing data:")
    assert not list(estimate.missing_data(quickstart, plan(quickstart)))


def test_memory_is_the_ledgers(lenet5):
    """From the leanest run, sgd's, to movement on an Adam optimizer with its scores, values and masks."""
    found = group(lenet5)
    sums = [sum(ledger.predict(s, found.config, 61_750, 61_470).values()) for s in found.specs]
    low, high = (estimate.mib(size) for size in (min(sums), max(sums)))
    assert said(lenet5, "memory:").startswith(f"memory: {low} to {high} a run of lenet5 on mnist: weights, gradients")
    assert sums[0] == 3 * 4 * 61_750


def test_each_data_set_is_estimated_with_its_own_batch_and_arithmetic():
    lines = ["MODEL_RESNET18", "RESNET18_DATASET_CIFAR10", "RESNET18_DATASET_IMAGENET", "RESNET18_DATASET_DIGITS"]
    config = kconfig.apply(None, [(n, "y", "t") for n in [*lines, "OPTIMIZER_ADAMW", "PRUNING_METHOD_NONE"]])
    steps = {g.spec.dataset: estimate.guessed(g).step_s for g in estimate.groups(config, expand(config))}
    assert steps["imagenet"] / steps["cifar10"] == pytest.approx(10900 / 3340)
    assert steps["cifar10"] == 2 * steps["digits"]


def test_make_measures_only_what_takes_long(monkeypatch, quickstart):
    asked = []
    monkeypatch.setattr(estimate, "run_probe", lambda group: asked.append(group.name) or {})
    short = overrides.apply(quickstart, {"MAX_ITERS": "3"})
    estimate.cost(group(quickstart))
    estimate.cost(group(short), estimate.PROBE_FROM_S)
    assert asked == []
    estimate.cost(group(quickstart), estimate.PROBE_FROM_S)
    estimate.cost(group(short), 0.0)
    assert asked == ["lenet5 on digits"] * 2


def test_a_model_too_large_for_this_machine_is_not_probed(monkeypatch):
    found = group(overrides.apply(preset("gpt2-vanilla-baseline"), {"SET": "GPT2_SIZE_1558M=y DEVICE_CPU=y"}))
    monkeypatch.setattr(estimate, "WIDEST", 1e-6)
    monkeypatch.setattr(estimate.subprocess, "run", None)
    line = estimate.basis(found, estimate.cost(found, 0.0))
    assert line.endswith("measuring failed (too large for this machine's memory)")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit('TypeError: no \\x1b[31msuch thing')", "TypeError: no ?[31msuch thing"),
        ("import sys; print('{}'); sys.exit(3)", "it ended with status 3"),
        ("print('no JSON')", "it printed no measurement"),
        ("print('[]')", "it printed no measurement"),
        ("print('{}')", "it printed no measurement"),
        ("pass", "it printed no measurement"),
    ],
)
def test_a_probe_that_fails_says_why(monkeypatch, capsys, tmp_path, quickstart, code, says):
    (tmp_path / "lenet5").mkdir()
    (tmp_path / "lenet5" / "train.py").write_text(code)
    monkeypatch.setattr(estimate, "ROOT", tmp_path)
    found = group(quickstart)
    known = estimate.cost(found, 0.0)
    assert known.source == "guess"
    assert estimate.basis(found, known).endswith(f"on this CPU: measuring failed ({says})")
    assert "activations, which could not be measured" in estimate.memory_line(found, known)


def test_a_probe_that_takes_too_long_is_given_up(monkeypatch, capsys, quickstart):
    def run(command, **given):
        raise estimate.subprocess.TimeoutExpired(command, given["timeout"])

    monkeypatch.setattr(estimate.subprocess, "run", run)
    assert estimate.cost(group(quickstart), 0.0).problem == "took over 60 s"


def test_what_a_busy_machine_measured_counts_until_a_quiet_one_has_measured(monkeypatch, capsys, quickstart):
    class Done:
        returncode, stderr = 0, ""

    def measures(**found):
        Done.stdout = "something\n" + json.dumps(MEASURED | found) + "\n"
        return estimate.cost(group(quickstart), 0.0)

    monkeypatch.setattr(estimate.subprocess, "run", lambda *given, **more: Done)
    assert measures(busy=True, step_s=2.0).busy
    for probe in (None, estimate.PROBE_FROM_S):  # `make plan`, `make`
        known = estimate.cost(group(quickstart), probe)
        assert (known.source, known.busy, known.step_s, known.activations) == ("measured", True, 2.0, 50 << 20)
    said_of = estimate.basis(group(quickstart), known)
    assert said_of.endswith("while the machine was busy with other work: `make plan PROBE=y` measures again")
    Done.returncode = 1
    failed = estimate.cost(group(quickstart), 0.0)
    assert (failed.step_s, failed.problem) == (2.0, "it ended with status 1")
    Done.returncode = 0
    assert not measures(busy=False, step_s=1.0).busy
    Done.stdout = "not asked again"
    known = estimate.cost(group(quickstart), 0.0)
    assert (known.step_s, known.busy, known.problem) == (1.0, False, "")
    assert estimate.basis(group(quickstart), known) == "measured here: 1 s a step of lenet5 on digits"


def test_the_batch_is_in_the_plan(quickstart):
    from lib.describe import describe

    text = "\n".join(describe(quickstart, runner.check(quickstart)))
    assert "360 steps of 64, 20 evaluations on digits" in text
    assert hyper.read_recipe(resolve(quickstart), "lenet5", "digits").batch_size == 64
