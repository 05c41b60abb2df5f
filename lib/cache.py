"""What was found out once about this machine, kept between commands: one JSON file a key, in the user's cache folder.

A cache may be deleted at any time and never decides a result: a file that is missing, damaged or of another key is no
entry, and one that cannot be written is left unwritten.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lib.config import InputError, write_atomic

OVERRIDE = "ADAMWPRUNE_CACHE"


def cache_folder() -> Path:
    """ADAMWPRUNE_CACHE, else XDG_CACHE_HOME/adamwprune, else ~/.cache/adamwprune (the XDG base directory rules), and
    where there is no home a folder of the user's number beside the temporary files."""
    if given := os.environ.get(OVERRIDE):
        return Path(given)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "adamwprune"
    except RuntimeError:  # a user without a name, as in a container under a bare number
        return Path(tempfile.gettempdir()) / f"adamwprune-{os.getuid()}"


def read_cache(kind: str, key: Mapping) -> dict | None:
    """The entry of this kind that was written under this very key; None where there is none, or no whole one."""
    try:
        found = json.loads(_path(kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("key") != _plain(key):
        return None
    return found["value"] if isinstance(found.get("value"), dict) else None


def write_cache(kind: str, key: Mapping, value: Mapping) -> None:
    """Keep an entry, whole or not at all. Nothing is raised where the folder cannot be written."""
    path = _path(kind, key)
    with contextlib.suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({"key": _plain(key), "value": dict(value)}, indent=1) + "\n")


def _plain(key: Mapping) -> dict:
    """The key as it comes back from JSON, tuples as lists."""
    return json.loads(json.dumps(dict(key), sort_keys=True))


def _path(kind: str, key: Mapping) -> Path:
    digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / kind / f"{digest}.json"
