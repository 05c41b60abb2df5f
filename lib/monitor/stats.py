"""monitor.jsonl as it is read: by reports, graphs and gputop."""

import json
from pathlib import Path

from lib.config import InputError

SCHEMA = 2


def read(path: Path) -> tuple[dict, list[dict]]:
    """(header, samples), each sample with `t` in seconds, `phase`, and for each device a dict of the readings that
    there are. A line that is not whole is left out. ({}, []) where there is no such file. Raises InputError for a file
    of another kind, or of another version."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return {}, []
    header = parsed(lines[0]) if lines else {}
    if header is None or (header and header.get("schema") != SCHEMA):
        raise InputError(
            f"{path} is no record of this version of the monitor (schema {SCHEMA}): its first line says so"
        )
    samples = []
    for line in filter(None, map(parsed, lines[1:])):
        readings = [named(header["fields"], values) for values in line["devices"]]
        samples.append({**line, "devices": readings})
    return header, samples


def parsed(line: bytes) -> dict | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def named(fields: list[str], values: list) -> dict:
    return {name: value for name, value in zip(fields, values, strict=True) if value is not None}
