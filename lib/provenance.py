"""Where a result came from: commit, local changes, versions, host and processor."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from lib import ROOT
from lib.schema import Count, Name, record

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "matplotlib", "kconfiglib")


@record
class Provenance:
    """Commit (None outside git), a hash of uncommitted changes (None where there are none), versions, host, CPU."""

    commit: Name | None
    dirty: Name | None
    python: Name
    versions: dict[Name, Name | None]
    host: Name
    system: Name
    cpu: Name
    cores: Count


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def collect() -> Provenance:
    """Where a result of this checkout on this machine comes from."""
    commit = _git("rev-parse", "HEAD")
    diff = changes() if commit else ""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return Provenance(
        commit=commit.strip() if commit else None,
        dirty=hashlib.sha256(diff.encode()).hexdigest()[:16] if diff else None,
        python=platform.python_version(),
        versions=versions,
        host=platform.node(),
        system=platform.platform(),
        cpu=cpu_name(),
        cores=cores(),
    )


def changes() -> str:
    """What differs from the commit: the diff, and new files of code and configuration, which a diff leaves out."""
    new = (_git("ls-files", "--others", "--exclude-standard", "--", "*.py", "*Kconfig") or "").splitlines()
    return (_git("diff", "HEAD") or "") + "".join(f"+++ {name}\n{(ROOT / name).read_text()}" for name in new)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu_info() -> dict[str, str]:
    """What Linux says of the first core; {} elsewhere."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    return {k.strip(): v.strip() for k, v in fields.items()}


def cpu_units() -> list[str]:
    """The vector units that matter here, the widest first."""
    flags = cpu_info().get("flags", "").split()
    return [u for u in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if u in flags]


def cpu_name() -> str:
    """The processor's name and the widest vector units that matter here."""
    fields = cpu_info()
    if not fields:
        return platform.processor() or "unknown"
    units = cpu_units()[:2]
    name = " ".join(fields.get("model name", "unknown").split())
    family = f"family {fields['cpu family']} model {fields['model']}, " if "cpu family" in fields else ""
    return f"{name} ({family}{', '.join(units) or 'no avx2'})"
