"""Numbers in README and docs are those of recorded runs, and files that they name are there."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lib import kconfig, measure, report
from lib.figure.base import FIGURES
from lib.prune.base import PRUNERS
from scripts import docs

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_tables_are_those_of_their_records():
    command = [sys.executable, "scripts/docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["quickstart", "lenet5-adamwprune", "resnet18-cifar10", "resnet18-ledger"])
def test_records_are_compared_by_the_memory_that_runs_are_compared_by_today(name):
    """Old ones without a ledger by none, and they keep that of the process."""
    path = ROOT / "docs" / "results" / f"{name}.json"
    rows = json.loads(path.read_text())["runs"]
    for r, row in zip(docs.recorded(path), rows, strict=True):
        want = measure.compared(r.ledger, r.train_memory_mean, r.memory_source)
        assert (r.compared_memory, r.compared_source) == want
        assert r.train_memory_mean == row["gpu_memory_mean" if "gpu_memory_mean" in row else "train_memory_mean"]
        assert r.compared_source == (measure.TENSORS if row.get("ledger") else None)
        assert (r.efficiency_per_100mib is None) == (want[0] is None)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [link for link in links if not link.startswith("http") and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_targets_and_presets_exist(page):
    text = page.read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*)(?=[ :])", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = {t for line in re.findall(r"`make ([a-z][a-z0-9 -]*)", text) for t in line.split()}
    used |= set(re.findall(r"^make ([a-z][a-z0-9-]*)", text, re.MULTILINE))
    presets = {t.removeprefix("defconfig-") for t in used if t.startswith("defconfig-")} - {""}
    assert {t for t in used if not t.startswith("defconfig-")} <= targets
    assert presets <= {p.name for p in (ROOT / "defconfigs").iterdir()}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_within_pages_lead_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        text = (page.parent / target).read_text() if target else page.read_text()
        headings = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)]
        assert anchor in headings


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_settings_exist(page):
    given = " ".join(re.findall(r'SET="([^"]*)"', page.read_text()))
    names = set(re.findall(r"([A-Z][A-Z0-9_]+)=", given)) - {"NAME"}
    assert names <= {s.name for s in kconfig.tree().unique_defined_syms} | {"ADAMWPRUNE_VARIANT_MINE"}


def rows(page: str) -> list[list[str]]:
    """The cells of every row of a page's tables; a bar within a cell is written \\|."""
    text = (ROOT / "docs" / page).read_text()
    return [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]


def test_the_table_of_methods_is_that_of_the_records():
    found = {row[0].strip("`"): row[3:] for row in rows("methods.md") if len(row) == 5 and row[0].startswith("`")}
    assert found.keys() == set(PRUNERS)
    for name, cells in found.items():
        other = PRUNERS[name].pairs_with
        assert cells == [str(PRUNERS[name].kept(True)), "-" if other else str(PRUNERS[name].kept(False))], name


def test_a_report_is_explained_column_by_column_and_graph_by_graph():
    named = {name for row in rows("reading_a_report.md") for name in re.findall(r"`([^`]+)`", row[0])}
    columns = [c.head for form in (report.COLUMNS, report.STABILITY) for group in form.values() for c in group]
    columns += [c.head for c in (*report.OPTIMISTIC.values(), report.MFU, report.STATUS)]
    assert set(columns) | set(FIGURES) <= named


def test_errors_of_the_troubleshooting_page_are_ours():
    """What it quotes is what the program says."""
    sources = "\n".join(
        p.read_text() for p in [*ROOT.glob("lib/**/*.py"), *ROOT.glob("scripts/*.py"), ROOT / "Makefile"]
    )
    quoted = [row[0].strip("`") for row in rows("troubleshooting.md") if row[0].startswith("`")]
    assert len(quoted) > 15
    assert [q for q in quoted if q not in sources] == []


def test_the_readme_says_what_each_package_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w.-]+", d)[0] for d in project["dependencies"]}
    table = (ROOT / "README.md").read_text().partition("| package | why |")[2].partition("\n\n")[0]
    assert wanted <= {name for line in table.splitlines() for name in re.split(r"[|, ]+", line)}
