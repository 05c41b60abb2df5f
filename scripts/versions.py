"""Test this program with other versions of packages than those that are installed, each set in its own environment.

`versions.py torch 2.11.0 2.13.0` takes each of these versions of torch, with the newest of all else that goes with it;
`versions.py lowest` takes the lowest version of every package that pyproject.toml allows. What was found goes into
docs/results/versions.json, one row a set, from which `make docs` writes the table of docs/development.md.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as xml
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import lib  # noqa: E402
from lib import provenance  # noqa: E402
from lib.config import InputError  # noqa: E402
from lib.files import read_json, write_json  # noqa: E402
from lib.schema import SCHEMA  # noqa: E402

FOLDER = ROOT / ".versions"
RECORD = ROOT / "docs" / "results" / "versions.json"
TESTS = ("tests/lib/optim", "tests/lib/prune", "tests/lib/test_trainer.py", "tests/test_quickstart.py")
ALL = ("tests/lib", "tests/test_quickstart.py")  # of the lowest versions: any package may be what fails
SELECTED = "not slow or quickstart"
TOOLS = ("pytest", "pytest-xdist", "hypothesis")  # what these tests need of the extra `dev`
BOUND = re.compile(r"([\w.-]+)>=([\w.]+)")


def bounds() -> dict[str, str]:
    """Package -> the lowest version that pyproject.toml allows, of what runs and of what tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = [BOUND.match(line).groups() for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    tools = {BOUND.match(line)[1] for line in project["optional-dependencies"]["dev"]} - set(TOOLS)
    return {name: low for name, low in every if name not in tools}


def lowest() -> list[str]:
    return [f"{name}=={low}" for name, low in bounds().items()]


def newest(torch: str) -> list[str]:
    return [f"{name}=={torch}" if name == "torch" else name for name in bounds()]


def environment(name: str, requirements: list[str]) -> Path:
    """Its interpreter; made where it is not there with these requirements. Raises InputError where pip fails."""
    at = FOLDER / f"{name.replace(' ', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp, wanted = at / "bin" / "python", at / "requirements.txt", "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"{name}: installing into {at.relative_to(ROOT)}; torch alone is up to 3 GB", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(at)], check=True)
    # The versions are given here: constraints that a machine has for its usual environments may contradict them.
    env = {**os.environ, "PIP_CONSTRAINT": os.devnull}
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    if subprocess.run(command, env=env).returncode:
        raise InputError(f"{name}: pip cannot install {' '.join(requirements)}")
    stamp.write_text(wanted)
    return python


FACTS = """
import json
import torch, numpy
def vision():
    try:
        import torchvision
    except Exception as e:
        return None, f"{type(e).__name__}: {e}".splitlines()[0]
    return torchvision.__version__, None
version, why = vision()
print(json.dumps({"torch": torch.__version__, "torchvision": version, "without": why, "numpy": numpy.__version__}))
"""


def facts(python: Path, name: str) -> dict:
    """What is imported there. A torchvision that cannot be is taken out, so that what needs it is skipped; of the
    lowest versions it is an error, for they are stated to go together."""
    done = subprocess.run([str(python), "-c", FACTS], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{python}: torch cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    if found["without"] and name == "lowest":
        raise InputError(f"lowest: torchvision cannot be imported ({found['without']}): its bound is not torch's")
    if found["without"]:
        print(f"without torchvision, which cannot be imported here ({found['without']})", flush=True)
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)
    return found


def tested(name: str, requirements: list[str]) -> dict:
    """One row: what was installed, and how many tests passed, were skipped and failed."""
    python = environment(name, requirements)
    found = facts(python, name)
    print(f"{name}: testing with {', '.join(f'{k} {v}' for k, v in found.items() if v)}", flush=True)
    report = python.parent.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-n", "auto", "-m", SELECTED, f"--junitxml={report}"]
    subprocess.run([*command, *(ALL if name == "lowest" else TESTS)], cwd=ROOT)
    if not report.exists():
        raise InputError(f"{name}: the tests did not run")
    return found | outcomes(report) | {"set": name, "python": platform.python_version()}


def outcomes(report: Path) -> dict[str, int]:
    """How many tests passed, were skipped and failed, of a JUnit report."""
    found = {"passed": 0, "skipped": 0, "failed": 0}
    for case in xml.parse(report).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        found["failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"] += 1
    return found


def keep(new: list[dict]) -> None:
    """Put rows into the record, in the place of earlier ones of the same set."""
    rows = read_json(RECORD)["rows"] if RECORD.exists() else []
    named = {(r["set"], r["python"]): r for r in rows + new}
    in_order = sorted(named.values(), key=lambda r: (r["set"] == "lowest", r["set"], r["python"]))
    write_json(RECORD, {"schema": SCHEMA, "rows": in_order})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["torch", "lowest"])
    parser.add_argument("versions", nargs="*", help="with torch: its versions, exactly; else those of $TORCH")
    parser.add_argument(
        "--no-record",
        action="store_true",
        help="leave docs/results/versions.json alone, as where $CI is set",
    )
    args = parser.parse_args()
    versions = args.versions or (os.environ.get("TORCH", "").split() if args.what == "torch" else [])
    if (args.what == "torch") != bool(versions):
        raise InputError('make check-torch TORCH="2.11.0 2.13.0": give versions of torch; check-lowest takes none')
    if bad := [v for v in versions if not re.fullmatch(r"\d+(\.\d+)+", v)]:
        raise InputError(f"TORCH={bad[0]}: give versions as 2.11.0, separated by spaces")
    sets = {f"torch {v}": newest(v) for v in versions} or {"lowest": lowest()}
    made = provenance.collect()
    when = {"date": datetime.date.today().isoformat(), "commit": made.commit, "changed": bool(made.dirty)}
    rows = [tested(name, requirements) | when for name, requirements in sets.items()]
    if not args.no_record and not os.environ.get("CI"):
        keep(rows)
    for row in rows:
        print(f"{row['set']}: {row['passed']} passed, {row['failed']} failed, {row['skipped']} skipped")
    return 1 if any(row["failed"] or not row["passed"] for row in rows) else 0


if __name__ == "__main__":
    lib.call(main)
