"""The host's processors and memory, on every machine.

Energy is RAPL's, of processor packages, where the kernel lets us read it (Documentation/power/powercap/powercap.rst).
"""

import contextlib
import os
import platform
import re
import time
from pathlib import Path

from lib.monitor.base import BACKENDS, MIB, Device, Process, Rates, Sample
from lib.monitor.drm import number, text

LEAST = 0.05  # seconds
SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")  # of the drivers that measure processors


class Cpu:
    vendor = "cpu"

    def __init__(self, root: str | Path = "/", clock=time.monotonic):
        self.root, self.clock, self.rates, self.seen = Path(root), clock, Rates(), {}
        self.counted, self.joules = {}, 0.0
        self.busy, self.asked = None, None

    def probe(self) -> bool:
        try:
            import psutil
        except ImportError:
            return False
        self.psutil = psutil
        return True

    def devices(self) -> list[Device]:
        total = self.psutil.virtual_memory().total / MIB
        return [Device("cpu", 0, self._name(), None, total)]

    def _busy(self, now: float) -> float | None:
        """None the first time, with nothing to compare with. Over less than LEAST the kernel's ticks are too coarse:
        then it is what it was."""
        if self.asked is None or now - self.asked >= LEAST:
            found = self.psutil.cpu_percent()
            self.busy, self.asked = None if self.asked is None else found, now
        return self.busy

    def _name(self) -> str:
        """The model of the first processor, and how many threads there are."""
        m = re.search(r"^model name\s*:\s*(.+)$", text(self.root / "proc/cpuinfo") or "", re.MULTILINE)
        name = " ".join(m[1].split()) if m else platform.processor() or platform.machine() or "processor"
        return f"{name}, {os.cpu_count()} threads"

    def sample(self, device: Device, pids: set[int]) -> Sample:
        memory = self.psutil.virtual_memory()
        frequency = self._reading("cpu_freq")
        energy, now = self._energy(), self.clock()
        return Sample(
            utilization=self._busy(now),
            memory_used=(memory.total - memory.available) / MIB,
            process_memory=self._resident(pids),
            temperature=self._temperature(),
            power=self.rates.of("energy", energy, now),
            clock=(frequency.current or None) if frequency else None,
            energy=energy,
        )

    def _reading(self, name: str):
        """psutil has not every sensor on every system, and raises what the system does."""
        try:
            return getattr(self.psutil, name)()
        except (AttributeError, OSError, NotImplementedError, RuntimeError):
            return None

    def _temperature(self) -> float | None:
        """The hottest of the processor's own sensors."""
        found = self._reading("sensors_temperatures") or {}
        return max((s.current for name in SENSORS for s in found.get(name, ())), default=None)

    def _energy(self) -> float | None:
        """Joules of all packages since the first asking: each counter begins anew at its own range."""
        zones = sorted(self.root.glob("sys/class/powercap/intel-rapl:*"))
        packages = [z for z in zones if (text(z / "name") or "").startswith("package")]
        values = {z: number(z / "energy_uj") for z in packages}
        if not values or None in values.values():
            return None
        for zone, value in values.items():
            before = self.counted.get(zone, value)
            span = number(zone / "max_energy_range_uj") or 0
            self.joules += (value - before if value >= before else value + span - before) * 1e-6
        self.counted = values
        return self.joules

    def _resident(self, pids: set[int]) -> float | None:
        total = 0
        for pid in pids:
            with contextlib.suppress(self.psutil.Error):
                total += self.psutil.Process(pid).memory_info().rss
        return total / MIB if total else None

    def processes(self, device: Device) -> list[Process]:
        found, seen = [], {}
        for p in self.psutil.process_iter():
            with contextlib.suppress(self.psutil.Error):
                before = self.seen.get(p)
                seen[p] = before or p  # it counts from its own last asking
                busy, resident = seen[p].cpu_percent(), seen[p].memory_info().rss
                if resident:  # the kernel's own threads have none
                    found.append(Process(p.pid, resident / MIB, busy if before else None))
        self.seen = seen
        return found


BACKENDS.add("cpu", Cpu())
