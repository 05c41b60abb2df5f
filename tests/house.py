"""What the tests are run by: a copy of the program to be a user in, and hooks of pytest, which say what a session
tested and how long that took, by area, and see to it that it left the checkout alone."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest

PATIENCE_S = 600  # for what should take seconds, on a machine of whatever load
ROOT = Path(__file__).resolve().parent.parent
SHARED = "ADAMWPRUNE_TESTS_SHARE"  # names the folder of what all workers of a session may use
# Area -> what its files are called; the first that fits.
AREAS = {
    "optimizers": ("lib/optim/*",),
    "pruning": ("lib/prune/*", "*test_audit*"),
    "monitor and gputop": ("*test_monitor*", "*test_gputop*", "*test_measure*"),
    "results and figures": ("*test_results*", "*test_figure*", "*test_ledger*", "*test_notes*"),
    "configuration": (
        "*test_*config*",
        "*test_matrix*",
        "*test_overrides*",
        "*test_cli*",
        "*test_reg*",
        "*test_preset*",
    ),
    "make, matrix, faults": ("*test_make*", "*test_fault*", "*test_exe*", "*test_start*", "*test_ext*", "*test_quick*"),
    "structure and docs": ("*test_imports*", "*test_docs*", "*test_versions*"),
    "models, data, training": ("*",),
}
LARGE = (".venv", ".versions", "data/imagenet")  # too many files to look at, and no test knows them
# Caches of tools.
CACHES = ("__pycache__/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/")


def shared() -> Path:
    """A folder for what all tests of a session may use, whatever worker they run in."""
    return Path(os.environ[SHARED])


def wait(until: Callable[[], bool]) -> None:
    """Until it is so: as long as it takes on a busy machine. Fails where it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def area(nodeid: str) -> str:
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return next(name for name, patterns in AREAS.items() if any(fnmatch(file, p) for p in patterns))


def extra() -> set[str]:
    """Files and folders in the checkout that are not in the repository, those inside of ignored ones too."""
    command = ["git", "ls-files", "--others", "-z", "--", ".", *(f":!{large}" for large in LARGE)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return {f for f in done.stdout.split("\0") if f and not any(c in f for c in CACHES)}


FIRST = ("/optim/", "_trainer", "_faults", "_makefile", "_extension", "_combinations", "_figure", "_gputop")
# Lines of a .config: drawing takes longer than short runs do.
NO_GRAPHS = "".join(
    f"# CONFIG_{line.split()[1]} is not set\n"
    for line in (ROOT / "lib" / "figure" / "Kconfig").read_text().splitlines()
    if line.startswith("config GRAPH_")
)


# What a make around the tests, or the user's shell, would say to the programs under test.
AMBIENT = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VIRTUAL_ENV", "PYTHON", "PRESET", "FORMAT", "CONFIG_", "srctree")


def environment(**extra: str) -> dict[str, str]:
    """This process's environment as a user has it in a fresh shell."""
    own = {k: v for k, v in os.environ.items() if k not in AMBIENT and not k.startswith("OVERRIDE_")}
    return own | {"PYTHONDONTWRITEBYTECODE": "1"} | extra


class Repo:
    """A copy of the program in a directory of its own; commands run as a user would give them there."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / ".config"

    def run(self, *argv: str, cwd: str = ".", **env: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            argv, cwd=self.path / cwd, env=environment(**env), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def make(self, *args: str, **env: str) -> subprocess.CompletedProcess:
        """make with the interpreter that runs the tests, unless PYTHON= is given."""
        own = () if any(a.startswith("PYTHON=") for a in args) else (f"PYTHON={sys.executable}",)
        return self.run("make", *own, *args, **env)

    @staticmethod
    def failed(done: subprocess.CompletedProcess, *says: str) -> None:
        """make failed, and the message says all of this."""
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stderr
        for part in says:
            assert part in done.stderr

    def script(self, *args: str, cwd: str = ".", **env: str) -> subprocess.CompletedProcess:
        return self.run(sys.executable, *args, cwd=cwd, **env)

    def ids(self, *args: str, **env: str) -> list[str]:
        done = self.make("plan", "FORMAT=ids", *args, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()


class House:
    """Of the process that the workers report to."""

    def __init__(self):
        self.before, self.left = extra(), []

    def pytest_sessionfinish(self, session):
        self.left = sorted(extra() - self.before)
        if self.left:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        tests, seconds = Counter(), Counter()
        for reports in terminalreporter.stats.values():
            for r in reports:
                if hasattr(r, "duration"):
                    seconds[area(r.nodeid)] += r.duration
                    tests[area(r.nodeid)] += r.when == "call"
        terminalreporter.section("by area")
        for name in AREAS:
            if tests[name]:
                terminalreporter.line(f"{name:24}{tests[name]:6,} tests{seconds[name]:8.1f} s")
        for name in self.left:
            terminalreporter.line(f"left in the checkout by a test: {name}", red=True)


def pytest_collection_modifyitems(items):
    """Files stay whole, for what they share; all that compile the optimizers' update go to one worker, which compiles
    each form once. What takes longest is begun first."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group("compiled" if area(file) == "optimizers" else file))
    items.sort(key=lambda item: next((i for i, name in enumerate(FIRST) if name in item.nodeid), len(FIRST)))


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): for one worker")  # where there is no xdist, too
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="adamwprune-tests-")
        config.pluginmanager.register(House())


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED), ignore_errors=True)
