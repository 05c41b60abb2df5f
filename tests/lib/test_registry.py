"""Registries: the folder is the list."""

import pytest

from lib.config import InputError
from lib.data.base import DATASETS
from lib.executor.base import EXECUTORS
from lib.monitor.base import BACKENDS
from lib.optim.base import OPTIMIZERS
from lib.prune.base import PRUNERS
from lib.prune.importance import IMPORTANCE
from lib.registry import Registry, unknown

ALL = [DATASETS, EXECUTORS, BACKENDS, OPTIMIZERS, PRUNERS, IMPORTANCE]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A package of which every module notes that it was imported."""
    package = tmp_path / f"things_of_{tmp_path.name}"
    (package / "kernel").mkdir(parents=True)
    note = "import builtins\nbuiltins.seen.append(__name__.rpartition('.')[2])\n"
    for name in ("b", "a", "_private", "kernel/__init__"):
        (package / f"{name}.py").write_text(note)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr("builtins.seen", [], raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return package


def test_load_imports_every_module_once(folder):
    import builtins

    registry = Registry("thing", folder.name)
    assert registry.names() == []
    registry.load()
    assert sorted(builtins.seen) == ["a", "b"]


def test_add_get_and_order():
    registry = Registry("thing", "lib.prune.kernel")  # a package of which nothing is registered here
    registry._loaded = True
    assert registry.add("b", 2) == 2
    registry.add("a", 1)
    assert (registry.names(), list(registry), registry["b"], "a" in registry, "c" in registry) == (
        ["a", "b"],
        ["a", "b"],
        2,
        True,
        False,
    )
    with pytest.raises(ValueError, match="thing 'a' is registered twice"):
        registry.add("a", 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamv", "unknown optimizer 'adamv'; did you mean adam or adamw? Known: sgd, adam, adamw."),
        ("xyz", "unknown optimizer 'xyz'. Known: sgd, adam, adamw."),
        ("", "unknown optimizer ''. Known: sgd, adam, adamw."),
    ],
)
def test_an_unknown_name_lists_the_near_ones_and_all(name, message):
    assert str(unknown("optimizer", name, ["sgd", "adam", "adamw"])) == message


@pytest.mark.parametrize("registry", ALL, ids=lambda r: r.kind)
def test_an_unknown_key_is_an_input_error(registry):
    with pytest.raises(InputError, match=f"unknown {registry.kind} 'nonesuch'"):
        registry["nonesuch"]


@pytest.mark.parametrize("registry", [DATASETS, OPTIMIZERS, PRUNERS, IMPORTANCE], ids=lambda r: r.kind)
def test_a_record_has_the_name_of_its_key(registry):
    assert [registry[name].name for name in registry] == registry.names() != []
