"""What the process does with freed memory: it keeps it."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's `mallopt`."""
KEPT = 2**31 - 1


def keep_freed_memory() -> None:
    """Ask glibc to keep freed memory for the next step instead of returning it to the system at once.

    Maps of over 32 MB are otherwise mapped anew, and filled with zeros by the kernel, at each step, which shows as
    system time beside the training's own. Does nothing where the C library is another. Only for a process that is
    ours: a library must not change the memory of its user's program.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
