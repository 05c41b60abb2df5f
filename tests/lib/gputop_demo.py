"""Machines that are not there, for tests and the screenshot of the live view: what devices say follows the clock, so
that a view can be shown with an hour of history in no time.

    python tests/lib/gputop_demo.py [two|none|mixed] [--people]     the live view of such a machine
"""

import math
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent.parent), str(Path(__file__).parent)]

from lib.gputop.watch import Watch  # noqa: E402
from lib.monitor.base import Device, Process, Sample  # noqa: E402
from lib.monitor.source import Readings  # noqa: E402
from lib.monitor.users import User  # noqa: E402

GIB = 1024
A100 = Device("nvidia", 0, "NVIDIA A100-SXM4-80GB", "GPU-0", 80 * GIB, 400.0, 8.0, "0000:07:00.0", "PCIe 4 x16", 12)
SECOND = Device("nvidia", 1, "NVIDIA A100-SXM4-80GB", "GPU-1", 80 * GIB, 400.0, 8.0, "0000:0f:00.0", "PCIe 4 x16", 12)
W7900 = Device("amd", 0, "Radeon PRO W7900", "a", 48 * GIB, 241.0, None, "0000:03:00.0", "PCIe 4 x16")
ARC = Device("intel", 0, "Intel Arc A770", "i", 16 * GIB, 190.0, None, "0000:04:00.0", "PCIe 4 x16")
HOST = Device("cpu", 0, "AMD EPYC 7763 64-Core Processor, 128 threads", None, 512 * GIB)
MACHINES = {"two": [A100, SECOND, HOST], "none": [], "mixed": [A100, W7900, ARC, HOST]}


class Clock:
    """Seconds, by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """One vendor's devices, busy in waves."""

    def __init__(self, vendor: str, devices: list[Device], clock):
        self.vendor, self.there, self.clock = vendor, [d for d in devices if d.vendor == vendor], clock

    def probe(self):
        return bool(self.there)

    def devices(self):
        return list(self.there)

    def sample(self, device, pids):
        if device not in self.there:
            return Sample()
        t = self.clock() + 7 * device.index
        wave = 0.5 + 0.5 * math.sin(t / 6)
        busy = 97 if t % 40 < 28 else 12
        if device.vendor == "cpu":
            return Sample(31 + 9 * wave, 61 * GIB, None, 58 + 4 * wave, None, None, 2450)
        gpu = Sample(
            busy,
            31 * GIB + 2 * GIB * wave,
            None,
            52 + busy / 5 + wave,
            70 + 1.1 * busy,
            None,
            1410,
            1593,
            1e6 + 350 * t,
        )
        if device.vendor == "nvidia":
            return Sample(**{**vars(gpu), "memory_temperature": 61.0, "pcie_tx": 112.0, "pcie_rx": 840 * wave + 60})
        return Sample(**{**vars(gpu), "memory_used": 9 * GIB, "hotspot": 74.0, "fan": 38.0, "energy": None})

    def processes(self, device):
        return [Process(4242, 21.5 * GIB, 96.0), Process(4243, 900.0, 1.0)] if device in self.there[:1] else []


def watch(machine: str, clock=None) -> Watch:
    clock = clock or Clock()
    vendors = ("nvidia", "amd", "intel", "cpu")
    readings = Readings([Backend(v, MACHINES[machine], clock) for v in vendors], say=lambda what: None)
    return Watch(readings, clock)


def lived(machine: str, seconds: int = 60) -> Watch:
    """A Watch with so many seconds of history."""
    found = watch(machine)
    for _ in range(seconds):
        found.clock.now += 1.0
        found.tick()
    return found


def people(processes: list[Process]) -> list[User]:
    """Many users in the place of the few that use the first device; two are of runs."""
    found = []
    for i in range(40 if processes else 0):
        run = {7: "gpt2_adamwprune_bitter7_state_50", 30: "gpt2_adamw_movement_50"}.get(i)
        name = "python" if run else f"program{i}"
        command = f"python gpt2/train.py --run results/{run}" if run else f"/usr/bin/{name} --password=secret{i}"
        found.append(User(1000 + i, 4000.0 - 100 * i, float(i * 7 % 40), "ada" if i % 2 else "bob", name, command, run))
    return found


if __name__ == "__main__":
    import lib.gputop.watch
    from lib.gputop.tui import Gputop

    if "--people" in sys.argv:
        lib.gputop.watch.described = people
    Gputop(lived((sys.argv[1:] or ["mixed"])[0])).run()
