"""NVIDIA GPUs through NVML. Queries that a driver or a permission refuses become None."""

from lib.monitor.base import BACKENDS, MIB, Device, Sample


class Nvidia:
    vendor = "nvidia"

    def probe(self) -> bool:
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml = pynvml
            return pynvml.nvmlDeviceGetCount() > 0
        except Exception:  # no library, no driver, no permission: each has its own class, and all mean no device
            return False

    def _ask(self, query, *args):
        try:
            return query(*args)
        except self.nvml.NVMLError:
            return None

    def devices(self) -> list[Device]:
        return [self._device(i) for i in range(self.nvml.nvmlDeviceGetCount())]

    def _device(self, index: int) -> Device:
        n = self.nvml
        handle = n.nvmlDeviceGetHandleByIndex(index)
        memory = self._ask(n.nvmlDeviceGetMemoryInfo, handle)
        total = memory.total / MIB if memory else None
        limit = self._ask(n.nvmlDeviceGetEnforcedPowerLimit, handle)
        capability = self._ask(n.nvmlDeviceGetCudaComputeCapability, handle)
        return Device(
            "nvidia",
            index,
            self._ask(n.nvmlDeviceGetName, handle),
            self._ask(n.nvmlDeviceGetUUID, handle),
            total,
            limit / 1000 if limit is not None else None,
            None if capability is None else float(f"{capability[0]}.{capability[1]}"),
        )

    def sample(self, device: Device, pids: set[int]) -> Sample:
        n = self.nvml
        handle = self._ask(n.nvmlDeviceGetHandleByIndex, device.index)
        if handle is None:
            return Sample()
        rates = self._ask(n.nvmlDeviceGetUtilizationRates, handle)
        memory = self._ask(n.nvmlDeviceGetMemoryInfo, handle)
        power = self._ask(n.nvmlDeviceGetPowerUsage, handle)
        energy = self._ask(n.nvmlDeviceGetTotalEnergyConsumption, handle)
        return Sample(
            utilization=rates.gpu if rates else None,
            memory_used=memory.used / MIB if memory else None,
            process_memory=self._process(handle, pids),
            temperature=self._ask(n.nvmlDeviceGetTemperature, handle, n.NVML_TEMPERATURE_GPU),
            power=power / 1000 if power is not None else None,
            fan=self._ask(n.nvmlDeviceGetFanSpeed, handle),
            clock=self._ask(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM),
            memory_clock=self._ask(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_MEM),
            energy=energy / 1000 if energy is not None else None,
        )

    def _process(self, handle, pids: set[int]) -> float | None:
        found = self._ask(self.nvml.nvmlDeviceGetComputeRunningProcesses, handle)
        used = [p.usedGpuMemory for p in found or [] if p.pid in pids]
        return sum(used) / MIB if used and None not in used else None


BACKENDS.add("nvidia", Nvidia())
