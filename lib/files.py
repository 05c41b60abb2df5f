"""Files of a results directory, read as if a stranger had written them.

Regular files only, of bounded size and depth, UTF-8, JSON without NaN and without a name twice, every field known and
of its type, and with the digest that was written over the values. `Damaged` names file and field, and what is wrong.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from lib.config import InputError, open_regular, read_bounded, why, write_atomic
from lib.sanitize import printable_line, printable_text
from lib.schema import SCHEMA, Count, parse, plain, record

T = TypeVar("T")

MOST = 64 << 20  # bytes of a JSON file
MOST_LINES = 4 << 30  # bytes of a file of lines
LONGEST = 4 << 20  # bytes of a line
DEEPEST = 16  # levels of lists and objects
TAIL = 64 << 10  # bytes of a log, or of an error, that are looked at
DIGEST = "digest"  # the field with the SHA-256 of the rest of a file


class Damaged(InputError):
    """A file is there and is not what it should be."""

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, printable_line(what)
        super().__init__(f"{path}: {self.what}")


class OtherSchema(Damaged):
    """A file was written by another version."""


@record
class FileDigest:
    """What a file was: its size in bytes, and its SHA-256."""

    size: Count
    sha256: str


def file_digest(path: Path, most: int | None = None) -> FileDigest:
    """The digest of a file, or of its first `most` bytes. Raises Damaged where it cannot be read."""
    try:
        with open_regular(path, follow=False) as file:
            size = os.fstat(file.fileno()).st_size if most is None else most
            left, digest = size, hashlib.sha256()
            while left and (part := file.read(min(left, 1 << 20))):
                digest.update(part)
                left -= len(part)
    except (OSError, ValueError) as e:
        raise Damaged(path, why(e)) from None
    return FileDigest(size=size - left, sha256=digest.hexdigest())


def check_file(path: Path, written: FileDigest, may_grow: bool = False) -> None:
    """Raise Damaged unless a file is what it was when its digest was taken.

    may_grow: more may stand behind it, as when a sampler could not be stopped.
    """
    try:
        with open_regular(path, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as e:
        raise Damaged(path, why(e)) from None
    if size != written.size and not (may_grow and size > written.size):  # before all of a file of any size is read
        raise Damaged(path, f"it was changed after it was written ({size} bytes for {written.size})")
    if file_digest(path, written.size) != written:
        raise Damaged(path, "it was changed after it was written (SHA-256)")


def write_record(path: Path, value: object) -> None:
    """Write a record as JSON, whole, with its schema and its digest. Raises InputError where it cannot be written."""
    data = {"schema": SCHEMA, **plain(value)}
    write_json(path, {**data, DIGEST: digest(data)})


def write_json(path: Path, data: object) -> None:
    """Write JSON without a digest: what is only written, such as what a bench measured."""
    write_atomic(path, json.dumps(plain(data), indent=1, allow_nan=False) + "\n")


def digest(data: dict) -> str:
    """The SHA-256 of the values of a JSON object, however they are laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_record(cls: type[T], path: Path) -> T:
    """The record in a JSON file of this schema. Raises FileNotFoundError, and Damaged with the field."""
    data = read_json(path)
    found = data.pop("schema", None)
    if found != SCHEMA or isinstance(found, bool):
        raise OtherSchema(path, f"it has schema {str(found)[:20]}, and this version reads schema {SCHEMA}")
    written = data.pop(DIGEST, None)
    if written is None:
        raise Damaged(path, f"{DIGEST}: the field is missing")
    if written != digest({"schema": found, **data}):
        raise Damaged(path, f"{DIGEST}: the values were changed since they were written")
    try:
        return parse(cls, cleaned(data))
    except ValueError as e:
        raise Damaged(path, str(e)) from None


def read_json(path: Path) -> dict:
    """The object in a JSON file, of any schema. Raises FileNotFoundError, and Damaged."""
    try:
        with open_regular(path, follow=False) as file:
            return parse_object(read_bounded(file, MOST))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as e:
        raise Damaged(path, why(e)) from None


def parse_object(text: bytes) -> dict:
    """One JSON object. Raises ValueError where it is none, is nested too deep, or holds what JSON has no word for."""
    try:
        found = json.loads(text.decode(), parse_constant=refuse_constant, object_pairs_hook=distinct)
        if text.count(b"[") + text.count(b"{") > DEEPEST:
            check_depth(found)
    except json.JSONDecodeError as e:
        raise ValueError(f"it is no JSON at line {e.lineno}, column {e.colno}: {e.msg}") from None
    except RecursionError:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    return found


def refuse_constant(word: str):
    raise ValueError(f"{word} is no number in JSON")


def distinct(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def check_depth(value: object, level: int = 0) -> None:
    if level > DEEPEST:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_depth(inner, level + 1)


def cleaned_object(text: bytes) -> dict:
    """One JSON object on a line, with all of its text fit to be shown. Raises ValueError."""
    found = parse_object(text)
    harmless = b"\\" not in text and text.isascii() and text.rstrip(b"\n").decode().isprintable()
    return found if harmless else cleaned(found)


def cleaned(value: Any) -> Any:
    """The value with all of its text fit to be shown."""
    if isinstance(value, str):
        return value if value.isprintable() else printable_text(value)
    if isinstance(value, dict):
        return {cleaned(k): cleaned(v) for k, v in value.items()}
    return [cleaned(v) for v in value] if isinstance(value, list) else value


def read_lines(path: Path) -> Iterator[dict]:
    """The objects of a JSONL file; a torn last line, as a crash leaves it, is passed over. Raises Damaged."""
    try:
        with open_regular(path, follow=False) as file:
            if os.fstat(file.fileno()).st_size > MOST_LINES:
                raise ValueError(f"it is larger than {MOST_LINES} bytes")
            for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), 1):
                if not line.endswith(b"\n"):
                    if len(line) == LONGEST:
                        raise ValueError(f"line {number}: it is longer than {LONGEST} bytes")
                    return
                try:
                    yield cleaned_object(line)
                except ValueError as e:
                    raise ValueError(f"line {number}: {why(e)}") from None
    except (OSError, ValueError) as e:
        raise Damaged(path, why(e)) from None


def read_tail(path: Path) -> list[str]:
    """The last lines of a log, fit to be shown; what cannot be read has none."""
    try:
        with open_regular(path, follow=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read(TAIL).decode(errors="replace")
    except (OSError, ValueError):
        return []
    return [printable_line(line) for line in text.splitlines()]
