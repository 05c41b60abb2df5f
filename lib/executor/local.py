"""Runs on this machine, one after the other, as forks of a process that has imported what they need."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

from lib import ROOT, child_environment
from lib.executor.base import EXECUTORS, Job, Status

GRACE_S = 20.0  # what an interrupted run has to put its papers in order


class Local:
    def __init__(self, imports=(), poll=lambda job: None, interval: float = 0.1):
        self.imports, self.poll, self.interval = imports, poll, interval
        self.interrupted = False

    def run(self, jobs):
        if not jobs:
            return
        before = signal.getsignal(signal.SIGINT)
        here = threading.current_thread() is threading.main_thread()
        if here:
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield from self._run(jobs)
        finally:
            if here:
                signal.signal(signal.SIGINT, before)

    def _interrupt(self, number, frame) -> None:
        """Noted, too: where it is raised inside of a finalizer Python prints it and goes on."""
        self.interrupted = True
        raise KeyboardInterrupt

    def _run(self, jobs):
        # A session of its own: Ctrl-C reaches this process alone, which then interrupts the run in its own way.
        parent = subprocess.Popen(
            [sys.executable, "-m", "lib.executor.preload", *self.imports],
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            for job in jobs:
                yield job, self._one(parent, job)
        finally:
            parent.stdin.close()
            parent.wait()

    def _one(self, parent: subprocess.Popen, job: Job) -> Status:
        request = {"argv": list(job.argv), "cwd": str(job.run_dir), "log": str(job.run_dir / "output.log")}
        pid = None
        try:
            parent.stdin.write(json.dumps(request).encode() + b"\n")
            parent.stdin.flush()
            pid = self._read(parent, job, 0)["pid"]
            deadline = time.monotonic() + job.timeout_s if job.timeout_s else 0
            answer = self._read(parent, job, deadline)
            if answer is None:
                self._stop(parent, pid)
                return Status("timeout")
            return Status("done" if answer["code"] == 0 else "failed", answer["code"])
        except (BrokenPipeError, EOFError):
            return Status("failed", parent.poll())
        except BaseException:
            if pid is not None:
                self._stop(parent, pid)
            raise

    def _read(self, parent, job, deadline) -> dict | None:
        """The next answer; None when the deadline (0: none) has passed first."""
        while not select.select([parent.stdout], [], [], self.interval)[0]:
            self.poll(job)
            if self.interrupted:
                raise KeyboardInterrupt
            if deadline and time.monotonic() > deadline:
                return None
        line = parent.stdout.readline()
        if not line:
            raise EOFError
        return json.loads(line)

    def _stop(self, parent, pid: int) -> None:
        """Interrupt a run and its descendants; kill what is left after the grace."""
        for kind, patience in ((signal.SIGINT, GRACE_S), (signal.SIGKILL, 5.0)):
            try:
                os.killpg(pid, kind)
            except ProcessLookupError:
                pass
            if select.select([parent.stdout], [], [], patience)[0]:
                parent.stdout.readline()
                return


EXECUTORS.add("local", Local)
