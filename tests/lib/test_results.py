"""Records from files alone: statuses, memory of the training phase, comparisons only where runs match, the report."""

import io
import json
from dataclasses import replace

import pytest
from results_kit import HEADER, PROVENANCE, finish, make_root, sample, write_lines

from lib import report, results
from lib.config import InputError
from lib.figure.base import by_reason
from lib.schema import SCHEMA
from lib.terminal import show_report


@pytest.fixture
def root(tmp_path, quickstart):
    """A results directory with every run of the quickstart prepared and none started."""
    return make_root(tmp_path, quickstart)


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
    assert r.train_memory_mean == pytest.approx((100.0 * 1 + 300.0 * 2) / 3)
    assert (r.train_memory_max, r.memory_samples) == (300.0, 2)
    assert r.memory_source == "host process RSS"
    # what runs are compared by is another memory: that of tensors, without the data
    assert (r.compared_memory, r.compared_source) == (4.0, "tensors of training")
    assert r.efficiency_per_100mib == pytest.approx(100 * 98.0 / 4)


def test_a_gpu_that_reports_the_process_comes_before_the_host(root):
    header = HEADER | {"devices": [{"vendor": "cpu", "index": 0}, {"vendor": "nvidia", "index": 0}]}
    both = {"t": 1, "phase": "train", "devices": [[500.0], [40.0]]}
    finish(root, "lenet5_adamw_none", monitor=[header, both])
    [r] = results.load(root)
    assert (r.train_memory_mean, r.memory_source) == (40.0, "NVIDIA process memory")


def test_the_memory_of_several_gpus_is_their_sum(root):
    header = HEADER | {
        "devices": [{"vendor": "nvidia", "index": 0}, {"vendor": "cpu", "index": 0}, {"vendor": "nvidia", "index": 0}]
    }
    rows = [{"t": t, "phase": "train", "devices": [[40.0], [500.0], [x]]} for t, x in ((1, 50.0), (2, None), (3, 70.0))]
    finish(root, "lenet5_adamw_none", monitor=[header, *rows])
    [r] = [r for r in results.load(root) if r.id == "lenet5_adamw_none"]
    assert r.train_memory_max == 110
    assert r.memory_source == "NVIDIA process memory"


@pytest.mark.parametrize("monitor", [None, [HEADER], [HEADER, sample(1, "train")], [HEADER, sample(1, "load", 5.0)]])
def test_memory_that_was_not_reported_is_null(root, monitor):
    finish(root, "lenet5_adamw_none", monitor=monitor)
    [r] = results.load(root)
    assert {r.train_memory_mean, r.compared_memory, r.compared_source, r.efficiency_per_100mib} == {None}


def test_differences_are_from_the_dense_run_of_the_same_arm(root):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_movement_70", test_accuracy_last=97.5, elapsed_s=12.0)
    finish(root, "lenet5_adamwprune_bitter7_state_70", test_accuracy_last=99.0)
    dense, pruned, other = results.load(root)
    assert (pruned.accuracy_vs_dense, pruned.gpu_memory_vs_dense) == (-0.5, 0.0)
    assert pruned.elapsed_vs_dense_pct == pytest.approx(20.0)
    assert other.accuracy_vs_dense is None  # its own dense run is not there, and adamw's is another arm


def test_process_memory_that_is_mostly_the_interpreter_is_remarked(root):
    """Also where runs are compared by their tensors."""
    finish(root, "lenet5_adamw_none")
    text = "\n".join(report.tables(results.load(root), report.as_text))
    assert "process MiB counts the whole process, with interpreter and libraries (233 MiB); the weights are" in text


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


def test_the_report_says_how_steadily_runs_ended(root):
    """Of runs that held data out; a language model's in perplexity."""
    known = {"best_epoch": 97, "peak_epoch": 48, "std_last10": 0.125, "peak_to_final": 1.5}
    for name in ("lenet5_adamw_none", "lenet5_adamw_magnitude_50", "lenet5_adamw_magnitude_70"):
        finish(root, name)
    found = results.load(root)
    held_out = [
        replace(r, **known, **more)
        for r, more in zip(found.runs, ({"peak_accuracy": 98.5}, {"peak_loss": 3.0}), strict=False)
    ]
    found = replace(found, runs=(*held_out, *found.runs[2:]))
    rows = [line.split() for line in report.stability(found, report.as_text) if line.startswith("lenet5_")]
    assert rows[0] == ["lenet5_adamw_none", "97", "98.50", "48", "0.12", "1.50"]
    assert [row[0] for row in rows] == ["lenet5_adamw_none", "lenet5_adamw_magnitude_50"]
    written = report.write(found, graphs=False)
    assert "\nStability: lenet5 on digits\n" in written.text.read_text()
    assert "\n## Stability: lenet5 on digits\n" in written.markdown.read_text()
    one = replace(found, runs=(replace(found.runs[1], metric="perplexity", peak_perplexity=20.0855),))
    assert "20.09" in "\n".join(report.stability(one, report.as_text))


def test_groups_and_selection_keep_the_order(root):
    for name in ("lenet5_adamwprune_none", "lenet5_adamw_none", "lenet5_adamw_magnitude_50"):
        finish(root, name)
    found = results.load(root)
    assert list(found.by("optimizer")) == ["adamw", "adamwprune"]
    assert [r.id for r in found.where(pruning_method="none")] == ["lenet5_adamw_none", "lenet5_adamwprune_none"]
    assert found.order("optimizer")[:3] == ["sgd", "adam", "adamw"]


def test_another_schema_is_refused_by_name(root):
    """Of the directory: an error; of a run: its row."""
    path = finish(root, "lenet5_adamw_none").summary
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    [r] = results.load(root)
    assert (r.status, f"schema 0, and this version reads schema {SCHEMA}" in r.reason) == ("damaged", True)
    path = root / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 0}))
    with pytest.raises(InputError, match=f"schema 0, and this version reads schema {SCHEMA}"):
        results.load(root)


def test_report_files(root):
    finish(root, "lenet5_adamw_none")
    finish(root, "lenet5_adamw_magnitude_50")
    written = report.write(results.load(root), graphs=False)
    data = json.loads(written.json.read_text())
    assert (data["schema"], data["commit"], len(data["runs"])) == (SCHEMA, "c0ffee", 2)
    for r in data["runs"]:
        assert r["efficiency_per_100mib"] == pytest.approx(100 * r["test_accuracy_last"] / r["compared_memory"])
        differences = [r["gpu_memory_vs_dense"], r["gpu_memory_saving_pct"], r["accuracy_vs_dense"]]
        assert [str(d) for d in differences] == ["0.0"] * 3  # and not -0.0
    assert "Memory efficiency leaders" in written.text.read_text()
    assert "| lenet5_adamw_none |" in written.markdown.read_text()
    assert "n = 1 seed (0)" in written.table
    assert "c0ffee" in written.table
    assert "commit c0ffee; Python 3.11; torch 2; Linux; CPU.\n" in written.text.read_text()


def test_one_line_says_that_no_graph_could_be_drawn(root):
    (root / "lenet5_adamw_none" / "error.txt").write_text("ValueError: no\n")
    written = report.write(results.load(root))
    assert written.skipped == [("all", "no run has finished")]
    out = io.StringIO()
    show_report(results.load(root), written, out)
    assert out.getvalue().splitlines()[-1] == "graphs skipped, all: no run has finished"


def test_graphs_that_were_skipped_are_named_by_reason():
    skipped, keys = [("a", "x"), ("b", "y"), ("c", "x")], ["a", "b", "c"]
    assert by_reason(skipped, keys) == [("a, c", "x"), ("b", "y")]
    assert by_reason([("a", "x")], ["a"]) == [("a", "x")]


def test_rows_of_different_code_and_busy_hours_are_remarked(root):
    finish(root, "lenet5_adamw_none", provenance=replace(PROVENANCE, commit="a" * 40))
    finish(root, "lenet5_adamw_movement_70", provenance=replace(PROVENANCE, commit="b" * 40, dirty="x"), elapsed_s=25.0)
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


def test_a_damaged_summary_is_a_damaged_run(root):
    path = finish(root, "lenet5_adamw_none").summary
    path.write_text(path.read_text()[:50])
    [r] = results.load(root)
    assert (r.status, "make continue" in r.reason) == ("damaged", True)


def test_the_conditions_name_the_processes_of_a_run(root):
    from lib.remarks import conditions

    finish(root, "lenet5_adamw_none", threads=2, devices=1)
    assert "; 2 threads; data" in conditions(results.load(root))
    finish(root, "lenet5_adamw_none", threads=2, devices=4)
    assert "; 2 threads in each of 4 processes; data" in conditions(results.load(root))


@pytest.mark.parametrize("text", ['{"sch', '{"schema": 1}\n', "\x89PNG"])
def test_a_damaged_record_of_a_monitor_costs_no_report(root, text):
    run = finish(root, "lenet5_adamw_none")
    run.monitor.write_text(text, encoding="latin-1")
    found = results.load(root)
    assert (found.runs[0].status, found.runs[0].train_memory_mean) == ("done", None)
    text = report.write(found, graphs=False).text.read_text()
    assert "lenet5_adamw_none: the monitor's record: monitor.jsonl: it was changed after it was written" in text


def test_what_a_sampler_writes_after_the_end_is_not_read(root):
    """One that could not be stopped goes on."""
    run = finish(root, "lenet5_adamw_none")
    [before] = results.load(root)
    with run.monitor.open("a") as f:
        f.write(json.dumps(sample(9, "train", 5000.0)) + "\n")
    assert results.load(root).runs[0].train_memory_max == before.train_memory_max == 300.0
