"""What is there to sample: the devices of every vendor, and a run's processes."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from lib.monitor.base import BACKENDS, Device, Process, Sample

REFRESH = 30.0  # seconds between two looks for new devices


class Tree:
    """A run's processes and their descendants, but for this one."""

    def __init__(self, roots: list[int]):
        import psutil

        self.psutil, self.roots = psutil, []
        for pid in roots:
            with contextlib.suppress(psutil.Error):
                self.roots.append(psutil.Process(pid))  # knows its start, so that the pid's next owner is another
        me = Path(f"/proc/self/task/{os.getpid()}/children")
        self.below = self._listed if me.exists() else self._searched

    def pids(self) -> set[int]:
        """Empty when the run has ended."""
        found = set()
        for root in filter(self._alive, self.roots):
            found |= {root.pid, *self.below(root.pid)}
        return found - {os.getpid()}

    def _alive(self, root) -> bool:
        try:
            return root.is_running() and root.status() != self.psutil.STATUS_ZOMBIE
        except self.psutil.Error:
            return False

    def _listed(self, pid: int) -> set[int]:
        """From the kernel's own lists: psutil would read every process of the machine."""
        found, todo = set(), [pid]
        while todo:
            for path in Path(f"/proc/{todo.pop()}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # it has just ended
                    new = {int(p) for p in path.read_text().split()} - found
                    found |= new
                    todo += new
        return found

    def _searched(self, pid: int) -> set[int]:
        with contextlib.suppress(self.psutil.Error):
            return {c.pid for c in self.psutil.Process(pid).children(recursive=True)}
        return set()


def aloud(what: str) -> None:
    """On standard error; a log on a full disk takes no more."""
    with contextlib.suppress(OSError):
        print(f"monitor: {what}", file=sys.stderr, flush=True)


class Readings:
    """Samples of all devices of all vendors. A backend that fails gives none, and that is said once."""

    def __init__(self, backends: list | None = None, say: Callable[[str], None] = aloud):
        self.backends = [BACKENDS[name] for name in BACKENDS] if backends is None else backends
        self.found, self.told, self.looked, self.up, self.say = [], set(), 0.0, set(), say
        self._look()

    @property
    def devices(self) -> list[Device]:
        return [device for _, device in self.found]

    def refresh(self, now: float) -> list[Device]:
        """Devices that have appeared; asked at most every REFRESH seconds."""
        if now - self.looked < REFRESH:
            return []
        self.looked = now
        return self._look()

    def _look(self) -> list[Device]:
        known, new = {d.key for d in self.devices}, []
        for backend in self.backends:
            try:
                if backend.vendor in self.up or backend.probe():
                    self.up.add(backend.vendor)
                    new += [(backend, d) for d in backend.devices() if d.key not in known]
            except Exception as e:  # whatever a driver does, the others go on
                self._tell(backend.vendor, f"{backend.vendor}: no devices: {e}")
        self.found += new
        return [device for _, device in new]

    def of(self, pids: set[int]) -> list[Sample]:
        return [self._one(backend, device, pids) for backend, device in self.found]

    def processes(self, device: Device) -> list[Process]:
        backend = next(b for b, d in self.found if d is device)
        try:
            return backend.processes(device)
        except Exception as e:
            self._tell(device, f"{device.id} does not tell its processes: {e}")
            return []

    def _one(self, backend, device: Device, pids: set[int]) -> Sample:
        try:
            found = backend.sample(device, pids)
        except Exception as e:
            self._tell(device, f"{device.id} gives no readings: {e}")
            return Sample()
        if found == Sample():
            self._tell(device, f"{device.id} gives no readings: it has gone, or may not be read")
        return found

    def _tell(self, who, what: str) -> None:
        if who not in self.told:
            self.told.add(who)
            self.say(what)
