"""The tests with other versions of packages: which versions those are, and how what was found is counted."""

import importlib
import json
import re

import pytest

from lib.config import InputError
from lib.files import read_json

versions = importlib.import_module("scripts.versions")


def test_the_lowest_are_exact_and_the_newest_but_for_torch_are_free():
    lowest, newest = versions.lowest(), versions.newest("2.11.0")
    assert len(lowest) == len(newest) > 12
    assert all(re.fullmatch(r"[\w.-]+==[\d.]+", line) for line in lowest)
    assert [line for line in newest if "=" in line] == ["torch==2.11.0"]
    assert {"pytest", "pytest-xdist", "hypothesis", "torchvision"} <= set(newest)
    assert not {"ruff", "transformers"} & set(newest)


def test_outcomes_are_those_of_the_report(tmp_path):
    cases = ["", "<failure/>", "<skipped/>", "<error/>", "<system-out/>"]
    inside = "".join(f"<testcase>{c}</testcase>" for c in cases)
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
    assert versions.outcomes(tmp_path / "report.xml") == {"passed": 2, "skipped": 1, "failed": 2}


def test_a_row_takes_the_place_of_the_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "RECORD", tmp_path / "versions.json")
    row = {"set": "torch 2.11.0", "python": "3.11.7", "passed": 1}
    versions.keep([row | {"set": "lowest"}, row])
    versions.keep([row | {"passed": 2}, row | {"python": "3.12.1"}])
    kept = read_json(versions.RECORD)["rows"]
    assert [(r["set"], r["python"], r["passed"]) for r in kept] == [
        ("torch 2.11.0", "3.11.7", 2),
        ("torch 2.11.0", "3.12.1", 1),
        ("lowest", "3.11.7", 1),
    ]


def interpreter(tmp_path, answer: dict):
    """What prints this in the place of Python, and notes that it was called for something else."""
    path = tmp_path / "python"
    path.write_text(f"""#!/bin/sh
case "$1" in -c) echo '{json.dumps(answer)}';; *) echo "$@" >> {tmp_path}/called;; esac
""")
    path.chmod(0o755)
    return path


def test_the_lowest_have_a_torchvision(tmp_path):
    python = interpreter(tmp_path, {"torch": "2.11.0", "torchvision": None, "without": "ImportError: no"})
    with pytest.raises(InputError, match="lowest: torchvision cannot be imported \\(ImportError: no"):
        versions.facts(python, "lowest")
    assert not (tmp_path / "called").exists()
    assert versions.facts(python, "torch 2.11.0")["torchvision"] is None
    assert "uninstall" in (tmp_path / "called").read_text()


@pytest.mark.parametrize(("ci", "args", "kept"), [("", [], True), ("true", [], False), ("", ["--no-record"], False)])
def test_ci_leaves_the_record_alone(monkeypatch, capsys, ci, args, kept):
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("sys.argv", ["versions.py", "lowest", *args])
    row = {"set": "lowest", "passed": 1, "failed": 0, "skipped": 0}
    monkeypatch.setattr(versions, "tested", lambda name, requirements: row)
    rows = []
    monkeypatch.setattr(versions, "keep", rows.extend)
    assert versions.main() == 0
    assert bool(rows) is kept
    assert "CI=true make check-lowest" in (versions.ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("args", "torch", "says"),
    [
        (["torch"], "", "give versions of torch"),
        (["torch"], "2.11.0 newest", "TORCH=newest: give versions as 2.11.0"),
        (["lowest", "2.11.0"], "", "check-lowest takes none"),
        (["torch", "--", "-r"], "", "TORCH=-r: give versions"),
    ],
)
def test_what_is_refused(monkeypatch, args, torch, says):
    monkeypatch.setenv("TORCH", torch)
    monkeypatch.setattr("sys.argv", ["versions.py", *args])
    with pytest.raises(InputError, match=re.escape(says)):
        versions.main()
