"""Intel GPUs through the files of the i915 and xe drivers.

Sources: Documentation/gpu/i915.rst, Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon and
drivers/gpu/drm/xe/xe_gt_idle.c (kernel doc) of the Linux kernel. Neither driver counts how busy a card is, but both
count how long it slept: the rest is the utilization. Power is what its energy counter gains.
"""

import time
from pathlib import Path

from lib.monitor.base import BACKENDS, Device, Process, Rates, Sample
from lib.monitor.drm import Root, first, labelled, link, number, sensor, slot, text

VENDOR = "0x8086"
OWN, SHARED = r"(local|vram)\d*", r"(system|gtt)\d*"  # memory of the card; of the host, where the card has none
ASLEEP = ("gt/gt0/rc6_residency_ms", "device/tile0/gt0/gtidle/idle_residency_ms")
CLOCK = ("gt/gt0/rps_act_freq_mhz", "gt_act_freq_mhz", "device/tile0/gt0/freq0/act_freq")


class Intel:
    vendor = "intel"

    def __init__(self, root: Root | None = None, clock=time.monotonic):
        self.root, self.clock, self.rates = root or Root(), clock, Rates()

    def probe(self) -> bool:
        return bool(self._cards())

    def _cards(self) -> list[Path]:
        return [c for c in self.root.cards(VENDOR) if first(number(c.parent / name) for name in CLOCK) is not None]

    def devices(self) -> list[Device]:
        return [
            Device(
                "intel",
                i,
                f"Intel {text(c / 'device') or 'GPU'}",
                slot(c),
                power_limit=sensor(c, "power1_max", "power2_max", scale=1e-6),
                bus=slot(c),
                link=link(c),
            )
            for i, c in enumerate(self._cards())
        ]

    def sample(self, device: Device, pids: set[int]) -> Sample:
        c = next((c for c in self._cards() if slot(c) == device.bus), None)
        if c is None:
            return Sample()
        at, now = device.bus or "", self.clock()
        asleep = self.rates.of((at, "asleep"), first(number(c.parent / name, 1e-3) for name in ASLEEP), now)
        energy = sensor(c, "energy1_input", "energy2_input", scale=1e-6)
        own = self.root.memory(pids, at, OWN)
        return Sample(
            utilization=None if asleep is None else 100 * min(1.0, max(0.0, 1 - asleep)),
            process_memory=own or self.root.memory(pids, at, SHARED),
            temperature=labelled(c, "pkg") or sensor(c, "temp1_input", "temp2_input", scale=1e-3),
            power=self.rates.of((at, "energy"), energy, now),
            fan=None,  # both drivers count revolutions, and none says how many are full speed
            clock=first(number(c.parent / name) for name in CLOCK),
            energy=energy,
            memory_temperature=labelled(c, "vram"),
        )

    def processes(self, device: Device) -> list[Process]:
        return self.root.processes(device.bus or "", [OWN, SHARED], self.rates, self.clock())


BACKENDS.add("intel", Intel())
