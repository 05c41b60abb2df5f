"""The sampler: a process beside a run that writes monitor.jsonl, append-only, whatever happens to the run.

    python -m lib.monitor.sampler --pid PID... --out FILE --interval 1.0

The first line is a header: devices, totals, start, names of the readings. Then one line a sample: t, seconds since
the start on a monotonic clock; phase, the run's last mark; devices, in the header's order, each its readings in the
order of the names, null where there is none. Marks arrive on standard input, a word a line, and each takes a sample
at once, so that a run of two seconds has its training in the record too. End of input is the end of the run: one last
sample, then exit.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from lib.monitor.base import BACKENDS, Sample
from lib.monitor.stats import SCHEMA

FIELDS = [f.name for f in dataclasses.fields(Sample)]


class Tree:
    """The run's processes and their descendants, but for this sampler."""

    def __init__(self, roots: list[int]):
        import psutil

        self.psutil, self.roots = psutil, roots

    def pids(self) -> set[int]:
        found = set()
        for pid in self.roots:
            with contextlib.suppress(self.psutil.Error):
                found |= {pid, *(c.pid for c in self.psutil.Process(pid).children(recursive=True))}
        return found - {os.getpid()}


class Readings:
    """Samples of all devices; a backend that fails gives none, and says so once."""

    def __init__(self, devices: list):
        self.devices, self.told = devices, set()

    def of(self, pids: set[int]) -> list[list]:
        return [values(self._one(backend, device, pids)) for backend, device in self.devices]

    def _one(self, backend, device, pids):
        try:
            return backend.sample(device, pids)
        except Exception as e:  # whatever a driver does, the samples of the others go on
            if device not in self.told:
                print(f"monitor: {device.vendor} {device.index} gives no readings: {e}", file=sys.stderr, flush=True)
                self.told.add(device)
            return Sample()


def values(sample: Sample) -> list:
    """In the order of FIELDS, rounded to what they are good for; whole numbers without a point."""
    found = (None if v is None else round(v, 1) for v in vars(sample).values())
    return [int(v) if v is not None and v == int(v) else v for v in found]


def run(pids: list[int], out: str, interval: float) -> None:
    backends = [b for b in (BACKENDS[name] for name in BACKENDS) if b.probe()]
    devices = [(b, d) for b in backends for d in b.devices()]
    readings = Readings(devices)
    tree, start, phase = Tree(pids), time.monotonic(), "start"
    with Path(out).open("a", buffering=1) as file:
        header = {"schema": SCHEMA, "fields": FIELDS, "pid": pids[0], "interval_s": interval, "started": time.time()}
        file.write(json.dumps({**header, "devices": [vars(d) for _, d in devices]}) + "\n")

        def sample():
            own = tree.pids()
            line = {"t": round(time.monotonic() - start, 3), "phase": phase, "devices": readings.of(own)}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")

        due, buffer = time.monotonic(), b""
        while True:
            wait = max(0.0, due - time.monotonic())
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], wait)
            if ready:
                chunk = os.read(sys.stdin.fileno(), 4096)
                if not chunk:
                    break
                *marks, buffer = (buffer + chunk).split(b"\n")
                for mark in marks:
                    phase = mark.decode(errors="replace").strip()
                    sample()
            else:
                sample()
                due = time.monotonic() + interval
        phase = "end"
        sample()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the run's to handle; its end ends this process
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pid", type=int, nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--interval", type=float, default=1.0)
    args = parser.parse_args()
    run(args.pid, args.out, args.interval)


if __name__ == "__main__":
    main()
