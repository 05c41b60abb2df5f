"""Intel GPUs through the files of the i915 and xe drivers.

Sources: Documentation/gpu/i915.rst, Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon and
drivers/gpu/drm/xe/xe_gt_idle.c (kernel doc) of the Linux kernel. Neither driver counts how busy a card is, but both
count how long it slept: the rest is the utilization. Power is what its energy counter gains.
"""

import time
from pathlib import Path

from lib.monitor.base import BACKENDS, Device, Sample
from lib.monitor.drm import Root, first, number, sensor, slot, text

VENDOR = "0x8086"
OWN, SHARED = r"(local|vram)\d*", r"(system|gtt)\d*"  # memory of the card; of the host, where the card has none
ASLEEP = ("gt/gt0/rc6_residency_ms", "device/tile0/gt0/gtidle/idle_residency_ms")
CLOCK = ("gt/gt0/rps_act_freq_mhz", "gt_act_freq_mhz", "device/tile0/gt0/freq0/act_freq")


class Intel:
    vendor = "intel"

    def __init__(self, root: Root | None = None, clock=time.monotonic):
        self.root, self.clock, self.last = root or Root(), clock, {}

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
            )
            for i, c in enumerate(self._cards())
        ]

    def sample(self, device: Device, pids: set[int]) -> Sample:
        cards = self._cards()
        if device.index >= len(cards):
            return Sample()
        c, at = cards[device.index], slot(cards[device.index]) or ""
        now = self.clock()
        asleep = self._gain(c, "asleep", first(number(c.parent / name, 1e-3) for name in ASLEEP), now)
        energy = sensor(c, "energy1_input", "energy2_input", scale=1e-6)
        own = self.root.memory(pids, at, OWN)
        return Sample(
            utilization=None if asleep is None else 100 * min(1.0, max(0.0, 1 - asleep)),
            process_memory=self.root.memory(pids, at, SHARED) if own is None else own,
            temperature=sensor(c, "temp1_input", "temp2_input", scale=1e-3),
            power=self._gain(c, "energy", energy, now),
            clock=first(number(c.parent / name) for name in CLOCK),
            energy=energy,
        )

    def _gain(self, card: Path, what: str, value: float | None, now: float) -> float | None:
        """What a counter has gained a second since it was asked last; None the first time, and where it began anew."""
        before, self.last[card, what] = self.last.get((card, what)), (value, now)
        if value is None or before is None or before[0] is None or now <= before[1] or value < before[0]:
            return None
        return (value - before[0]) / (now - before[1])


BACKENDS.add("intel", Intel())
