"""What the kernel's DRM drivers share: cards under /sys/class/drm, sensors under hwmon, and what each process uses.

Sources: Documentation/gpu/drm-usage-stats.rst (fdinfo) and Documentation/hwmon/sysfs-interface.rst (units of sensors)
of the Linux kernel. A file that is not there, cannot be read or is no number is None: drivers and kernels differ in
what they have.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lib.monitor.base import MIB, Process, Rates

GENERATION = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}  # of PCIe, by GT/s
UNITS = {"": 1, "B": 1, "KiB": 1024, "MiB": MIB}


class Root:
    """Where /sys and /proc are: other trees in tests."""

    def __init__(self, root: str | Path = "/"):
        self.sys, self.proc = Path(root) / "sys", Path(root) / "proc"

    def cards(self, vendor: str) -> list[Path]:
        """Device directories of the cards with this PCI vendor ("0x1002"), in the order of their numbers."""
        found = [p for p in (self.sys / "class" / "drm").glob("card*") if re.fullmatch(r"card\d+", p.name)]
        found.sort(key=lambda p: int(p.name[4:]))
        return [p / "device" for p in found if text(p / "device" / "vendor") == vendor]

    def clients(self, pid: int, slot: str) -> Iterator[dict[str, str]]:
        """The fdinfo of each of a process's clients of the card in this PCI slot, once: one client may have several
        descriptors."""
        seen = set()
        for path in listed(self.proc / str(pid) / "fdinfo"):
            if not of_drm(path):
                continue
            found = dict(re.findall(r"^(drm-[^:]+):\s*(.*?)\s*$", text(path) or "", re.MULTILINE))
            if found.get("drm-pdev") == slot and found.get("drm-client-id") not in seen:
                seen.add(found.get("drm-client-id"))
                yield found

    def memory(self, pids: set[int], slot: str, regions: str) -> float | None:
        """MiB that processes hold in the regions of a card whose names match; None where no client says so."""
        found, seen = [], set()
        for client in (c for pid in pids for c in self.clients(pid, slot)):
            number = client.get("drm-client-id")
            if number is None or number not in seen:  # a fork has its parent's clients
                seen.add(number)
                found.append(holds(client, regions))
        known = [size for size in found if size is not None]
        return sum(known) / MIB if known else None

    def processes(self, slot: str, regions: list[str], rates: Rates, now: float) -> list[Process]:
        """All processes that use the card in this slot, with their memory in the first of the regions where they have
        any; a process is as busy as its busiest kind of engine."""
        found = []
        for pid in (int(p.name) for p in listed(self.proc) if p.name.isdecimal()):
            clients = list(self.clients(pid, slot))
            if not clients:
                continue
            sizes = [[s for s in (holds(client, where) for client in clients) if s is not None] for where in regions]
            held = next((sum(s) for s in sizes if sum(s)), None)
            spent: dict[str, int] = {}  # engine -> nanoseconds
            for key, value in (item for client in clients for item in client.items()):
                if key.startswith("drm-engine-") and not key.startswith("drm-engine-capacity-"):
                    spent[key] = spent.get(key, 0) + nanoseconds(value)
            gains = [rates.of((slot, pid, engine), ns * 1e-7, now) for engine, ns in spent.items()]  # percent
            busy = max((g for g in gains if g is not None), default=None)
            found.append(Process(pid, held and held / MIB, busy))
        return found


def of_drm(path: Path) -> bool:
    """Whether the descriptor of this fdinfo is a device of DRM: cheaper to ask than to read them all."""
    try:
        return str((path.parent.with_name("fd") / path.name).readlink()).startswith("/dev/dri/")
    except OSError:
        return True


def holds(client: dict[str, str], regions: str) -> int | None:
    """Bytes that a client has in the regions of this pattern. `resident` is what is there now; older drivers give
    `memory`, with the same meaning."""
    for kind in ("drm-resident-", "drm-memory-"):
        found = [size(value) for key, value in client.items() if re.fullmatch(kind + regions, key)]
        if found:
            return sum(found)
    return None


def nanoseconds(value: str) -> int:
    m = re.match(r"\d+", value)
    return int(m[0]) if m else 0


def listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # the process has ended, or is not ours to look at
        return []


def text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def number(path: Path, scale: float = 1.0) -> float | None:
    """The number in a file times `scale`."""
    try:
        return float((text(path) or "").split()[0]) * scale
    except (IndexError, ValueError):
        return None


def size(value: str) -> int:
    """Bytes of an fdinfo value such as "12 KiB"; 0 of what is none."""
    m = re.fullmatch(r"(\d+)\s*(\w*)", value)
    return int(m[1]) * UNITS.get(m[2], 0) if m else 0


def slot(device: Path) -> str | None:
    """The PCI slot of a device directory ("0000:03:00.0")."""
    m = re.search(r"^PCI_SLOT_NAME=(.+)$", text(device / "uevent") or "", re.MULTILINE)
    return m[1] if m else None


def link(device: Path) -> str | None:
    """The fastest its slot and itself can do, as "PCIe 4 x16"."""
    speed, width = number(device / "max_link_speed"), number(device / "max_link_width")
    return f"PCIe {GENERATION[speed]} x{width:.0f}" if speed in GENERATION and width else None


def sensor(device: Path, *names: str, scale: float) -> float | None:
    """The first of these hwmon files that there is, times `scale`: degrees are thousandths, power millionths of a
    watt, energy millionths of a joule."""
    return first(number(h / n, scale) for n in names for h in sorted((device / "hwmon").glob("hwmon*")))


def labelled(device: Path, label: str) -> float | None:
    """Degrees of the hwmon temperature with this label."""
    for path in sorted((device / "hwmon").glob("hwmon*/temp*_label")):
        if text(path) == label:
            return number(path.with_name(path.name.replace("_label", "_input")), 1e-3)
    return None


def first(values: Iterator[float | None]) -> float | None:
    return next((v for v in values if v is not None), None)
