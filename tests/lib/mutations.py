"""What can happen to a file of a results directory: cut, flipped, of another kind, of other values, or foreign."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from lib.files import DIGEST, digest

ESCAPE = "\x1b[31m\x1b]0;title\x07 <img src=x> ![](http://x) | \u202e\ud800"
VALUES = (None, True, -1, 0, 3, 2.5, 10**400, 1e308, "", "text", ESCAPE, [], {}, [[1]], {"a": 1}, "NaN", -0.0, 1e-320)


def whole_file(path: Path, elsewhere: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, what does it) of what can become of a file as a whole; `elsewhere` is a file outside."""
    data = path.read_bytes()

    def put(content: bytes) -> Callable[[], None]:
        return lambda: path.write_bytes(content)

    def instead(make: Callable[[], object]) -> Callable[[], None]:
        return lambda: (path.unlink(), make())

    yield "deleted", path.unlink
    yield "empty", put(b"")
    yield "cut", put(data[: len(data) // 2])
    yield "cut in its last line", put(data[:-3])
    yield "zeros", put(bytes(len(data)))
    yield "no text", put(b"\xff\xfe" + data)
    yield "twice", put(data + data)
    yield "more behind it", put(data + b"{}\n")
    yield "carriage returns", put(data.replace(b"\n", b"\r\n"))
    yield "deep", put(b"[" * 100_000)
    yield "deep objects", put(b'{"a":' * 100_000)
    yield "NaN", put(b'{"schema": NaN}\n')
    yield "infinite", put(b'{"schema": 1e999}\n')
    yield "a number of many digits", put(b'{"schema": ' + b"9" * 10_000 + b"}\n")
    yield "another kind", put(b"\x89PNG\r\n\x1a\n")
    yield "a list", put(b"[1, 2]\n")
    yield "escape sequences", put(ESCAPE.encode(errors="surrogatepass"))
    yield (
        "an open quote and an escape",
        put(b'CONFIG_RESULTS="\x1b[31m\x1b]0;title\x07' + b"x" * 100_000 + b"\n" + data),
    )
    yield "a directory", instead(path.mkdir)
    yield "a link", instead(lambda: path.symlink_to(elsewhere))
    yield "a link to itself", instead(lambda: path.symlink_to(path))
    yield "a named pipe", instead(lambda: os.mkfifo(path))
    yield "a device", instead(lambda: path.symlink_to("/dev/zero"))
    yield "larger than any", lambda: os.truncate(path, 1 << 40)
    if os.geteuid():  # root reads everything
        yield "unreadable", lambda: path.chmod(0)


def flips(path: Path, count: int, seed: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """One bit each, anywhere."""
    data, drawn = path.read_bytes(), random.Random(f"{path.name}/{seed}")
    for _ in range(count):
        place, bit = drawn.randrange(len(data)), drawn.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        yield f"bit {bit} of byte {place}", lambda content=bytes(changed): path.write_bytes(content)


def values(path: Path, sealed: bool, pick: Callable[[int], bool]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every field of a JSON file, or of the lines of a JSONL file, with every other value, missing, renamed and added.

    sealed: with the digest that belongs to the new values, as a forger would write it. pick(n): whether to take the
    n-th of them.
    """
    lines = path.suffix == ".jsonl"
    objects = [json.loads(line) for line in path.read_text().splitlines()] if lines else [json.loads(path.read_text())]
    chosen = range(len(objects)) if not lines else sorted({0, 1, len(objects) // 2, len(objects) - 1})
    n = 0
    for i in chosen:
        for place, change in changes(objects[i]):
            n += 1
            if pick(n):
                yield (
                    f"line {i + 1}: {place}" if lines else place,
                    write(path, objects, i, change, sealed and not lines),
                )


def changes(found: dict) -> Iterator[tuple[str, Callable[[dict], None]]]:
    for keys in places(found):
        name = ".".join(map(str, keys))
        for value in VALUES:
            yield f"{name} = {str(value)[:20]!r}", lambda o, k=keys, v=value: put(o, k, v)
        if isinstance(keys[-1], str):
            yield f"{name} missing", lambda o, k=keys: at(o, k[:-1]).pop(k[-1])
            yield f"{name} renamed", lambda o, k=keys: at(o, k[:-1]).update({f"{k[-1]}_": at(o, k[:-1]).pop(k[-1])})
    yield "a field more", lambda o: o.update(more=1)


def places(found, before=()) -> Iterator[tuple]:
    """The way to every value; of a long list to its first ones."""
    items = found.items() if isinstance(found, dict) else enumerate(found[:3]) if isinstance(found, list) else ()
    for key, value in items:
        yield (*before, key)
        yield from places(value, (*before, key))


def at(found, keys):
    for key in keys:
        found = found[key]
    return found


def put(found, keys, value) -> None:
    at(found, keys[:-1])[keys[-1]] = value


def write(path: Path, objects: list, i: int, change: Callable[[dict], None], sealed: bool) -> Callable[[], None]:
    def do() -> None:
        changed = json.loads(json.dumps(objects[i]))
        change(changed)
        if sealed and DIGEST in changed:
            changed[DIGEST] = digest({k: v for k, v in changed.items() if k != DIGEST})
        rows = [json.dumps(o) for o in (*objects[:i], changed, *objects[i + 1 :])]
        path.write_text("\n".join(rows) + "\n")

    return do


def restore(path: Path, data: bytes) -> None:
    """Undo whatever was done to a file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
