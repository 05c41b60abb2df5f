"""A process that imports once and forks for every job: `python -m lib.executor.preload MODULE...`

Importing torch takes seconds, a fork of a process that has imported it a fraction of one. Nothing here runs a tensor
operation, which would start threads that do not survive a fork; a forked run's numbers are bitwise those of a fresh
interpreter. Requests come as JSON lines on standard input ({"argv", "cwd", "log"}), one at a time; answers go out the
same way: {"pid"} when the job has started, {"code"} when it has ended. End of input stops the job that runs, and this
process; a job that was asked for before it is not started any more.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import sys
import traceback

GRACE_S = 20.0  # what an interrupted job has to put its papers in order


def child(request: dict) -> int:
    """The job itself, with its output in its log."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["cwd"])
    sys.argv = request["argv"]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # one that came since the fork arrives now
        runpy.run_path(request["argv"][0], run_name="__main__")
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
            return 1
        return e.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def start(request: dict) -> tuple[int, int]:
    """Fork; the child's pid, which is its process group, and a descriptor that reads as ended when the child has."""
    alive, held = os.pipe()
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # both do it, so that neither can be too early
            os.setpgid(pid, pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.close(held)
        return pid, alive
    os.close(alive)
    code = 1
    try:
        os.setpgid(0, 0)
        code = child(request)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def stop(pid: int, alive: int) -> None:
    """The asker is gone: interrupt the job, so that its files are whole; kill it if it does not end."""
    for kind in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, kind)
        if select.select([alive], [], [], GRACE_S)[0]:
            return


def answer(what: dict) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(what).encode() + b"\n")


def main(modules: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in modules:
        with contextlib.suppress(ImportError):  # a run that needs it will say so in its own log
            importlib.import_module(module)
    while line := sys.stdin.readline():
        # Requests come one at a time, so all that can be there to read before the answer is the end of input.
        if select.select([sys.stdin.fileno()], [], [], 0)[0]:
            return
        pid, alive = start(json.loads(line))
        answer({"pid": pid})
        ready, _, _ = select.select([alive, sys.stdin.fileno()], [], [])
        if alive not in ready:
            stop(pid, alive)
        _, status = os.waitpid(pid, 0)
        os.close(alive)
        answer({"code": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main(sys.argv[1:])
