"""Backends of the monitor: one file each, all behind this protocol. A reading that is missing is None, never 0."""

from dataclasses import dataclass
from typing import Protocol

from lib.registry import Registry

MIB = 1024 * 1024


@dataclass(frozen=True)
class Device:
    """What does not change. uuid is the vendor's; memory_total in MiB, power_limit in watts; capability of computing,
    as NVIDIA counts it; bus: the PCI slot ("0000:03:00.0"); link: the fastest that slot and card can do
    ("PCIe 4 x16"); nvlinks: how many are up; part: the number of an instance (MIG) of a card that is cut in several,
    None of a whole card."""

    vendor: str
    index: int
    name: str | None = None
    uuid: str | None = None
    memory_total: float | None = None
    power_limit: float | None = None
    capability: float | None = None
    bus: str | None = None
    link: str | None = None
    nvlinks: int | None = None
    part: int | None = None

    @property
    def id(self) -> str:
        """What it is called where there are several: "nvidia 0", and of an instance "nvidia 0.1"."""
        return f"{self.vendor} {self.index}" + ("" if self.part is None else f".{self.part}")

    @property
    def key(self) -> str:
        """What it is known by: numbers change when a device goes away."""
        return self.uuid or self.id


@dataclass(frozen=True)
class Sample:
    """One reading: percent, MiB, degrees Celsius, watts, percent of full speed, MHz, joules since some start, MiB/s as
    the device sends (tx) and receives (rx). process_memory is that of the processes asked about."""

    utilization: float | None = None
    memory_used: float | None = None
    process_memory: float | None = None
    temperature: float | None = None
    power: float | None = None
    fan: float | None = None
    clock: float | None = None
    memory_clock: float | None = None
    energy: float | None = None
    hotspot: float | None = None
    memory_temperature: float | None = None
    pcie_tx: float | None = None
    pcie_rx: float | None = None
    nvlink_tx: float | None = None
    nvlink_rx: float | None = None


@dataclass(frozen=True)
class Process:
    """A process that uses a device: MiB of its memory, percent of its time (of one core, on the host)."""

    pid: int
    memory: float | None = None
    utilization: float | None = None


class Backend(Protocol):
    vendor: str

    def probe(self) -> bool:
        """Whether there is a device of this vendor; never raises, and never starts a compute context."""

    def devices(self) -> list[Device]:
        """Those that are there now."""

    def sample(self, device: Device, pids: set[int]) -> Sample:
        """A reading of one device; `pids` are the run's own processes. Sample() of a device that has gone."""

    def processes(self, device: Device) -> list[Process]:
        """All that use a device, of every user whom we may see."""


BACKENDS: Registry[Backend] = Registry("monitor backend", "lib.monitor")


class Rates:
    """What counters gain a second, between one asking and the next."""

    def __init__(self):
        self.last: dict = {}

    def of(self, key, value: float | None, now: float) -> float | None:
        """None the first time, and where a counter is missing or began anew. `now` in monotonic seconds."""
        before, self.last[key] = self.last.get(key), (value, now)
        if value is None or before is None or before[0] is None or now <= before[1] or value < before[0]:
            return None
        return (value - before[0]) / (now - before[1])
