"""The user's cache folder: what was written comes back under the same key, and nothing damaged does."""

import json
import os

import pytest

from lib.cache import cache_folder, read_cache, write_cache

KEY = {"device": "cpu", "versions": ("1", "2")}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAMWPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_written_comes_back(folder):
    assert read_cache("steps", KEY) is None
    write_cache("steps", KEY, {"seconds": 0.5})
    assert read_cache("steps", KEY) == {"seconds": 0.5}
    assert read_cache("steps", {**KEY, "device": "other"}) is None
    assert read_cache("compile", KEY) is None
    write_cache("steps", KEY, {"seconds": 0.25})
    assert read_cache("steps", KEY) == {"seconds": 0.25}
    assert len(list(folder.rglob("*"))) == 2  # the kind's folder and one file: nothing is left half written


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "[" * 100_000, "\xff", '{"key": {}, "value": {}}', '{"key": null}']
)
def test_a_damaged_file_is_no_entry(folder, text):
    write_cache("steps", KEY, {"seconds": 0.5})
    [path] = folder.rglob("*.json")
    path.write_bytes(text.encode("latin-1"))
    assert read_cache("steps", KEY) is None


def test_a_value_that_is_no_object_is_no_entry(folder):
    write_cache("steps", KEY, {"seconds": 0.5})
    [path] = folder.rglob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 3}))
    assert read_cache("steps", KEY) is None


def test_a_folder_that_cannot_be_written_is_no_error(folder):
    folder.write_text("a file")
    write_cache("steps", KEY, {"seconds": 0.5})
    assert read_cache("steps", KEY) is None


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("ADAMWPRUNE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "adamwprune"
    for none in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert cache_folder() == tmp_path / ".cache" / "adamwprune"


def test_a_user_without_a_home_has_a_folder_nevertheless(monkeypatch, tmp_path):
    """As in a container that runs under a bare number."""

    def nobody(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ADAMWPRUNE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("pathlib.Path.home", classmethod(nobody))
    assert cache_folder() == tmp_path / f"adamwprune-{os.getuid()}"
    write_cache("steps", KEY, {"seconds": 0.5})
    assert read_cache("steps", KEY) == {"seconds": 0.5}
