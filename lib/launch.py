"""One run in several processes: torchrun starts them, and each comes back to the same train.py with its place."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import NoReturn

from lib import ROOT, child_environment
from lib.config import Config
from lib.hyper import Training
from lib.rundir import RunDir
from lib.spec import RunSpec

STARTED = "LOCAL_WORLD_SIZE"  # what torchrun tells the processes that it starts
INTERRUPTED = threading.Event()
GRACE_S = 15.0  # what interrupted processes have to put their papers in order


def started() -> int:
    """Processes that torchrun has started, this one among them; 1 without torchrun."""
    return int(os.environ.get(STARTED, 1))


def devices(config: Config) -> int:
    """Processes that are still to be started for a run: 0 where this is one of them, or the only one."""
    wanted = config.read(Training).ddp_num_gpus
    return 0 if wanted == 1 or STARTED in os.environ else wanted


def follow(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however it does: torchrun's processes are in
    sessions of their own, where no signal to a group reaches them. Where there is no prctl, nothing happens."""
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def listen() -> None:
    """Have SIGTERM interrupt a run, whatever it was started by: a shell has what it starts in the background ignore
    SIGINT, and that is inherited. To one of several processes torchrun says by SIGTERM that another has failed: that
    ends it, since while it waits for that one no handler is called; and an interrupt comes as SIGINT."""
    several = started() > 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL if several else interrupt)
    if several:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(number, frame) -> NoReturn:
    """Noted, too: of several processes one that has ended by it may reach the next as a lost connection first."""
    INTERRUPTED.set()
    raise KeyboardInterrupt


def end_process(code: int) -> NoReturn:
    """End at once: an orderly end takes down the process group first, which waits for processes that wait for this one.
    Theirs is a lost connection then, and torchrun ends those that do not notice."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def together(run: RunDir, spec: RunSpec, count: int) -> int:
    """Run it in `count` processes; the exit status of train.py. An interrupt reaches them all, and is waited out."""
    train = str(ROOT / spec.model / "train.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    env = {"OMP_NUM_THREADS": "1", **child_environment()}  # each process takes its share of NUM_THREADS later
    process = subprocess.Popen(
        [*command, "--", train, "--run", str(run.path)], env=env, preexec_fn=lambda: follow(signal.SIGTERM)
    )
    try:
        code = process.wait()
        # torchrun has one status for all that fails; bad input is what has no traceback.
        bad_input = code and run.error.exists() and not run.error.read_text().startswith("Traceback")
        return 2 if bad_input else code
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
