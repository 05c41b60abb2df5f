"""NVIDIA GPUs through NVML. Queries that a driver or a permission refuses become None.

Source: nvml.h. A card that is cut in instances (MIG) is listed, and so is each instance: power, fan and temperature
are the card's, memory and processes the instances'.
"""

import time
from dataclasses import replace

from lib.monitor.base import BACKENDS, MIB, Device, Process, Rates, Sample

ALL_LINKS = 0xFFFFFFFF  # the scope of NVLink's counters that adds up all links
EVERY = 1.0  # seconds between two askings for PCIe throughput: one takes 20 ms of waiting
KIND = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal")  # nvmlValueType_t -> member of nvmlValue_t


class Nvidia:
    vendor = "nvidia"

    def __init__(self, clock=time.monotonic):
        self.clock, self.rates, self.handles, self.links = clock, Rates(), {}, {}

    def probe(self) -> bool:
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml = pynvml
            return pynvml.nvmlDeviceGetCount() > 0
        except Exception:  # no library, no driver, no permission: each has its own class, and all mean no device
            return False

    def _ask(self, name: str, *args):
        """None also where the library is older than the query."""
        query = getattr(self.nvml, name, None)
        try:
            return query and query(*args)
        except self.nvml.NVMLError:
            return None

    def _constant(self, name: str) -> int | None:
        return getattr(self.nvml, name, None)

    def _memory_info(self, handle):
        """Used as nvidia-smi counts it: without what the driver keeps for itself, which only version 2 leaves out."""
        second = self._constant("nvmlMemory_v2")
        found = self._ask("nvmlDeviceGetMemoryInfo", handle, second) if second else None
        return found or self._ask("nvmlDeviceGetMemoryInfo", handle)

    def _field(self, handle, name: str, scope: int | None = None) -> float | None:
        wanted = self._constant(name)
        if wanted is None:
            return None
        found = self._ask("nvmlDeviceGetFieldValues", handle, [wanted if scope is None else (wanted, scope)])
        if not found or found[0].nvmlReturn != 0:
            return None
        return float(getattr(found[0].value, KIND[found[0].valueType]))

    def devices(self) -> list[Device]:
        found = []
        for i in range(self._ask("nvmlDeviceGetCount") or 0):
            handle = self._ask("nvmlDeviceGetHandleByIndex", i)
            if handle is not None:
                found += [self._device(handle, i), *self._instances(handle, i)]
        return found

    def _instances(self, card, index: int) -> list[Device]:
        if not (self._ask("nvmlDeviceGetMigMode", card) or [0])[0]:
            return []
        slots = range(self._ask("nvmlDeviceGetMaxMigDeviceCount", card) or 0)
        handles = ((j, self._ask("nvmlDeviceGetMigDeviceHandleByIndex", card, j)) for j in slots)
        return [self._device(handle, index, j) for j, handle in handles if handle is not None]

    def _device(self, handle, index: int, part: int | None = None) -> Device:
        memory = self._memory_info(handle)
        limit = self._ask("nvmlDeviceGetEnforcedPowerLimit", handle) if part is None else None
        capability = self._ask("nvmlDeviceGetCudaComputeCapability", handle)
        bus = self._ask("nvmlDeviceGetPciInfo", handle)
        device = Device(
            "nvidia",
            index,
            word(self._ask("nvmlDeviceGetName", handle)),
            word(self._ask("nvmlDeviceGetUUID", handle)),
            memory.total / MIB if memory else None,
            limit / 1000 if limit is not None else None,
            None if capability is None else float(f"{capability[0]}.{capability[1]}"),
            slot(word(bus.busId)) if bus else None,
            self._link(handle),
            self._nvlinks(handle),
            part,
        )
        self.handles[device.key] = handle
        return device

    def _link(self, handle) -> str | None:
        speed = self._ask("nvmlDeviceGetMaxPcieLinkGeneration", handle)
        width = self._ask("nvmlDeviceGetMaxPcieLinkWidth", handle)
        return f"PCIe {speed} x{width}" if speed and width else None

    def _nvlinks(self, handle) -> int | None:
        states = [
            self._ask("nvmlDeviceGetNvLinkState", handle, i)
            for i in range(self._constant("NVML_NVLINK_MAX_LINKS") or 0)
        ]
        return sum(map(bool, states)) if any(s is not None for s in states) else None

    def sample(self, device: Device, pids: set[int]) -> Sample:
        handle = self.handles.get(device.key)
        if handle is None:
            return Sample()
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle)
        memory = self._memory_info(handle)
        found = Sample(
            utilization=rates.gpu if rates else None,
            memory_used=memory.used / MIB if memory else None,
            process_memory=None if self._cut(device, handle) else self._process(handle, pids),
        )
        return found if device.part is not None else self._whole(device, handle, found)

    def _whole(self, device: Device, handle, of: Sample) -> Sample:
        """What only a whole card has, beside what every device has."""
        n, now = self.nvml, self.clock()
        power = self._ask("nvmlDeviceGetPowerUsage", handle)
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption", handle)
        tx, rx = self._pcie(device.key, handle, now)
        return replace(
            of,
            temperature=self._ask("nvmlDeviceGetTemperature", handle, n.NVML_TEMPERATURE_GPU),
            power=power / 1000 if power is not None else None,
            fan=self._ask("nvmlDeviceGetFanSpeed", handle),
            clock=self._ask("nvmlDeviceGetClockInfo", handle, n.NVML_CLOCK_SM),
            memory_clock=self._ask("nvmlDeviceGetClockInfo", handle, n.NVML_CLOCK_MEM),
            energy=energy / 1000 if energy is not None else None,
            memory_temperature=self._field(handle, "NVML_FI_DEV_MEMORY_TEMP") or None,  # 0 is none
            pcie_tx=tx,
            pcie_rx=rx,
            nvlink_tx=self._nvlink(device, handle, "TX", now),
            nvlink_rx=self._nvlink(device, handle, "RX", now),
        )

    def _cut(self, device: Device, handle) -> bool:
        """Whether its processes are counted on its instances."""
        return device.part is None and bool((self._ask("nvmlDeviceGetMigMode", handle) or [0])[0])

    def _pcie(self, key: str, handle, now: float) -> tuple[float | None, float | None]:
        """MiB/s (sent, received): from counters where the driver has them, else as NVML measures it for 20 ms."""
        counters = [self._field(handle, f"NVML_FI_DEV_PCIE_COUNT_{way}_BYTES") for way in ("TX", "RX")]
        if None not in counters:
            gains = [self.rates.of((key, "pcie", i), c / MIB, now) for i, c in enumerate(counters)]
            return gains[0], gains[1]
        asked, values = self.links.get(key, (None, (None, None)))
        if asked is None or now - asked >= EVERY:
            found = [self._ask("nvmlDeviceGetPcieThroughput", handle, way) for way in (0, 1)]  # KiB/s; TX is 0, RX 1
            values = tuple(None if v is None else v / 1024 for v in found)
            self.links[key] = now, values
        return values

    def _nvlink(self, device: Device, handle, way: str, now: float) -> float | None:
        """MiB/s over all links."""
        if not device.nvlinks:
            return None
        kib = self._field(handle, f"NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_{way}", ALL_LINKS)
        return self.rates.of((device.key, "nvlink", way), None if kib is None else kib / 1024, now)

    def _process(self, handle, pids: set[int]) -> float | None:
        used = [m for pid, m in self._memory(handle) if pid in pids]
        return sum(used) / MIB if used and None not in used else None

    def _memory(self, handle) -> list[tuple[int, int | None]]:
        """(pid, bytes) of every process that computes."""
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        return [(p.pid, p.usedGpuMemory) for p in found or []]

    def processes(self, device: Device) -> list[Process]:
        handle = self.handles.get(device.key)
        if handle is None or self._cut(device, handle):
            return []
        drawing = self._ask("nvmlDeviceGetGraphicsRunningProcesses", handle) or []
        memory = dict([(p.pid, p.usedGpuMemory) for p in drawing] + self._memory(handle))
        since = self.links.get((device.key, "seen"), 0)
        seen = self._ask("nvmlDeviceGetProcessUtilization", handle, since) or []
        self.links[device.key, "seen"] = max([since, *(s.timeStamp for s in seen)])
        busy = {s.pid: float(s.smUtil) for s in sorted(seen, key=lambda s: s.timeStamp) if s.smUtil <= 100}
        return [Process(pid, None if m is None else m / MIB, busy.get(pid)) for pid, m in memory.items()]


def word(found) -> str | None:
    """Older libraries answer in bytes."""
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def slot(bus: str | None) -> str | None:
    """NVML writes a PCI slot with a domain of eight digits and in capitals; the kernel does not."""
    return bus and bus.lower()[-12:]


BACKENDS.add("nvidia", Nvidia())
