"""What the lines of monitor.jsonl hold: the header, and then samples, marks of phases, and devices that appeared."""

import dataclasses
from typing import Literal

from lib.monitor.base import Sample
from lib.schema import Count, Name, Reading, Seconds, record

SCHEMA = 2
FIELDS = [f.name for f in dataclasses.fields(Sample)]


@record
class Described:
    """A device, as the header and "appeared" give it; what is not known is left out. Its fields are Device's."""

    vendor: Name
    index: Count
    name: Name | None = None
    uuid: Name | None = None
    memory_total: Reading | None = None
    power_limit: Reading | None = None
    capability: Reading | None = None
    bus: Name | None = None
    link: Name | None = None
    nvlinks: Count | None = None
    part: Count | None = None


@record
class Header:
    """monitor.jsonl, first line. fields: the readings of a sample, in their order; pid: of the run; interval_s: between
    samples; started: seconds since 1970."""

    schema: Literal[SCHEMA]
    fields: list[Literal[*FIELDS]]
    pid: Count | None = None
    interval_s: Seconds | None = None
    started: Seconds | None = None
    devices: list[Described]

    def __post_init__(self):
        if len(set(self.fields)) < len(self.fields):
            raise ValueError("fields: one is given twice")


@record
class Sampled:
    """monitor.jsonl: a reading of every device, in the header's order. t: seconds since the start; lost: how many
    samples before it a full disk has taken; devices: a list each of its readings, without the nulls at its end."""

    t: Seconds
    phase: Name
    lost: Count = 0
    devices: list[list[Reading | None]]


@record
class Marked:
    """monitor.jsonl: a phase begins."""

    t: Seconds
    phase: Name


@record
class Appeared:
    """monitor.jsonl: a device that was not there before; its readings follow those of the others from here on."""

    t: Seconds
    appeared: Described


Line = Header | Sampled | Marked | Appeared


def kind(row: dict) -> type:
    """Which record a line after the header is, by the field that no other has."""
    return Sampled if "devices" in row else Appeared if "appeared" in row else Marked
