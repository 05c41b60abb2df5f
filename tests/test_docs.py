"""Numbers in README and docs are those of recorded runs, and files that they name are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_tables_are_those_of_their_records():
    command = [sys.executable, "scripts/docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
