"""The sampler: a process beside a run that writes monitor.jsonl, append-only, whatever happens to the run.

    python -m lib.monitor.sampler --pid PID... --out FILE --interval 1.0

The first line is a header: devices, totals, start, names of the readings. Then one line a sample: t, seconds since
the start on a monotonic clock; phase, the run's last mark; devices, in the header's order, each its readings in the
order of the names, null where there is none. A device that appears later gets a line {"t", "appeared"}, and its
readings follow those of the others from then on. A line after a disk was full has `lost`, how many before it are not
there.

Marks arrive on standard input, a word a line, and take a sample at once, as far as Pace allows, so that a run of two
seconds has its training in the record too. End of input is the end of the run: one last sample, then exit.
"""

import argparse
import os
import select
import signal
import sys
import time

from lib.monitor.source import Readings, Tree
from lib.monitor.stats import Writer

EXTRA = 0.1  # samples beyond one an interval, as a share of these, in runs over SHORT
SHORT = 60.0  # seconds


class Pace:
    """When to sample: every `interval` seconds, and at marks. A short run has a sample at nearly all of them; what
    marks took beyond the share EXTRA by then is paid back, by longer intervals, before SHORT is over."""

    def __init__(self, interval: float):
        self.interval, self.taken, self.last = interval, 0, -interval

    def ahead(self, t: float) -> bool:
        """Whether one more sample at t would be beyond what there may be."""
        most = SHORT / 4 / self.interval  # what every other sample of SHORT's second half can pay back
        loan = min(40, most) * min(1.0, max(0.0, 2 - 2 * t / SHORT))
        return self.taken + 1 > 1 + (1 + EXTRA) * t / self.interval + loan

    def took(self, t: float) -> None:
        self.taken, self.last = self.taken + 1, t

    def due(self) -> float:
        """When the next sample comes if there is no mark."""
        usual = self.last + self.interval
        return usual + self.interval if self.ahead(usual) else usual


class Sampler:
    """Reads the devices and writes what they say; `phase` is the run's last mark."""

    def __init__(self, pids: list[int], writer: Writer, interval: float, clock=time.monotonic):
        self.clock, self.start = clock, clock()
        self.readings, self.tree, self.writer = Readings(), Tree(pids), writer
        self.pace, self.phase, self.ended = Pace(interval), "start", False
        header = {"pid": pids[0], "interval_s": interval, "started": time.time()}
        writer.header(self.readings.devices, **header)

    def now(self) -> float:
        return self.clock() - self.start

    def sample(self) -> None:
        now = self.now()
        for device in self.readings.refresh(now):
            self.writer.appeared(now, device)
        self.pace.took(now)
        own = self.tree.pids()
        self.ended = not own
        self.writer.sample(now, self.phase, self.readings.of(own))

    def mark(self, phase: str) -> None:
        self.phase = phase
        if not self.pace.ahead(self.now()):
            self.sample()

    def run(self, marks: int) -> None:
        """Until the descriptor `marks` has no more to read, or the run has ended without closing it (a process that it
        forked may still hold it)."""
        buffer = b""
        while not self.ended:
            wait = max(0.0, self.pace.due() - self.now())
            if select.select([marks], [], [], wait)[0]:
                chunk = os.read(marks, 4096)
                if not chunk:
                    break
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    self.mark(line.decode(errors="replace").strip())
            else:
                self.sample()
        self.phase = "end"
        self.sample()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the run's to handle; its end ends this process
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pid", type=int, nargs="+", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--interval", type=float, default=1.0)
    args = parser.parse_args()
    try:
        with Writer(args.out) as writer:
            Sampler(args.pid, writer, args.interval).run(sys.stdin.fileno())
    except OSError as e:
        sys.exit(f"monitor: no samples of this run: {e}")


if __name__ == "__main__":
    main()
