"""monitor.jsonl as it is written, a line at a time, and as it is read: by reports, graphs and gputop."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from lib.config import InputError, open_regular, why
from lib.files import LONGEST, MOST_LINES, cleaned_object
from lib.monitor.base import Device, Sample
from lib.monitor.lines import FIELDS, SCHEMA, Header, Sampled, kind
from lib.schema import parse_sparse


class Writer:
    """Appends whole lines. One that cannot be written (a full disk) is lost, whole; the next that can be says how many
    were. What is lost is said on standard error too: the first time, and at the end. A context manager."""

    def __init__(self, path: str | Path, new: bool = False):
        """new: refuse a file that is there. Raises OSError where it cannot be opened."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_EXCL if new else 0)
        self.path, self.file = Path(path), os.open(path, flags, 0o666)
        self.lost, self.all, self.owed = 0, 0, ""

    def header(self, devices: list[Device], **facts) -> None:
        """Without it nothing after it could be read: what of it cannot be written now goes before the next line."""
        rows = [known(d) for d in devices]
        self.owed = self._line({"schema": SCHEMA, "fields": FIELDS, **facts, "devices": rows})
        self._put("")

    def appeared(self, t: float, device: Device) -> None:
        self.owed += self._line({"t": round(t, 3), "appeared": known(device)})
        self._put("")

    def mark(self, t: float, phase: str) -> None:
        """A phase begins."""
        self._put(self._line({"t": round(t, 3), "phase": phase}))

    def sample(self, t: float, phase: str, samples: list[Sample]) -> None:
        lost = {"lost": self.lost} if self.lost else {}
        rows = [trimmed(values(s)) for s in samples]
        if self._put(self._line({"t": round(t, 3), "phase": phase, **lost, "devices": rows})):
            self.lost = 0
        else:
            self.lost, self.all = self.lost + 1, self.all + 1

    def _line(self, row: dict) -> str:
        return json.dumps(row, separators=(",", ":")) + "\n"

    def _put(self, line: str) -> bool:
        text = (self.owed + line).encode()
        before = None
        try:
            before = os.fstat(self.file).st_size
            if os.write(self.file, text) < len(text):
                raise OSError("the disk took a part of a line")
            self.owed = ""
            return True
        except OSError as e:
            try:
                if before is not None:
                    os.ftruncate(self.file, before)
            except OSError:
                self.owed = "\n" + self.owed.lstrip("\n")
            if not self.all:
                self._say(f"{self.path} cannot be written, samples are lost: {e}")
            return False

    def _say(self, what: str) -> None:
        with contextlib.suppress(OSError):  # the log is often on the same disk
            print(f"monitor: {what}", file=sys.stderr, flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.all:
            self._say(f"{self.path}: {self.all} samples were lost")
        os.close(self.file)


def known(device: Device) -> dict:
    return {k: v for k, v in vars(device).items() if v is not None}


def values(sample: Sample) -> list:
    """In the order of FIELDS, rounded to what they are good for; whole numbers without a point. What is no number, as a
    driver may say, is unknown."""
    found = (None if v is None or not math.isfinite(v) else round(v, 1) for v in vars(sample).values())
    return [int(v) if v is not None and v == int(v) else v for v in found]


def trimmed(row: list) -> list:
    """Without the nulls at its end."""
    while row and row[-1] is None:
        row = row[:-1]
    return row


def read(path: Path, most: int = MOST_LINES) -> tuple[dict, list[dict]]:
    """(header, samples), each sample with `t` in seconds, `phase`, and for each device a dict of the readings that
    there are. The header has all devices that ever appeared; `lost`, samples that a full disk has taken; `damaged`,
    lines that are not whole and were left out; `marks`, (seconds, phase) where phases begin. ({}, []) where there is
    no such file. most: bytes of the file that are looked at. Raises InputError for a file of another kind, or of
    another version."""
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST_LINES:
                raise ValueError(f"it is larger than {MOST_LINES} bytes")
            lines = bounded_lines(file, most)
            first = next(lines, b"")
            return collected(opened(path, first), lines) if first else ({}, [])
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as e:
        if isinstance(e, InputError):
            raise
        raise InputError(f"{path} cannot be read: {why(e)}") from None


def bounded_lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines of a file up to so many bytes; one that is too long comes in pieces, none of which is a whole line."""
    while most > 0 and (line := file.readline(min(LONGEST, most))):
        most -= len(line)
        yield line


def collected(header: dict, lines: Iterable[bytes]) -> tuple[dict, list[dict]]:
    """The header, completed, and the samples of the lines after it."""
    samples, marks, damaged, lost = [], [], 0, 0
    for line in filter(bytes.strip, lines):
        row = checked(line, header)
        if row is None:
            damaged += 1
        elif "appeared" in row:
            header["devices"].append(row["appeared"])
        elif "devices" in row:
            readings = [named(header["fields"], found) for found in row.pop("devices")]
            lost += row.pop("lost", 0)
            if row["phase"] != (marks[-1][1] if marks else None):  # its own line is not there
                marks.append((row["t"], row["phase"]))
            samples.append({**row, "devices": readings})
        else:
            marks.append((row["t"], row["phase"]))
    for s in samples:  # those from before a device appeared
        s["devices"] += [{} for _ in header["devices"][len(s["devices"]) :]]
    return {**header, "lost": lost, "damaged": damaged, "marks": sorted(marks)}, samples


def opened(path: Path, line: bytes) -> dict:
    """The header. Raises InputError where the first line is none."""
    header = parsed(line) or {}
    try:
        parse_sparse(Header, header)
    except ValueError as e:
        raise InputError(
            f"{path} is no record of this version of the monitor (schema {SCHEMA}; {e}): its first line would say so, "
            "with the devices; give a monitor.jsonl of a run, or a file that `gputop --stats` wrote"
        ) from None
    return header


def checked(line: bytes, header: dict) -> dict | None:
    """A line after the header; None where it is not whole, or of other devices or readings than the header's."""
    row = parsed(line)
    try:
        found = parse_sparse(kind(row), row)
    except (TypeError, ValueError):
        return None
    if isinstance(found, Sampled):
        few = len(found.devices) <= len(header["devices"])
        return row if few and all(len(r) <= len(header["fields"]) for r in found.devices) else None
    return row


def parsed(line: bytes) -> dict | None:
    try:
        return cleaned_object(line)
    except ValueError:
        return None


def named(fields: list[str], values: list) -> dict:
    return {name: value for name, value in zip(fields, values, strict=False) if value is not None}
