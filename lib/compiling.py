"""Whether torch.compile can be had on this machine: tried before runs, in a process of its own. No torch here.

Two forms are compiled: the Adam family's `update` (UPDATE_COMPILED) and the `model`'s training step (COMPILE_YES).
Runs are started on a trial of now, since not all that compiling depends on can be seen (a full disk, a package of the
system that is gone). The last trial is remembered for plans, as long as the facts that can be seen are the same:
versions, device, compilers, Python's headers, the folder that compiled code goes to, and our own code.
"""

import contextlib
import getpass
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from lib import ROOT, child_environment, provenance
from lib.cache import cache_folder, read_cache, write_cache
from lib.config import write_atomic
from lib.monitor.base import BACKENDS

PATIENCE_S = 600.0  # for each form; on a busy core half a minute each was seen
FAILED_FOR_S = 86400.0  # after which a plan takes a failure for unknown, for its cause may be one that no fact tells
KIND = "compile"
CODE = ("lib/compile_probe.py", "lib/optim/kernel/*.py")
SETTINGS = re.compile(r"TORCH|TRITON|CUDA_HOME|CUDA_PATH|LD_LIBRARY_PATH|CPATH|C.*_INCLUDE_PATH|TMPDIR|OMP_PREFIX")


tried: dict[str, dict] = {}  # facts -> form -> entry, of this process: each is tried once, and a cache may be read-only


@dataclass(frozen=True)
class Trial:
    """What came of trying to compile a form. reason: one line, None where it works. log: the file with the traceback,
    where it was written."""

    reason: str | None = None
    log: str | None = None

    @property
    def works(self) -> bool:
        return self.reason is None


def known_trials(forms: Iterable[str], device: str) -> dict[str, Trial | None]:
    """Return what is remembered of each form on a device ("cpu", "cuda"); None where it has to be tried."""
    now = facts(device)
    kept = (read_cache(KIND, now) or {}) | tried.get(_key(now), {})
    return {form: _remembered(kept.get(form)) for form in forms}


def try_compiling(forms: Iterable[str], device: str) -> dict[str, Trial]:
    """Return whether each form can be compiled on a device, trying those that this process has not tried, whatever is
    remembered. Never raises for what fails to compile, and takes ten seconds to a minute where something is tried."""
    forms, now = list(forms), facts(device)
    done = tried.get(_key(now), {})
    if wanted := [form for form in forms if form not in done]:
        print("trying torch.compile on this machine ...", file=sys.stderr, flush=True)
        _remember(now, {form: _as_kept(form, said) for form, said in _probe(wanted, device).items()})
    done = tried.get(_key(now), {})
    return {form: Trial(done[form]["reason"], done[form]["log"]) for form in forms}


def remember_failure(form: str, device: str, reason: str, traceback: str) -> Trial:
    """Keep that a run could not compile what the trial before it could: it is not tried again by this process."""
    entry = _as_kept(form, {"reason": reason, "traceback": traceback})
    _remember(facts(device), {form: entry})
    return Trial(entry["reason"], entry["log"])


def _remember(now: dict, found: dict[str, dict]) -> None:
    tried[_key(now)] = tried.get(_key(now), {}) | found
    write_cache(KIND, now, (read_cache(KIND, now) or {}) | found)


def _key(now: dict) -> str:
    return json.dumps(now, sort_keys=True)


def _remembered(entry) -> Trial | None:
    """A kept entry, unless it is damaged or a failure of long ago."""
    if not isinstance(entry, dict) or not isinstance(entry.get("time"), int | float):
        return None
    reason, log = entry.get("reason"), entry.get("log")
    if not all(x is None or isinstance(x, str) for x in (reason, log)):
        return None
    old = not 0 <= time.time() - entry["time"] <= FAILED_FOR_S
    return None if reason is not None and old else Trial(reason, log)


def _as_kept(form: str, said: dict) -> dict:
    """What is kept of a form's trial; its traceback goes into a file."""
    log = None
    if said["traceback"]:
        path = cache_folder() / KIND / f"{form}.log"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, said["traceback"])
            log = str(path)
    return {"reason": said["reason"], "log": log, "time": time.time()}


def _probe(forms: list[str], device: str) -> dict[str, dict]:
    """Ask lib/compile_probe.py; form -> {"reason", "traceback"}. A process that ends without an answer is one."""
    command = [sys.executable, "-m", "lib.compile_probe", device, *forms]
    # A session of its own, so that a compiler that hangs can be ended with it.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    patience = PATIENCE_S * len(forms)
    try:
        out, err = process.communicate(timeout=patience)
        last = err.strip().splitlines()[-1:] or ["no output"]
        ended = f"the process that tried it ended with status {process.returncode}: {last[0]}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        ended = f"no answer after {patience:.0f} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    answers = dict.fromkeys(forms, {"reason": _printable(ended), "traceback": err or ended})
    for line in out.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            answers[said["form"]] = {"reason": said["reason"], "traceback": said["traceback"]}
    return {form: answers[form] for form in forms}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:500]


def facts(device: str) -> dict:
    """What compiling for a device depends on, as far as it can be seen without trying."""
    compilers = {name: _program(os.environ.get(name, default)) for name, default in (("CXX", "g++"), ("CC", "gcc"))}
    backend = BACKENDS["nvidia"]
    gpus = [d.name for d in backend.devices()] if device == "cuda" and backend.probe() else []
    return {
        "device": device,
        "devices": gpus or [provenance.cpu_name()],
        "versions": {name: _version(name) for name in ("torch", "triton", "numpy")},
        "python": [sys.version, sys.prefix],
        "compilers": compilers,
        "headers": (Path(sysconfig.get_path("include")) / "Python.h").exists(),
        "folder": _folder(code_folder()),
        "environment": {k: v for k, v in sorted(os.environ.items()) if SETTINGS.match(k)},
        "code": _code(),
    }


def _program(command: str) -> list | None:
    """A compiler's path, size and time of change; None where it is not found."""
    found = shutil.which(command)
    with contextlib.suppress(OSError):
        if found:
            about = Path(found).stat()
            return [str(Path(found).resolve()), about.st_size, about.st_mtime_ns]
    return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def code_folder() -> Path:
    """Where torch writes compiled code, by its own rule."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    default = Path(tempfile.gettempdir()) / ("torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", default)).resolve()


def _folder(path: Path) -> list:
    """A folder's path, and of it or of the nearest one above it that is there: kind, permission, and flags of its
    mount, noexec and read-only among them."""
    there = next(p for p in (path, *path.parents) if os.path.lexists(p))
    try:
        return [str(path), there.is_dir(), os.access(there, os.W_OK | os.X_OK), os.statvfs(there).f_flag]
    except OSError as e:
        return [str(path), str(e)]


@cache
def _code() -> str:
    files = sorted(path for pattern in CODE for path in ROOT.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
