"""What tests share: the checkout's root, configurations, and a copy of the repository to be a user in."""

import compileall
import os
import py_compile
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Workers share the cores: each takes one, and threads wait asleep. torch reads both when it is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for a plain `pytest`, which does not add it

from house import Repo, pytest_collection_modifyitems, pytest_configure, pytest_unconfigure  # noqa: E402, F401

from lib import kconfig  # noqa: E402

# The first example of a property pays for imports and for the parse of Kconfig.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# What is found out once about this machine: kept for the next tests, and not among the user's own.
os.environ.setdefault("ADAMWPRUNE_CACHE", f"{tempfile.gettempdir()}/adamwprune-tests-{os.getuid()}")


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    """What the program consists of, without configuration, results, data and tests."""
    to = tmp_path_factory.mktemp("template") / "repository"
    to.mkdir()
    models = {p.parent.name for p in ROOT.glob("*/train.py")}
    for name in ["lib", "scripts", "defconfigs", *models]:
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Compiled once, not by each program in each copy; by their contents, since tests change files.
    compileall.compile_dir(to, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
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
