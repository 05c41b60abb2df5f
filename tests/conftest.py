"""What tests share: the checkout's root, configurations, and a copy of the repository to be a user in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for a plain `pytest`, which does not add it

from lib import kconfig  # noqa: E402

# The first example of a property pays for imports and for the parse of Kconfig.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

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


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """What the program consists of, without configuration, results, data and tests."""
    to = tmp_path_factory.mktemp("template") / "repository"
    to.mkdir()
    models = {p.parent.name for p in ROOT.glob("*/train.py")}
    for name in ["lib", "scripts", "defconfigs", *models]:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["Makefile", "Kconfig", "pyproject.toml"]:
        shutil.copy(ROOT / name, to / name)
    return to


@pytest.fixture
def repo(template, tmp_path) -> Repo:
    return Repo(Path(shutil.copytree(template, tmp_path / "repository")))


@pytest.fixture(scope="session")
def quickstart():
    """The preset quickstart: 11 runs of LeNet-5 on embedded data."""
    return kconfig.load(ROOT / "defconfigs" / "quickstart")


@pytest.fixture(scope="session")
def lenet5():
    """The preset lenet5: six optimizers, four methods, three sparsities."""
    return kconfig.load(ROOT / "defconfigs" / "lenet5")


@pytest.fixture
def one_thread():
    """One thread of torch: workers that run in parallel would fight for cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
