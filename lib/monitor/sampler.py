"""The sampler: a process beside a run that writes monitor.jsonl, append-only, whatever happens to the run.

    python -m lib.monitor.sampler --pid PID... --out FILE --interval 1.0 --start T

The first line is a header: devices, totals, start, names of the readings. Then one line a sample: t, seconds since
T on the machine's monotonic clock; phase, the run's last mark; devices, in the header's order, each its readings in the
order of the names, null where there is none. A device that appears later gets a line {"t", "appeared"}, and its
readings follow those of the others from then on. A line after a disk was full has `lost`, how many before it are not
there.

Marks arrive on standard input, a line each: a word, and when on that clock. The newest takes a sample at once, as far
as Pace allows, so that a run of two seconds has its training in the record too; and each is a line {"t", "phase"} of
its own, up to MARKS a second. End of input is the end of the run: one last sample, then exit.
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
MARKS = 2  # lines a second, over time: 80 bytes


class Pace:
    """When to sample: every `interval` seconds, and at marks. A short run has a sample at nearly all of them; what
    marks took beyond the share EXTRA by then is paid back, by longer intervals, before SHORT is over."""

    def __init__(self, interval: float):
        self.interval, self.taken, self.last, self.written = interval, 0, -interval, 0

    def ahead(self, t: float, new: bool = True) -> bool:
        """Whether one more sample at t would be beyond what there may be. A phase that is not `new` leaves a half of
        the loan to those that are still to come."""
        most = SHORT / 4 / self.interval  # what every other sample of SHORT's second half can pay back
        loan = min(40, most) * min(1.0, max(0.0, 2 - 2 * t / SHORT)) * (1.0 if new else 0.5)
        return self.taken + 1 > 1 + (1 + EXTRA) * t / self.interval + loan

    def writes(self, t: float) -> bool:
        """Whether a mark without a sample gets its line."""
        self.written += self.written < MARKS * (t + SHORT)
        return self.written < MARKS * (t + SHORT)

    def took(self, t: float) -> None:
        self.taken, self.last = self.taken + 1, t

    def due(self) -> float:
        """When the next sample comes if there is no mark."""
        usual = self.last + self.interval
        return usual + self.interval if self.ahead(usual) else usual


class Sampler:
    """Reads the devices and writes what they say; `phase` is the run's last mark."""

    def __init__(self, pids: list[int], writer: Writer, interval: float, start=None, clock=time.monotonic):
        self.clock, self.start = clock, clock() if start is None else start
        self.readings, self.tree, self.writer = Readings(), Tree(pids), writer
        self.pace, self.phase, self.seen, self.ended = Pace(interval), "start", set(), False
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

    def marked(self, lines: list[bytes]) -> None:
        """Marks that have come: each is written down, and of the newest a sample is taken if there may be one."""
        for line in lines:
            phase, _, when = line.decode(errors="replace").partition(" ")
            self.phase, at = phase, float(when) - self.start if when else self.now()
            if self.pace.writes(self.now()):
                self.writer.mark(at, phase)
        if lines and not self.pace.ahead(self.now(), new=self.phase not in self.seen):
            self.seen.add(self.phase)
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
                self.marked(lines)
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
    parser.add_argument("--start", type=float)
    args = parser.parse_args()
    try:
        with Writer(args.out) as writer:
            Sampler(args.pid, writer, args.interval, args.start).run(sys.stdin.fileno())
    except OSError as e:
        sys.exit(f"monitor: no samples of this run: {e}")


if __name__ == "__main__":
    main()
