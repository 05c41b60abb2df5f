"""The run's side of the monitor: start the sampler, mark phases, stop it. Never fails a run, and never holds it up."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT
from lib.config import number

PATIENCE_S = 10.0  # that a sampler has for its last sample


@dataclass(frozen=True)
class MonitorOptions:
    monitor: bool = True
    monitor_interval: float = number(1.0, low=0.01)


class Monitor:
    """A context manager; `phase("train")` marks what the run does from now on."""

    def __init__(self, options: MonitorOptions, out: Path, pids: list[int] | None = None):
        """pids: the run's processes; this one alone where none are given."""
        self.options, self.out, self.process = options, out, None
        self.pids = pids or [os.getpid()]

    def __enter__(self):
        if self.options.monitor:
            command = [sys.executable, "-m", "lib.monitor.sampler", "--out", str(self.out)]
            command += ["--interval", str(self.options.monitor_interval), "--start", str(time.monotonic())]
            command += ["--pid", *map(str, self.pids)]
            try:
                self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
                os.set_blocking(self.process.stdin.fileno(), False)
            except OSError as e:
                print(f"monitor: no sampler could be started, the run goes on without: {e}", file=sys.stderr)
        return self

    def phase(self, name: str) -> None:
        """A mark is lost where the sampler does not read any more, as when a driver does not answer it."""
        if self.process and self.process.stdin:
            try:
                os.write(self.process.stdin.fileno(), f"{name} {time.monotonic()}\n".encode())
            except BlockingIOError:
                pass
            except OSError:
                self.process.stdin = None
                print("monitor: the sampler has ended; the run goes on without it", file=sys.stderr)

    def stop(self) -> None:
        """End the sampler after its last sample; harmless when it has ended. One that cannot be stopped, as when a
        driver holds it, is left alone: a run that has finished must not fail by it, nor wait for ever."""
        process, self.process = self.process, None
        if process is None:
            return
        try:
            if process.stdin:
                process.stdin.close()
            wait(process)
        except Exception as e:
            print(f"monitor: the sampler could not be stopped, the run goes on without it: {e}", file=sys.stderr)

    def __exit__(self, *exc):
        self.stop()


def wait(process: subprocess.Popen) -> None:
    """Wait for a process that has been asked to end; kill it after PATIENCE_S seconds. Raises TimeoutExpired where that
    does not end it either."""
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE_S)
