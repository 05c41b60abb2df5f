"""What a person sees of all devices over time: readings, their history, and who uses them. Behind the live view, and
behind its one-off forms."""

import time
from collections import deque
from collections.abc import Iterable

from lib.monitor.base import Device, Process, Sample
from lib.monitor.source import Readings
from lib.monitor.users import User, described

KEPT = 1800.0  # seconds of history
TOGETHER = Device("all", 0, "all GPUs")


class View:
    """What is known of devices at one moment. history: device -> (seconds on a monotonic clock, Sample), oldest first.
    said: what backends complained of. Of several GPUs there is an aggregate, TOGETHER, before them."""

    devices: list[Device]
    history: dict[Device, Iterable[tuple[float, Sample]]]
    said: list[str]

    def latest(self, device: Device) -> Sample:
        kept = self.history.get(device)
        return kept[-1][1] if kept else Sample()

    def total(self, device: Device, what: str) -> float | None:
        """Return memory_total or power_limit; of TOGETHER the sum, where all say it."""
        each = [getattr(d, what) for d in self.parts(device)]
        return None if None in each else sum(each)

    def parts(self, device: Device) -> list[Device]:
        """Return the devices that one stands for: of TOGETHER every whole GPU."""
        if device is not TOGETHER:
            return [device]
        return [d for d in self.devices if d is not TOGETHER and d.vendor != "cpu" and d.part is None]


class Watch(View):
    """Devices as they are now: tick() reads everything once."""

    def __init__(self, readings: Readings | None = None, clock=time.monotonic):
        self.said: list[str] = []
        self.readings = readings or Readings(say=self.said.append)
        self.clock, self.start, self.history = clock, clock(), {}

    @property
    def devices(self) -> list[Device]:
        found = self.readings.devices
        several = len([d for d in found if d.vendor != "cpu" and d.part is None]) > 1
        return [TOGETHER, *found] if several else found

    def tick(self) -> list[Sample]:
        """One reading of every device, in the readings' order."""
        now = self.clock()
        self.readings.refresh(now - self.start)
        samples = self.readings.of(set())
        for device, sample in zip(self.readings.devices, samples, strict=True):
            self._keep(device, now, sample)
        whole = [s for d, s in zip(self.readings.devices, samples, strict=True) if d.vendor != "cpu" and d.part is None]
        if len(whole) > 1:
            self._keep(TOGETHER, now, together(whole))
        return samples

    def _keep(self, device: Device, now: float, sample: Sample) -> None:
        kept = self.history.setdefault(device, deque())
        kept.append((now, sample))
        while now - kept[0][0] > KEPT:
            kept.popleft()

    def users(self, device: Device) -> list[User]:
        """Who uses a device: those of runs first, and of each the most memory first."""
        mine = [d for d in self.readings.devices if d.vendor != "cpu"] if device is TOGETHER else [device]
        return described(merged(p for d in mine for p in self.readings.processes(d)))


class Frozen(View):
    """A Watch as it was at one moment, for as long as one looks at it. users: those that are known already."""

    def __init__(self, watch: Watch, now: float, users: dict[Device, list[User]]):
        self.clock, self.devices, self.said = lambda: now, list(watch.devices), list(watch.said)
        self.history = {device: list(kept) for device, kept in watch.history.items()}
        self._users = {d: users[d] if d in users else watch.users(d) for d in self.devices}

    def users(self, device: Device) -> list[User]:
        return self._users[device]


def head(users: list[User], most: int) -> list[User]:
    """Return those of runs, however many, and the first `most` of the others."""
    others = [u for u in users if u.run is None][:most]
    return [*(u for u in users if u.run is not None), *others]


def merged(processes: Iterable[Process]) -> list[Process]:
    """One of each pid, of all that it has on several devices; None where that is not told of each."""
    found: dict[int, Process] = {}
    for p in processes:
        before = found.get(p.pid)
        found[p.pid] = (
            p
            if before is None
            else Process(p.pid, add(before.memory, p.memory), add(before.utilization, p.utilization))
        )
    return list(found.values())


def add(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def together(samples: list[Sample]) -> Sample:
    """Several GPUs as one: the mean of what is a share, the sum of what adds up, the highest temperature; None where
    one of them does not say it."""
    ways = dict.fromkeys(("memory_used", "power", "energy", "pcie_tx", "pcie_rx", "nvlink_tx", "nvlink_rx"), sum)
    ways |= {"utilization": lambda values: sum(values) / len(values)}
    ways |= dict.fromkeys(("temperature", "hotspot", "memory_temperature"), max)
    columns = {name: [getattr(s, name) for s in samples] for name in ways}
    return Sample(**{name: ways[name](values) for name, values in columns.items() if None not in values})
