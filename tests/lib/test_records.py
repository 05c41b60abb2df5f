"""Typed records: what is written is read, by type and bounds; what follows from them; and what a summary is made of."""

import dataclasses
import json
import math
import statistics
import subprocess
import sys

import pytest
from results_kit import LEDGER, PROVENANCE, epoch, finish, make_root

from lib import record, runner, schema
from lib.config import InputError
from lib.files import DEEPEST, Damaged, file_digest, parse_object, read_json, read_record, write_atomic, write_record
from lib.records import FILES, METRICS, Outcome, Prune, Row, Summary, parse_metric
from lib.rundir import ROOT, RunDir
from lib.sanitize import escape_markdown, printable_line, printable_text

KNOWN = {"model_parameters": 9, "prunable_parameters": 9, "target_sparsity": 0.0}


@pytest.fixture
def run(tmp_path, quickstart):
    return finish(make_root(tmp_path / "results", quickstart), "lenet5_adamw_none")


def test_what_is_written_is_read(run):
    found = run.read_summary()
    assert found.ledger == LEDGER and found.provenance == PROVENANCE
    write_record(run.path / "again.json", found)
    assert read_record(Summary, run.path / "again.json") == found


def test_every_field_is_checked(run):
    """Of every record in the summary: one that is missing, one that nobody knows, and one of another type."""
    data = schema.plain(run.read_summary())
    for keys in [(), ("ledger",), ("ledger", "predicted"), ("provenance",), ("files", "config")]:
        for change in ("missing", "more", "type"):
            changed = json.loads(json.dumps(data))
            inner = changed
            for key in keys:
                inner = inner[key]
            name = list(inner)[-1]
            if change == "more":
                inner["nobody"] = 1
            elif change == "missing":
                del inner[name]
            else:
                inner[name] = [True]
            with pytest.raises(ValueError, match=r"nobody|missing|required|valid|should be"):
                schema.parse(Summary, changed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 3.0}, "steps: input should be a valid integer, not 3.0"),
        ({"steps": "3"}, "steps: input should be a valid integer, not '3'"),
        ({"steps": -1}, "steps: input should be greater than or equal to 0, not -1"),
        ({"compiled": 1}, "compiled: input should be a valid boolean, not 1"),
        ({"final_accuracy": 101}, "final_accuracy: input should be less than or equal to 100, not 101"),
        ({"status": "good"}, "status: input should be 'done'"),
        ({"stepps": 3}, "stepps: there is no such field"),
        ({"elapsed_s": 10**400}, "elapsed_s: "),
    ],
)
def test_a_message_names_field_and_value(run, change, says):
    with pytest.raises(ValueError) as e:
        schema.parse(Summary, schema.plain(run.read_summary()) | change)
    assert str(e.value).startswith(says) and len(str(e.value)) < 300


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": -Infinity}', "-Infinity is no number in JSON"),
        (b'{"a": 1, "a": 2}', "a name is given twice"),
        (b"[]", "it holds no JSON object"),
        (b"[" * 100_000, f"it is nested deeper than {DEEPEST} levels"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, f"it is nested deeper than {DEEPEST} levels"),
        (b'{"a": }', "it is no JSON at line 1, column 7"),
    ],
)
def test_what_is_no_json(text, says):
    with pytest.raises(ValueError, match=says):
        parse_object(text)


def test_a_digest_is_of_values_not_of_their_layout(run):
    data = json.loads(run.summary.read_text())
    run.summary.write_text(json.dumps(dict(reversed(data.items()))))
    assert run.read_summary().steps == 360
    run.summary.write_text(json.dumps(data | {"steps": 361}))
    with pytest.raises(Damaged, match="digest: the values were changed since they were written"):
        run.read_summary()


def test_the_json_schema_is_that_of_the_records():
    """`docs.py --schema` prints it."""
    done = subprocess.run([sys.executable, "scripts/docs.py", "--schema"], cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found == schema.json_schema(FILES) and set(found["properties"]) == set(FILES)
    assert set(found["$defs"]["Summary"]["required"]) >= set(schema.field_names(Summary)) - {"id", "seed"} - {
        f.name for f in dataclasses.fields(Summary) if f.default is not dataclasses.MISSING
    }
    assert found["$defs"]["Summary"]["additionalProperties"] is False
    assert {c.__name__ for c in METRICS.values()} <= set(found["$defs"])


def test_a_blank_row_has_every_field():
    row = schema.blank(Outcome, {"id": "a", "status": "failed"})
    assert {n for n in schema.field_names(Outcome) if getattr(row, n) is not None} == {"id", "status"}
    known = schema.plain(row) | dict.fromkeys(("model", "dataset", "optimizer", "pruning_method"), "")
    known |= {"adamwprune_variant": "", "adamwprune_base": "", "target_sparsity": 0.5, "seed": 0}
    assert schema.parse(Row, known).steps is None
    with pytest.raises(ValueError, match="status"):
        schema.parse(Row, known | {"status": None})


def test_a_line_of_metrics_is_one_of_its_kinds():
    with pytest.raises(ValueError, match="event: 'begin' is none of start, epoch, prune, end, interrupted"):
        parse_metric({"event": "begin"})
    with pytest.raises(ValueError, match="event"):
        parse_metric({"event": ["start"]})
    assert parse_metric({"event": "interrupted"}).event == "interrupted"


def test_a_file_that_is_no_regular_one(tmp_path):
    with pytest.raises(Damaged, match="it is a directory"):
        read_json(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none")


def test_a_whole_file_is_written_through_no_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    write_atomic(tmp_path / "link", "theirs")
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "link").is_symlink()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'folder'}: "):
        write_atomic(tmp_path / "folder", "")
    with pytest.raises(InputError, match="cannot write .*gone/a: No such file"):
        write_atomic(tmp_path / "gone" / "a", "")
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "link", "folder"}


def test_text_is_made_fit_to_be_shown():
    assert printable_line("a\x1b[31m\tb\n\u202ec\ud800") == "a?[31m b ?c?"
    assert printable_text("a\x1b\tb\r\nc\x85") == "a?\tb\nc?"
    assert escape_markdown("<b> ![x](y) a|b `c` *d*") == r"\<b> !\[x\](y) a\|b \`c\` \*d\*"


def evaluations(*values, perplexity=False):
    field = "validation_loss" if perplexity else "validation_accuracy"
    base = epoch(KNOWN | {"steps": 1})
    return [dataclasses.replace(base, epoch=i, **{field: v}) for i, v in enumerate(values, 1)]


def test_the_peak_is_that_of_the_whole_run():
    """best_epoch counts from the last pruning event on; the spread is that of the last ten."""
    rows = evaluations(50.0, 90.0, 70.0, *[80.0, 82.0] * 5)
    found = record.curve(rows, rows[4], "accuracy")
    assert (found["peak_epoch"], found["peak_accuracy"], found["best_epoch"], found["best_accuracy"]) == (2, 90, 5, 82)
    assert found["peak_to_final"] == 90 - 82
    assert found["std_last10"] == pytest.approx(statistics.stdev([80.0, 82.0] * 5))


def test_a_language_model_is_measured_by_its_perplexity():
    rows = evaluations(9.0, 2.0, *[3.0] * 5, *[4.0] * 5, perplexity=True)
    found = record.curve(rows, rows[-1], "perplexity")
    assert (found["peak_epoch"], found["peak_loss"], found["peak_accuracy"], found["best_loss"]) == (2, 2.0, None, 4.0)
    assert found["peak_to_final"] == pytest.approx(math.exp(4) - math.exp(2))
    assert found["std_last10"] == pytest.approx(statistics.stdev([math.exp(3)] * 5 + [math.exp(4)] * 5))


@pytest.mark.parametrize("losses", [(), (None, None), (600.0, 700.0), (math.inf, 2e9)])
def test_what_was_not_evaluated_or_has_diverged_has_no_peak(losses):
    found = record.curve(evaluations(*losses, perplexity=True), None, "perplexity")
    assert [found[k] for k in ("peak_epoch", "std_last10", "peak_to_final")] == [None, None, None]


def test_an_event_of_a_pruner_is_a_record():
    event = {"event": "prune", "step": 3, "target_sparsity": 0.5, "pruned": 1, "prunable": 2, "newly_pruned": -1}
    event |= {"threshold": None, "ties": 0, "layers": {"a": 0.5}, "mask": "0", "warnings": []}
    row = record.prune(event | {"least_dense": {"layer": "a", "density": 0.5}})
    assert parse_metric(json.loads(json.dumps(schema.plain(row)))) == row
    assert isinstance(row, Prune) and (row.dropped, row.audit) == (None, None)


class Vanishing:
    """An executor under which somebody removes the results."""

    def __init__(self, imports, poll):
        pass

    def run(self, jobs):
        import shutil

        from lib.executor.base import Status

        for job in jobs:
            shutil.rmtree(job.run_dir.parent)
            yield job, Status("failed", 1)


def test_a_directory_that_vanishes_under_its_matrix(tmp_path, quickstart, monkeypatch, capsys):
    root = make_root(tmp_path / "results", quickstart)
    monkeypatch.setattr(runner, "EXECUTORS", {"local": Vanishing})
    with pytest.raises(InputError, match=f"{root} has vanished while its matrix ran"):
        runner.execute(root)
    assert not root.exists()


def test_a_run_in_a_directory_that_is_gone(tmp_path, quickstart):
    run = RunDir(make_root(tmp_path / "results", quickstart) / "lenet5_adamw_none")
    with pytest.raises(InputError, match="is no run's directory: spec.json is missing"):
        RunDir(tmp_path / "gone").spec()
    assert file_digest(run.config).size == run.config.stat().st_size
