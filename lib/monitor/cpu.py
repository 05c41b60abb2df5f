"""The host's processors and memory, on every machine."""

import platform

from lib.monitor.base import BACKENDS, MIB, Device, Sample


class Cpu:
    vendor = "cpu"

    def probe(self) -> bool:
        try:
            import psutil
        except ImportError:
            return False
        self.psutil = psutil
        psutil.cpu_percent()  # the first reading has nothing to compare with
        return True

    def devices(self) -> list[Device]:
        return [Device("cpu", 0, platform.machine(), None, self.psutil.virtual_memory().total / MIB)]

    def sample(self, device: Device, pids: set[int]) -> Sample:
        memory = self.psutil.virtual_memory()
        return Sample(
            utilization=self.psutil.cpu_percent(),
            memory_used=(memory.total - memory.available) / MIB,
            process_memory=self._resident(pids),
        )

    def _resident(self, pids: set[int]) -> float | None:
        total = 0
        for pid in pids:
            try:
                total += self.psutil.Process(pid).memory_info().rss
            except self.psutil.Error:
                continue
        return total / MIB if total else None


BACKENDS.add("cpu", Cpu())
