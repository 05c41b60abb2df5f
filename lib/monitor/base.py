"""Backends of the monitor: one file each, all behind this protocol. A reading that is missing is None, never 0."""

from dataclasses import dataclass
from typing import Protocol

from lib.registry import Registry

MIB = 1024 * 1024


@dataclass(frozen=True)
class Device:
    """What does not change. uuid is the vendor's; memory_total in MiB, power_limit in watts; capability of computing,
    as NVIDIA counts it."""

    vendor: str
    index: int
    name: str | None = None
    uuid: str | None = None
    memory_total: float | None = None
    power_limit: float | None = None
    capability: float | None = None


@dataclass(frozen=True)
class Sample:
    """One reading: percent, MiB, degrees Celsius, watts, percent of full speed, MHz, joules since some start.
    process_memory is that of the processes asked about."""

    utilization: float | None = None
    memory_used: float | None = None
    process_memory: float | None = None
    temperature: float | None = None
    power: float | None = None
    fan: float | None = None
    clock: float | None = None
    memory_clock: float | None = None
    energy: float | None = None


class Backend(Protocol):
    vendor: str

    def probe(self) -> bool:
        """Whether there is a device of this vendor; never raises, and never starts a compute context."""

    def devices(self) -> list[Device]: ...

    def sample(self, device: Device, pids: set[int]) -> Sample:
        """A reading of one device; `pids` are the run's own processes."""


BACKENDS: Registry[Backend] = Registry("monitor backend", "lib.monitor")
