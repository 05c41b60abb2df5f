"""Results that are damaged or a stranger's: no traceback, no wait, nothing passed over in silence, nothing touched.

Two recorded runs of tests/fixtures/figure_lenet5 are changed file by file, and everything that reads results is asked:
the report and its Markdown, what `continue` and `rerun-failed` would run, the audit, the record of the monitor. A value
that a forger has changed together with its digest may pass; it must not break anything either.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from mutations import flips, restore, values, whole_file

from lib import audit, report, results, runner
from lib.config import InputError
from lib.figure.base import render_all
from lib.files import DIGEST, digest, file_digest
from lib.gputop import recorded
from lib.monitor import stats
from lib.results import AGAIN
from lib.schema import plain

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "figure_lenet5"
RUN, OTHER = "lenet5_adamw_magnitude_50", "lenet5_adamw_none"
OF_A_RUN = ("summary.json", "spec.json", "config", "metrics.jsonl", "monitor.jsonl")
FILES = (*(f"{RUN}/{name}" for name in OF_A_RUN), "config", "provenance.json", "audit.json")
WRITTEN = ("all_results.json", "summary_report.txt", "report.md")  # by a report: not read, and replaced
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
NO_DIRECTORY = "it is a link or a file, and no directory of its own"
NO_FILE = "it is not a regular file, and a run writes there"
PATIENCE_S = 120  # a hang is for ever; a machine may be busy
ALIKE = (
    "cut in its last line",
    "zeros",
    "carriage returns",
    "deep objects",
    "another kind",
    "a list",
    "more behind it",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("damaged") / "results"
    root.mkdir()
    for name in ("config", "provenance.json", "audit.json"):
        shutil.copy(FIXTURE / name, root)
    for name in (RUN, OTHER):
        shutil.copytree(FIXTURE / name, root / name)
    (root.parent / "outside.txt").write_text("outside")
    return root


@pytest.fixture
def root(template):
    yield template
    assert (template.parent / "outside.txt").read_text() == "outside"
    assert {p.name for p in template.parent.iterdir()} == {"results", "outside.txt"}


@contextlib.contextmanager
def patience():
    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def everything(root: Path) -> str:
    """All that anything says of a results directory; an error is what it says, before it is cleaned for a terminal."""
    said = []
    for ask in (reported, todo, monitored):
        try:
            with patience():
                said.append(ask(root))
        except InputError as e:
            said.append(f"error: {e}")
    text = "\n".join(said)
    assert not CONTROL.search(text), CONTROL.search(text)
    return text


def reported(root: Path) -> str:
    found = results.load(root)
    written = report.write(found, graphs=False)
    assert [r.status for r in found if r.id == OTHER] == ["done"]
    json.loads(written.json.read_text(), parse_constant=pytest.fail)
    markdown = written.markdown.read_text()
    assert "<img" not in markdown.replace("\\<img", "") and "![](" not in markdown.replace("!\\[", "")
    return written.text.read_text() + markdown


def todo(root: Path) -> str:
    runner.refuse_changed(root)
    return " ".join(d.path.name for d in runner.pending(root, failed_only=True))


def monitored(root: Path) -> str:
    """A file that gputop is given, without a digest to go by."""
    return "\n".join(recorded.summary(recorded.Record.of(root / RUN / "monitor.jsonl")))


def damage(root: Path, file: str, ways, silent: bool = False) -> list[str]:
    """Do every one of `ways` to a file, ask everything, undo it; those that nothing was said of."""
    path, passed = root / file, []
    data, before = path.read_bytes(), everything(root)
    for name, way in ways:
        try:
            way()
            if everything(root) == before and not (silent or same(path, data)):
                passed.append(f"{file}: {name}")
        except Exception as e:
            raise AssertionError(f"{file}: {name}: {type(e).__name__}: {e}") from e
        finally:
            restore(path, data)
    return passed


def same(path: Path, data: bytes) -> bool:
    """Whether a JSON file has its old values, in another layout."""
    try:
        return path.suffix == ".json" and json.loads(path.read_bytes()) == json.loads(data)
    except (OSError, ValueError, RecursionError):
        return False


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_damaged_as_a_whole(root, file):
    """Of ways that are much alike one; all in the slow test."""
    ways = whole_file(root / file, root.parent / "outside.txt")
    assert damage(root, file, (w for w in ways if w[0] not in ALIKE)) == []


@pytest.mark.parametrize("file", FILES)
def test_a_bit_that_flipped(root, file):
    assert damage(root, file, flips(root / file, 4, seed=0)) == []


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("file", [f for f in FILES if "json" in f])
def test_values_that_were_changed(root, file, sealed):
    """A few of every file; all of them in the slow test."""
    found = values(root / file, sealed, lambda n: n % (331 if "audit" not in file else 2003) == 5)
    assert damage(root, file, found, silent=sealed) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_every_change(root, file):
    """As many as fit the time: every way of the whole file, then a drawn order of the rest."""
    assert damage(root, file, whole_file(root / file, root.parent / "outside.txt")) == []
    assert damage(root, file, bounded(flips(root / file, 300, seed=1), 3)) == []
    if "json" in file:
        assert damage(root, file, bounded(values(root / file, False, lambda n: True), 3)) == []
        assert damage(root, file, bounded(values(root / file, True, lambda n: True), 3), silent=True) == []


def bounded(ways, seconds: float):
    """The ways in a drawn order, until so many seconds of CPU are spent on them."""
    end = time.process_time() + seconds
    for way in random.Random(0).sample(found := list(ways), len(found)):
        if time.process_time() > end:
            return
        yield way


@pytest.mark.slow
@pytest.mark.parametrize("file", [f"{RUN}/summary.json", f"{RUN}/metrics.jsonl", "audit.json"])
def test_every_forged_value_is_drawn_or_skipped(root, file):
    path = root / file
    data = path.read_bytes()
    for name, way in bounded(values(path, True, lambda n: True), 8):
        way()
        with contextlib.suppress(InputError), patience():
            files, skipped = render_all(results.load(root))
            assert files or skipped, name
        restore(path, data)
    shutil.rmtree(root / "graphs", ignore_errors=True)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_report_writes_it_writes_through_no_link(root, name):
    outside = root.parent / "outside.txt"
    for ways in ("a link", "a named pipe", "a directory"):
        way = dict(whole_file(root / RUN / "config", outside))[ways]
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(b"{}")
        way = dict(whole_file(root / name, outside))[ways]
        way()
        assert ("cannot write" in everything(root)) == (ways == "a directory")
        restore(root / name, b"")
        (root / name).unlink()


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_damaged_run_is_one_row_that_says_what_to_do(root, name):
    path = root / RUN / name
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    found = {r.id: r for r in results.load(root)}
    text = "\n".join(report.tables(results.load(root), report.as_text))
    again = [[d.path.name for d in runner.pending(root, failed_only)] for failed_only in (True, False)]
    restore(path, data)
    assert found[OTHER].status == "done"
    if name == "monitor.jsonl":  # which costs the figures of memory alone
        assert found[RUN].status == "done" and found[RUN].train_memory_mean is None
        assert f"{RUN}: the monitor's record: monitor.jsonl: it was changed after it was written" in text
    else:
        assert found[RUN].status == "damaged"
        assert again[0] == [RUN] and RUN in again[1] and OTHER not in again[1]
        assert f"{RUN}: damaged: {name}: " in text and "`make continue` trains it again" in text


def instead(path: Path, kind: str) -> None:
    """Put something there that is no file of a run."""
    {"link": lambda: path.symlink_to(path.parent), "file": lambda: path.write_text("mine"),
     "pipe": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("", "link", f"results/{RUN}: {NO_DIRECTORY}: remove it; then {AGAIN}"),
        ("", "file", f"results/{RUN}: {NO_DIRECTORY}: remove it; then {AGAIN}"),
        ("summary.json", "pipe", f"summary.json: it is not a regular file; remove summary.json, then {AGAIN}"),
        ("error.txt", "pipe", f"error.txt: {NO_FILE}: remove it; then {AGAIN}"),
        (
            "output.log",
            "directory",
            f"output.log: {NO_FILE}: remove it; then {AGAIN}",
        ),
    ],
)
def test_advice_in_the_row_of_a_foreign_run_works(root, capsys, name, kind, says):
    """It is not trained over, the others are, and what it says to do makes it one that can be trained."""
    run, kept = results.RunDir(root / RUN), root / "kept"
    shutil.copytree(run.path, kept)
    try:
        shutil.rmtree(run.path) if not name else run.summary.unlink()
        instead(run.path / name, kind)
        [r] = [r for r in results.load(root) if r.id == RUN]
        assert (r.status, r.reason) == ("damaged", says)
        assert RUN in todo(root)
        assert not runner.made_ready(root, r_config(root), run, r_spec(root))
        assert f"{RUN} cannot be trained: {run.path / name}: it is " in capsys.readouterr().err
        (run.path / name).rmdir() if kind == "directory" else (run.path / name).unlink()
        assert runner.made_ready(root, r_config(root), run, r_spec(root))
    finally:
        shutil.rmtree(run.path)
        kept.rename(run.path)


def r_config(root: Path):
    return results.load(root).config


def r_spec(root: Path):
    return next(s for s in results.planned(root)[1] if s.id == RUN)


def test_a_run_of_another_schema_is_trained_again(root):
    path = root / RUN / "summary.json"
    data = path.read_bytes()
    path.write_text('{"schema": 2}')
    [r] = [r for r in results.load(root) if r.id == RUN]
    restore(path, data)
    assert r.reason == f"summary.json: it has schema 2, and this version reads schema 3; {AGAIN}"


@pytest.mark.parametrize("name", ["output.log", "checkpoint-last.pt", ".checkpoint-best.pt.part", "error.txt"])
def test_a_run_writes_through_no_link(root, name):
    path = root / RUN / name
    path.symlink_to(root.parent / "outside.txt")
    try:
        with pytest.raises(InputError, match=f"{name}: {NO_FILE}"):
            results.RunDir(root / RUN).create(results.load(root).config, results.RunDir(root / RUN).spec())
    finally:
        path.unlink()


@pytest.mark.parametrize("number", ["9" * 400, "-1e300", "1e999", "NaN"])
def test_a_number_that_no_device_reads_is_a_damaged_line(root, number):
    path = root / RUN / "monitor.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"362.9", number.encode(), 1))
    text = everything(root)
    header, samples = stats.read(path)
    restore(path, data)
    assert b"362.9" in data and header["damaged"] == 1 and samples
    assert "1 lines were not whole and are left out" in text


@pytest.mark.parametrize(
    ("change", "rewrite", "says"),
    [
        ({}, lambda rows: [*rows, rows[-1]], "event: it does not end with one end"),
        ({}, lambda rows: rows[:-1], "event: it does not end with one end"),
        ({}, lambda rows: [rows[0], rows[-1], *rows[1:-1]], "event: it does not end with one end"),
        ({}, lambda rows: [*rows[:-1], rows[-1] | {"status": "diverged"}], "of a run that is done"),
        ({"final_accuracy": 12.5}, list, "final_accuracy: 12.5 is not the "),
        ({"best_epoch": 999}, list, "best_epoch: there is no epoch 999 of "),
        ({"best_epoch": 0}, list, "best_epoch: there is no epoch 0 of "),
        ({"peak_loss": 0.0}, list, "peak_loss: 0.0 is not the "),
        ({"device": "x" * 5000}, list, "device: string should have at most 200 characters"),
        ({"data_hash": "x" * 5000}, list, "data_hash: string should have at most 200 characters"),
    ],
)
def test_files_that_contradict_one_another_are_damaged(root, change, rewrite, says):
    """With every digest as it should be."""
    run = results.RunDir(root / RUN)
    old = {path: path.read_bytes() for path in (run.summary, run.metrics)}
    rows = rewrite([json.loads(line) for line in old[run.metrics].splitlines()])
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = json.loads(old[run.summary]) | change
    data["files"]["metrics.jsonl"] = plain(file_digest(run.metrics))
    del data[DIGEST]
    run.summary.write_text(json.dumps(data | {DIGEST: digest(data)}))
    [r] = [r for r in results.load(root) if r.id == RUN]
    for path, content in old.items():
        restore(path, content)
    assert r.status == "damaged" and says in r.reason
    assert {x.status for x in results.load(root) if x.id == RUN} == {"done"}


def test_an_error_is_shown_without_its_escape_sequences(root):
    run = results.RunDir(root / RUN)
    data = run.summary.read_bytes()
    run.summary.unlink()
    run.error.write_bytes(b"Traceback\nOSError: \x1b]0;owned\x07\x1b[2J<img src=x> [a](http://b) | \xff end\n")
    try:
        [r] = [r for r in results.load(root) if r.id == RUN]
        assert (r.status, r.reason) == ("failed", "OSError: ?]0;owned??[2J<img src=x> [a](http://b) | \ufffd end")
        text = everything(root)
        assert "\\<img src=x> \\[a\\](http://b) \\|" in text
    finally:
        run.error.unlink()
        run.summary.write_bytes(data)


def test_a_changed_matrix_is_shown_and_not_continued(root):
    path = root / "config"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"LENET5_EPOCHS=20", b"LENET5_EPOCHS=30"))
    text = everything(root)
    restore(path, data)
    assert "Take care: config: it was changed after it was written" in text
    assert "its runs would be of two matrices" in text


def test_a_damaged_audit_is_named(root):
    path = root / "audit.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"jaccard_kept"', b'"jaccard_keep"'))
    with pytest.raises(InputError, match="audit.json: digest: the values were changed"):
        audit.load(root)
    text = everything(root)
    restore(path, data)
    assert "run `make audit` again" in text
