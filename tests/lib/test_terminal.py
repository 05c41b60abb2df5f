"""The closing table: columns by the width of the terminal, whole and plain text where there is none."""

import dataclasses
import io
import re
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from lib import report, results
from lib.rundir import ROOT
from lib.terminal import choose_columns, interactive, print_tables, show_report

FIXTURE = ROOT / "tests" / "fixtures" / "figure_lenet5"


@pytest.fixture(scope="module")
def found():
    return results.load(FIXTURE)


def changed(found, **fields):
    """With other values in the third run."""
    runs = list(found.runs)
    runs[2] = dataclasses.replace(runs[2], **fields)
    return dataclasses.replace(found, runs=tuple(runs))


def printed(found, width: int, **options) -> str:
    out = io.StringIO()
    print_tables(found, Console(file=out, width=width, highlight=False, **options))
    return out.getvalue()


def rows(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if re.match(r"lenet5_.*\d\.\d", line)]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_table_fits_every_width(found, width):
    text = printed(found, width)
    assert max(map(len, text.splitlines())) <= width
    assert len(rows(text)) == len(found)
    if width >= 60:  # the ids are whole
        assert [line.split()[0] for line in rows(text)] == [r.id for r in found]


def test_the_most_important_columns_come_first(found):
    first = {w: rows(printed(found, w))[1].split() for w in (60, 80, 200)}
    assert first[60] == ["lenet5_adamw_magnitude_50", "50.00", "98.00", "+0.67"]
    run = found.runs[1]
    assert {f"{run.compared_memory:.2f}", f"{run.elapsed_s:.1f}"} <= set(first[80])
    assert len(first[200]) == len(report.COLUMNS["accuracy"])
    assert "not shown at this width: asked %" in printed(found, 80)
    assert "not shown" not in printed(found, 200)


def test_runs_that_are_not_done_say_so(found):
    text = printed(changed(found, status="failed", test_accuracy_last=None), 60)
    assert rows(text)[2].split()[-1] == "failed"
    assert [line.split()[-1] for line in rows(text)].count("done") == len(found) - 1
    assert "\x1b[31mfailed" in printed(
        changed(found, status="failed"), 60, force_terminal=True, color_system="standard", no_color=False
    )


def test_a_difference_of_nothing_has_no_minus(found):
    assert rows(printed(changed(found, accuracy_vs_dense=-0.004), 60))[2].endswith("+0.00")


def test_long_ids_do_not_break(found):
    long = "resnet50_adamwprune_adamwspam_bitter7_state_unstructured_90_s12"
    text = printed(changed(found, id=long), 60)
    assert len(rows(text)) == len(found) - 1  # of lenet5
    assert re.search(r"^resnet50_.*\.\..*90_s12 +90\.00", text, re.MULTILINE)


def test_columns_that_nobody_knows_yet_come_last():
    head = ["run", "novel", "test last"]
    body = [["a" * 20, "12345", "1.0"]]
    assert choose_columns(head, body, 30) == {0: 20, 2: 4}
    assert choose_columns(head, body, 40) == {0: 20, 1: 5, 2: 9}
    assert choose_columns(["run"], [["a" * 50]], 10) == {0: 10}


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_piped_it_is_whole_and_plain(found, tmp_path, monkeypatch):
    """Whatever the environment says of colours, and the same as in summary_report.txt."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    root = Path(shutil.copytree(FIXTURE, tmp_path / "results"))
    again = results.load(root)
    written = report.write(again, graphs=False)
    out = io.StringIO()
    show_report(again, written, out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert text.startswith(written.table)
    assert written.table in (root / "summary_report.txt").read_text()
    assert f"report: {written.markdown}" in text
    assert not interactive(out)
    monkeypatch.setenv("COLUMNS", "60")
    seen = Tty()
    show_report(again, written, seen)
    assert "not shown at this width" in seen.getvalue()
    assert f"report: {written.markdown}\n" in seen.getvalue()  # a path is not broken


def test_colours_only_where_they_are_wanted(found, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(changed(found, status="failed"), 80, force_terminal=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)
    monkeypatch.setenv("TERM", "dumb")
    assert not interactive(Tty())
