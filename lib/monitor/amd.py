"""AMD GPUs through the amdgpu driver's files: no ROCm is needed.

Source: Documentation/gpu/amdgpu/ and drivers/gpu/drm/amd/pm/amdgpu_pm.c (kernel doc) of the Linux kernel. What goes
over PCIe is not read: the driver counts it anew for each reader of pcie_bw, and keeps the reader waiting for a second.
"""

import re
import time
from pathlib import Path

from lib.monitor.base import BACKENDS, MIB, Device, Process, Rates, Sample
from lib.monitor.drm import Root, labelled, link, number, sensor, slot, text

VENDOR = "0x1002"
VRAM = r"vram\d*"


class Amd:
    vendor = "amd"

    def __init__(self, root: Root | None = None, clock=time.monotonic):
        self.root, self.clock, self.rates = root or Root(), clock, Rates()

    def probe(self) -> bool:
        return bool(self._cards())

    def _cards(self) -> list[Path]:
        """Those with memory of their own to report: another driver's file of the name is not there."""
        return [c for c in self.root.cards(VENDOR) if (c / "mem_info_vram_total").exists()]

    def _card(self, device: Device) -> Path | None:
        """By its slot: when a card goes away, the numbers of the others change."""
        return next((c for c in self._cards() if slot(c) == device.bus), None)

    def devices(self) -> list[Device]:
        return [
            Device(
                "amd",
                i,
                text(c / "product_name") or f"AMD {text(c / 'device') or 'GPU'}",
                text(c / "unique_id") or slot(c),
                number(c / "mem_info_vram_total", 1 / MIB),
                power_limit=sensor(c, "power1_cap", scale=1e-6),
                bus=slot(c),
                link=link(c),
            )
            for i, c in enumerate(self._cards())
        ]

    def sample(self, device: Device, pids: set[int]) -> Sample:
        c = self._card(device)
        if c is None:  # it has gone
            return Sample()
        return Sample(
            utilization=number(c / "gpu_busy_percent"),
            memory_used=number(c / "mem_info_vram_used", 1 / MIB),
            process_memory=self.root.memory(pids, slot(c) or "", VRAM),
            temperature=labelled(c, "edge") or sensor(c, "temp1_input", scale=1e-3),
            power=sensor(c, "power1_average", "power1_input", scale=1e-6),
            fan=fan(c),
            clock=active(c / "pp_dpm_sclk"),
            memory_clock=active(c / "pp_dpm_mclk"),
            hotspot=labelled(c, "junction"),
            memory_temperature=labelled(c, "mem"),
        )

    def processes(self, device: Device) -> list[Process]:
        return self.root.processes(device.bus or "", [VRAM], self.rates, self.clock())


def fan(card: Path) -> float | None:
    """Percent of full speed."""
    now, most = sensor(card, "pwm1", scale=1), sensor(card, "pwm1_max", scale=1) or 255
    return None if now is None else 100 * now / most


def active(path: Path) -> float | None:
    """MHz of the level with the star, as in "1: 1800Mhz *"."""
    m = re.search(r":\s*(\d+)\s*mhz\s*\*", text(path) or "", re.IGNORECASE)
    return float(m[1]) if m else None


BACKENDS.add("amd", Amd())
