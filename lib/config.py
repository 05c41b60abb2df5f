"""Config: the values of a `.config`, complete and in Kconfig's order, read into typed settings.

A Config is immutable and knows nothing of Kconfig: `lib.kconfig` makes one (and checks that every line survives its
dependencies), everything else reads it. Axis members are bools (`OPTIMIZER_SGD=y`); `on("OPTIMIZER")` lists the ones
that are set, in Kconfig's order, which is the order of runs, rows, legends and colours everywhere.

Settings are frozen dataclasses. The field `spam_theta` is the symbol `SPAM_THETA` and the flag `--spam-theta`; there
is no table of names. Field types: int, float, bool, str, Steps, `float | None` and `bool | None` (empty means None),
and `choice(...)`, one member of a Kconfig choice.
"""

import contextlib
import dataclasses
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LINE = re.compile(r"CONFIG_(\w+)=(.*)")
UNSET = re.compile(r"# CONFIG_(\w+) is not set")
MOST = 4 << 20  # bytes of a configuration file
SHOWN = 200  # characters of a wrong line or value in a message


class InputError(ValueError):
    """What the user gave cannot be used. The message names the thing, the value and the choices; no traceback."""


class MissingSymbol(InputError, KeyError):
    """A configuration lacks a symbol that every complete one has. A KeyError too, as a Mapping's `get` expects."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it


class Steps(str):
    """A length of training: a count of optimizer steps ("500"), a share of the run ("10%"), or "" for automatic."""

    def __new__(cls, text: str):
        text = text.strip()
        if text and not re.fullmatch(r"\d+|\d+(\.\d+)?%", text):
            raise ValueError("give a count of steps such as 500, a share of the run such as 10%, or nothing")
        if text.endswith("%") and float(text[:-1]) > 100:
            raise ValueError("a share of the run is at most 100%")
        return super().__new__(cls, text)

    def resolve(self, total: int, scale: float = 1.0) -> int:
        """Steps out of a run of `total` steps. A plain count is scaled by `scale` (a shortened run), a share is not."""
        if self.endswith("%"):
            return round(total * float(self[:-1]) / 100)
        return round(int(self) * scale)


def number(default, low=None, high=None, above=None, below=None):
    """A numeric field with its bounds: low and high are allowed values, above and below are not."""
    bounds = {"low": low, "high": high, "above": above, "below": below}
    return dataclasses.field(default=default, metadata=bounds)


def choice(default: str):
    """A field that holds one member of a Kconfig choice: `pruning_schedule` is one of `PRUNING_SCHEDULE_*`."""
    return dataclasses.field(default=default, metadata={"choice": True})


class Config(Mapping[str, str]):
    """Symbol (without CONFIG_) -> value, unquoted; bools are "y" and "n"."""

    def __init__(self, values: Mapping[str, str], kinds: Mapping[str, str], origin: Mapping[str, str] | None = None):
        self._values, self._kinds, self._origin = dict(values), dict(kinds), dict(origin or {})
        self._settings: dict[
            tuple[type, str], object
        ] = {}  # what has been read: a plan of 39 runs asks thousands of times

    def __getitem__(self, name: str) -> str:
        if name not in self._values:
            raise MissingSymbol(f"CONFIG_{name} is missing: the configuration is not complete, or was changed")
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def kind(self, name: str) -> str:
        """bool, int or string."""
        return self._kinds[name]

    @classmethod
    def load(cls, path: str | Path) -> "Config":
        """Read a complete file as `write` or kconfiglib writes it. Checks syntax only; see lib.kconfig for meaning."""
        values, kinds, origin = {}, {}, {}
        for number_, line in enumerate(read_whole(path).splitlines(), 1):
            name, value, kind = parse_line(line, f"{path}:{number_}")
            if name:
                values[name], kinds[name], origin[name] = value, kind, f"{path}:{number_}"
        return cls(values, kinds, origin)

    def text(self) -> str:
        return "".join(format_line(n, v, self._kinds[n]) for n, v in self._values.items())

    def write(self, path: str | Path, head: Sequence[str] = ()) -> None:
        """Write the whole file, with these lines as comments before it."""
        write_atomic(path, "".join(f"# {line}\n" for line in head) + self.text())

    def replace(self, values: Mapping[str, str]) -> "Config":
        """A copy with these symbols set; each must be known here already."""
        unknown = [n for n in values if n not in self._values]
        if unknown:
            raise KeyError(f"not in this config: {', '.join(unknown)}")
        for name, value in values.items():
            refuse_unwritable(name, value)
        return Config({**self._values, **values}, self._kinds, {})

    def members(self, axis: str) -> list[str]:
        """Every member of an axis, set or not, in Kconfig's order, in lower case."""
        head = axis + "_"
        return [n[len(head) :].lower() for n in self if n.startswith(head) and self._kinds[n] == "bool"]

    def on(self, axis: str) -> list[str]:
        return [m for m in self.members(axis) if self[f"{axis}_{m.upper()}"] == "y"]

    def where(self, name: str) -> str:
        """`path:line: CONFIG_X=value`, for messages."""
        at = self._origin.get(name)
        return f"{at + ': ' if at else ''}CONFIG_{name}={shown(self._values.get(name, ''))}"

    def read(self, cls: type[T], prefix: str = "") -> T:
        """The settings `cls`, each field from the symbol of its name with `prefix`. A symbol that Kconfig left out,
        because what it depends on is off, gives the field's default (equal to Kconfig's: a test holds that)."""
        if (cls, prefix) not in self._settings:
            self._settings[cls, prefix] = cls(**{f.name: self._field(f, prefix) for f in dataclasses.fields(cls)})
        return self._settings[cls, prefix]

    def _field(self, field: dataclasses.Field, prefix: str):
        name = (prefix + field.name).upper()
        if field.metadata.get("choice"):
            on = self.on(name)
            if len(on) > 1:
                raise InputError(f"CONFIG_{name}_*: only one of {', '.join(on)} can be set")
            return on[0] if on else field.default
        if name not in self._values:
            return field.default
        try:
            return convert(self._values[name], field)
        except ValueError as e:
            raise InputError(f"{self.where(name)}: {e}") from None


def convert(text: str, field: dataclasses.Field):
    """`text` as the type of `field`, within its bounds. Raises ValueError that says what would be right."""
    kind = field.type
    if text == "" and kind in (float | None, bool | None):
        return None
    if kind in (bool, bool | None):
        known = {"y": True, "true": True, "n": False, "false": False}
        if text not in known:
            raise ValueError("give y, n, true or false")
        return known[text]
    if kind in (float, float | None, int):
        try:
            value = int(text) if kind is int else float(text)
        except ValueError:
            raise ValueError(f"give {'a whole number' if kind is int else 'a number'}") from None
        return within(value, **{k: field.metadata.get(k) for k in ("low", "high", "above", "below")})
    return kind(text)


def within(value, low=None, high=None, above=None, below=None):
    """`value` if it respects the bounds that are given, else ValueError."""
    rules = [(low, value >= low if low is not None else True, f">= {low}"),
             (high, value <= high if high is not None else True, f"<= {high}"),
             (above, value > above if above is not None else True, f"> {above}"),
             (below, value < below if below is not None else True, f"< {below}")]  # fmt: skip
    if value != value or abs(value) == math.inf or not all(ok for _, ok, _ in rules):
        bounds = " and ".join(text for bound, _, text in rules if bound is not None)
        raise ValueError(f"give a finite number {bounds}".strip())
    return value


def shown(text: str) -> str:
    """A wrong line or value for a message: quoted, with what does not print escaped, and short."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


def parse_line(line: str, where: str) -> tuple[str | None, str, str]:
    """(name, value, kind) of one line; name None for blanks and comments."""
    line = line.strip()
    if m := UNSET.fullmatch(line):
        return m[1], "n", "bool"
    if not line or line.startswith("#"):
        return None, "", ""
    m = LINE.fullmatch(line)
    if not m:
        raise InputError(f"{where}: not a configuration line: {shown(line)} (expected CONFIG_NAME=value)")
    name, raw = m.groups()
    if raw in ("y", "n"):
        return name, raw, "bool"
    if raw.startswith('"'):
        if not re.fullmatch(r'"(\\.|[^"\\])*"', raw):
            raise InputError(f"{where}: CONFIG_{name}: the quotes of {shown(raw)} do not match")
        return name, re.sub(r"\\(.)", r"\1", raw[1:-1]), "string"
    return name, raw, "int"


def format_line(name: str, value: str, kind: str) -> str:
    refuse_unwritable(name, value)
    if kind == "bool":
        return f"CONFIG_{name}=y\n" if value == "y" else f"# CONFIG_{name} is not set\n"
    if kind == "string":
        value = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"CONFIG_{name}={value}\n"


def refuse_unwritable(name: str, value: str) -> None:
    """A newline would be written raw and set another symbol when the file is read again; bytes of the command line or
    the environment that are no UTF-8 arrive as lone surrogates, which no file takes."""
    if len((value + ".").splitlines()) > 1:
        raise InputError(
            f"CONFIG_{name}: a line break in {shown(value)} would set another symbol; write it in one line"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InputError(f"CONFIG_{name}: {shown(value)} is not UTF-8 text") from None


def read_whole(path: str | Path) -> str:
    """The text of a configuration file. Raises InputError where it cannot be read."""
    try:
        with open_regular(path) as file:
            return read_bounded(file, MOST).decode()
    except (OSError, ValueError) as e:
        raise InputError(f"cannot read {path}: {why(e)}") from None


def open_regular(path: str | Path, follow: bool = True):
    """A binary file that is a regular one: opening a named pipe would wait for a writer, for ever.

    follow: whether `path` may be a symbolic link. Raises OSError where it cannot be opened, ValueError where it is
    something else.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if not follow and Path(path).is_symlink():
        raise ValueError("it is a symbolic link")
    descriptor = os.open(path, flags | (0 if follow else getattr(os, "O_NOFOLLOW", 0)))
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ValueError("it is a directory" if stat.S_ISDIR(kind) else "it is not a regular file")


def read_bounded(file, most: int) -> bytes:
    """All of an open file. Raises ValueError where that is more than `most` bytes."""
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes, which no such file is")
    return data


def why(error: Exception) -> str:
    """What an OSError, UnicodeDecodeError or ValueError says of a file, without its path."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start})"
    return getattr(error, "strerror", None) or str(error)


def write_atomic(path: str | Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it, a crash leaves the old one. Nothing is written
    through a link: one at `path` is replaced. Raises InputError where it cannot be written."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with part.open("x", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())  # or a crash of the machine could leave the name with nothing behind it
        part.replace(path)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {why(e)}") from None
