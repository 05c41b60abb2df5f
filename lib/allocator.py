"""What glibc's malloc keeps of freed memory, fixed, so that a CPU's runs are compared and not its allocator.

By default malloc moves both thresholds by what was freed before: two bit-identical runs then differ by tens of MiB and
a fifth of their time, by chance. No torch here, and nothing happens where there is no glibc.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_* of malloc.h
MOST_TRIM = (1 << 31) - 1  # bytes: what is freed stays for the next step
MOST_MMAP = 1 << 25  # bytes, the most that glibc takes: a larger block is mapped on its own and given back when freed


def _glibc() -> ctypes.CDLL | None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018
        return libc
    return None


def fix_thresholds() -> bool:
    """Fix both thresholds at their maximum for the rest of this process; return whether both were taken."""
    libc = _glibc()
    return libc is not None and bool(
        libc.mallopt(MMAP_THRESHOLD, MOST_MMAP) and libc.mallopt(TRIM_THRESHOLD, MOST_TRIM)
    )


def release_freed_memory() -> None:
    """Give what has been freed back to the system, whatever the thresholds: after a peak that will not come again."""
    if libc := _glibc():
        libc.malloc_trim(0)
