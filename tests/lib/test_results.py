"""Records from files alone: statuses, memory of the training phase, comparisons only where runs match, the report."""

import json

import pytest

from lib import kconfig, report, results, rundir
from lib.config import InputError
from lib.matrix import expand, pin
from lib.monitor.stats import SCHEMA

HEADER = {
    "schema": SCHEMA,
    "fields": ["process_memory"],
    "pid": 1,
    "interval_s": 1.0,
    "started": 0.0,
    "devices": [{"vendor": "cpu", "index": 0}],
}


def sample(t, phase, mib=None):
    return {"t": t, "phase": phase, "devices": [[mib]]}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture
def root(tmp_path, quickstart):
    """A results directory with every run of the quickstart prepared and none started."""
    quickstart.write(tmp_path / "config")
    rundir.write_json(tmp_path / "provenance.json", {"schema": rundir.SCHEMA, "commit": "c0ffee", "dirty": None})
    for spec in expand(quickstart):
        rundir.RunDir(tmp_path / spec.id).create(kconfig.normalise(pin(quickstart, spec)), spec)
    return tmp_path


def finish(root, name, **changes):
    """Write what a finished run leaves."""
    run = rundir.RunDir(root / name)
    spec = run.spec()
    data = results.blank(spec) | {
        "status": "done",
        "reason": None,
        "test_accuracy_last": 98.0,
        "test_accuracy_best": 98.0,
        "achieved_sparsity": spec.target_sparsity,
        "achieved_sparsity_of_all": spec.target_sparsity / 2,
        "steps": 360,
        "batch_size": 64,
        "prunable_parameters": 1000,
        "data_hash": "d" * 64,
        "elapsed_s": 10.0,
        "skipped_steps": 0,
    }
    write_lines(run.metrics, [{"event": "start"}])
    write_lines(
        run.monitor,
        [
            HEADER,
            sample(0, "load", 900.0),
            sample(1, "train", 100.0),
            sample(2, "train", 300.0),
            sample(4, "end", 50.0),
        ],
    )
    rundir.write_json(run.summary, {"schema": rundir.SCHEMA, **data, **changes})


def test_statuses_come_from_files(root):
    finish(root, "lenet5_adamw_none")
    (root / "lenet5_adamw_magnitude_50" / "error.txt").write_text("Traceback\nValueError: the last line says it\n")
    write_lines(root / "lenet5_adamw_magnitude_70" / "metrics.jsonl", [{"event": "start"}])
    finish(root, "lenet5_adamw_magnitude_90", status="diverged", reason="the loss is inf")
    found = results.load(root)
    assert [(r.id, r.status, r.reason) for r in found] == [
        ("lenet5_adamw_none", "done", None),
        ("lenet5_adamw_magnitude_50", "failed", "ValueError: the last line says it"),
        ("lenet5_adamw_magnitude_70", "interrupted", None),
        ("lenet5_adamw_magnitude_90", "diverged", "the loss is inf"),
    ]
    assert len(found.missing) == 7
    assert [r.id for r in found.done] == ["lenet5_adamw_none"]


def test_memory_is_that_of_the_training_phase(root):
    finish(root, "lenet5_adamw_none")
    [r] = results.load(root)
    # 100 MiB for the second until the next sample, 300 for the two until the end of training
    assert r.gpu_memory_mean == pytest.approx((100.0 * 1 + 300.0 * 2) / 3)
    assert (r.gpu_memory_max, r.memory_samples) == (300.0, 2)
    assert r.memory_source == "host process RSS"
    assert r.efficiency_per_100mib == pytest.approx(100 * 98.0 / (700 / 3))


def test_a_gpu_that_reports_the_process_comes_before_the_host(root):
    finish(root, "lenet5_adamw_none")
    header = HEADER | {"devices": [{"vendor": "cpu", "index": 0}, {"vendor": "nvidia", "index": 0}]}
    both = {"t": 1, "phase": "train", "devices": [[500.0], [40.0]]}
    write_lines(root / "lenet5_adamw_none" / "monitor.jsonl", [header, both])
    [r] = results.load(root)
    assert (r.gpu_memory_mean, r.memory_source) == (40.0, "NVIDIA process memory")


def test_the_memory_of_several_gpus_is_their_sum(root):
    finish(root, "lenet5_adamw_none")
    header = HEADER | {
        "devices": [{"vendor": "nvidia", "index": 0}, {"vendor": "cpu", "index": 0}, {"vendor": "nvidia", "index": 0}]
    }
    rows = [{"t": t, "phase": "train", "devices": [[40.0], [500.0], [x]]} for t, x in ((1, 50.0), (2, None), (3, 70.0))]
    write_lines(root / "lenet5_adamw_none" / "monitor.jsonl", [header, *rows])
    [r] = [r for r in results.load(root) if r.id == "lenet5_adamw_none"]
    assert r.gpu_memory_max == 110
    assert r.memory_source == "NVIDIA process memory"


@pytest.mark.parametrize("monitor", [None, [HEADER], [HEADER, sample(1, "train")], [HEADER, sample(1, "load", 5.0)]])
def test_memory_that_was_not_reported_is_null(root, monitor):
    finish(root, "lenet5_adamw_none")
    path = root / "lenet5_adamw_none" / "monitor.jsonl"
    path.unlink() if monitor is None else write_lines(path, monitor)
    [r] = results.load(root)
    assert (r.gpu_memory_mean, r.efficiency_per_100mib) == (None, None)


def test_differences_are_from_the_dense_run_of_the_same_arm(root):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_movement_70", test_accuracy_last=97.5, elapsed_s=12.0)
    finish(root, "lenet5_adamwprune_bitter7_state_70", test_accuracy_last=99.0)
    dense, pruned, other = results.load(root)
    assert (pruned.accuracy_vs_dense, pruned.gpu_memory_vs_dense) == (-0.5, 0.0)
    assert pruned.elapsed_vs_dense_pct == pytest.approx(20.0)
    assert other.accuracy_vs_dense is None  # its own dense run is not there, and adamw's is another arm


@pytest.mark.parametrize("change", [{"steps": 359}, {"batch_size": 32}, {"data_hash": "e" * 64}])
def test_runs_of_unequal_budget_or_data_are_not_compared(root, change):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_movement_70", **change)
    assert results.load(root).runs[1].accuracy_vs_dense is None


def test_unequal_steps_and_missed_sparsity_are_remarked(root):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_movement_70", steps=300, achieved_sparsity=0.699)
    text = "\n".join(report.tables(results.load(root), report.as_text))
    assert "rows differ in steps" in text
    assert "sparsity 0.699000 is not the 0.700000" in text
    assert "Planned and not run" in text


def test_groups_and_selection_keep_the_order(root):
    for name in ("lenet5_adamwprune_none", "lenet5_adamw_none", "lenet5_adamw_magnitude_50"):
        finish(root, name)
    found = results.load(root)
    assert list(found.by("optimizer")) == ["adamw", "adamwprune"]
    assert [r.id for r in found.where(pruning_method="none")] == ["lenet5_adamw_none", "lenet5_adamwprune_none"]
    assert found.order("optimizer")[:3] == ["sgd", "adam", "adamw"]


@pytest.mark.parametrize("name", ["provenance.json", "lenet5_adamw_none/summary.json"])
def test_another_schema_is_refused_by_name(root, name):
    finish(root, "lenet5_adamw_none")
    path = root / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    with pytest.raises(InputError, match="schema 0, and this version reads schema 2"):
        results.load(root)


def test_report_files(root):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_magnitude_50")
    written = report.write(results.load(root), graphs=False)
    data = json.loads(written.json.read_text())
    assert (data["schema"], data["commit"], len(data["runs"])) == (rundir.SCHEMA, "c0ffee", 2)
    assert "Memory efficiency leaders" in written.text.read_text()
    assert "| lenet5_adamw_none |" in written.markdown.read_text()
    assert "n = 1 seed (0)" in written.table
    assert "c0ffee" in written.table


def test_rows_of_different_code_and_busy_hours_are_remarked(root):
    finish(root, "lenet5_adamw_none", provenance={"commit": "a" * 40, "dirty": None})
    finish(root, "lenet5_adamw_movement_70", provenance={"commit": "b" * 40, "dirty": "x"}, elapsed_s=25.0)
    text = "\n".join(report.tables(results.load(root), report.as_text))
    assert f"commit {'a' * 12} or {'b' * 12} with local changes" in text
    assert "rows come from different code" in text
    assert "a step of lenet5_adamw_movement_70 took 2.5 times that of lenet5_adamw_none" in text


def test_leaders_are_ranked_among_equals(root):
    """Of one model, data set and length; a short run with a high score is not a leader of the long ones."""
    for name in ("lenet5_adamw_none", "lenet5_adamw_magnitude_50"):
        finish(root, name)
    finish(root, "lenet5_adamw_movement_50", steps=10, test_accuracy_last=99.9)
    lines = list(report.leaders(results.load(root), report.as_text))
    assert "lenet5 on digits" in "\n".join(lines)
    assert not any("movement" in line for line in lines)
    assert sum(line.strip().startswith(("1 ", "2 ")) for line in lines) == 2


def test_a_damaged_summary_is_a_failed_run(root):
    finish(root, "lenet5_adamw_none")
    path = root / "lenet5_adamw_none" / "summary.json"
    path.write_text(path.read_text()[:50])
    [r] = results.load(root)
    assert (r.status, "make continue" in r.reason) == ("failed", True)
    assert not rundir.RunDir(r.path).finished


def test_the_conditions_name_the_processes_of_a_run(root):
    from lib.remarks import conditions

    finish(root, "lenet5_adamw_none", threads=2, devices=1)
    assert "; 2 threads; data" in conditions(results.load(root))
    finish(root, "lenet5_adamw_none", threads=2, devices=4)
    assert "; 2 threads in each of 4 processes; data" in conditions(results.load(root))


@pytest.mark.parametrize("text", ['{"sch', '{"schema": 1}\n', "\x89PNG"])
def test_a_damaged_record_of_a_monitor_costs_no_report(root, text):
    finish(root, "lenet5_adamw_none")
    (root / "lenet5_adamw_none" / "monitor.jsonl").write_text(text, encoding="latin-1")
    written = report.write(results.load(root), graphs=False)
    assert "lenet5_adamw_none: the monitor's record: " in written.text.read_text()
    assert "is no record of this version" in written.text.read_text()
