"""What a recorded file says: statistics of each device, and two files side by side."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib import ledger
from lib.config import InputError
from lib.gputop.show import table
from lib.monitor import stats
from lib.monitor.base import Device

UNITS = {
    "utilization": "%",
    "memory_used": "MiB",
    "process_memory": "MiB",
    "temperature": "C",
    "hotspot": "C",
    "memory_temperature": "C",
    "power": "W",
    "fan": "%",
    "clock": "MHz",
    "memory_clock": "MHz",
    "pcie_tx": "MiB/s",
    "pcie_rx": "MiB/s",
    "nvlink_tx": "MiB/s",
    "nvlink_rx": "MiB/s",
}


@dataclass(frozen=True)
class Record:
    """A file that a sampler or `gputop --stats` wrote. samples: see lib/monitor/stats.py."""

    path: Path
    header: dict
    samples: list[dict]

    @classmethod
    def of(cls, path: str | Path) -> "Record":
        """Raises InputError where there is no such file, or no sample in it."""
        path = Path(path)
        with contextlib.suppress(OSError):  # reading it says what is wrong
            path = path / "monitor.jsonl" if (path / "monitor.jsonl").is_file() else path
        header, samples = stats.read(path)
        if not header:
            raise InputError(f"{path}: {'it is empty' if path.is_file() else 'there is no such file'}")
        if not samples:
            raise InputError(f"{path} holds no sample: what wrote it ended before its first one")
        return cls(path, header, samples)

    @property
    def name(self) -> str:
        """The run's, for a file of a run."""
        return self.path.parent.name if self.path.name == "monitor.jsonl" else self.path.stem

    @property
    def devices(self) -> list[Device]:
        return [
            Device(**{k: v for k, v in d.items() if k in Device.__dataclass_fields__}) for d in self.header["devices"]
        ]

    @property
    def seconds(self) -> float:
        return self.samples[-1]["t"] - self.samples[0]["t"]

    def series(self, device: int, name: str) -> list[tuple[float, float]]:
        """(seconds, value) of every sample that has it."""
        return [(s["t"], s["devices"][device][name]) for s in self.samples if name in s["devices"][device]]

    def reported(self, device: int) -> list[str]:
        return [name for name in UNITS if any(name in s["devices"][device] for s in self.samples)]

    def choose(self, wanted: str | None = None) -> int:
        """The number of the device `wanted` ("nvidia 0"); without one, of the first GPU that reports anything, else of
        the host. Raises InputError for one that is not in the file."""
        ids = [d.id for d in self.devices]
        if wanted is not None:
            if wanted not in ids:
                raise InputError(f"{self.path} has no device {wanted!r}: choose one of {', '.join(ids)}")
            return ids.index(wanted)
        good = [i for i in range(len(ids)) if self.reported(i)]
        if not good:
            raise InputError(f"{self.path}: no device reported anything")
        return next((i for i in good if self.devices[i].vendor != "cpu"), good[0])

    def notes(self) -> Iterator[str]:
        """What is missing."""
        for key, what in (
            ("lost", "samples could not be written"),
            ("damaged", "lines were not whole and are left out"),
        ):
            if self.header.get(key):
                yield f"{self.path}: {self.header[key]} {what}"


@dataclass(frozen=True)
class Statistics:
    mean: float
    least: float
    most: float


def statistics(points: list[tuple[float, float]]) -> Statistics:
    """Mean over time: a sample stands for the time until the next, and the last for as long as the one before it."""
    values = [v for _, v in points]
    spans = [max(b - a, 1e-6) for (a, _), (b, _) in zip(points, points[1:], strict=False)]
    weights = [*spans, spans[-1] if spans else 1.0]
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    return Statistics(mean, min(values), max(values))


def title(name: str) -> str:
    return f"{name.replace('_', ' ')} ({UNITS[name]})"


def summary(record: Record) -> Iterator[str]:
    """Every device: mean, least and most of what it reported."""
    yield f"{record.path}: {len(record.samples)} samples over {record.seconds:.1f} s"
    for i, device in enumerate(record.devices):
        names = record.reported(i)
        yield ""
        yield f"{device.id}: {device.name or '?'}{'' if names else ': reported nothing'}"
        rows = [(name, statistics(record.series(i, name))) for name in names]
        if rows:
            yield from table(
                ("what", "mean", "least", "most"),
                [[title(n), f"{s.mean:z.1f}", f"{s.least:z.1f}", f"{s.most:z.1f}"] for n, s in rows],
            )
        joules, how = ledger.energy([i], record.samples)
        if joules is not None:
            yield f"energy: {joules:.0f} J, {how}"
    yield from record.notes()


def common(a: Record, i: int, b: Record, j: int) -> list[str]:
    """What both devices reported. Raises InputError where that is nothing."""
    there = b.reported(j)
    found = [name for name in a.reported(i) if name in there]
    if not found:
        raise InputError(
            f"{a.path} ({a.devices[i].id}) and {b.path} ({b.devices[j].id}) have no reading in common: name a device "
            "with --device"
        )
    return found


def compare(a: Record, b: Record, device: str | None = None) -> Iterator[str]:
    """The two side by side, what both report; b against a."""
    i, j = a.choose(device), b.choose(device)
    one, other = a.devices[i], b.devices[j]
    yield f"A: {a.path}, {one.id} ({one.name or '?'}), {len(a.samples)} samples over {a.seconds:.1f} s"
    yield f"B: {b.path}, {other.id} ({other.name or '?'}), {len(b.samples)} samples over {b.seconds:.1f} s"
    if one.name != other.name:
        yield "note: these are different devices"
    names = common(a, i, b, j)
    rows = []
    for name in names:
        x, y = statistics(a.series(i, name)), statistics(b.series(j, name))
        change = f"{100 * (y.mean / x.mean - 1):+z.1f}" if x.mean else "-"
        rows.append([title(name), f"{x.mean:z.1f}", f"{y.mean:z.1f}", change, f"{x.most:z.1f}", f"{y.most:z.1f}"])
    yield ""
    yield from table(("what", "A mean", "B mean", "B vs A %", "A most", "B most"), rows)
    yield from (*a.notes(), *b.notes())
