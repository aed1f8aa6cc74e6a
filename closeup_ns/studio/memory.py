"""The process's memory between two training steps."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
_LIMITS = (1 << 30, 1 << 25)
"""Bytes, best first: larger blocks still come from the kernel and go back to it. Older glibc takes at most 32 MB."""


def keep_freed_memory() -> bool:
    """Let glibc keep what a step frees for the next step; returns whether it does (elsewhere nothing changes).

    Each CPU step allocates and frees some hundred tensors, a few of 10 to 20 MB. glibc gives such blocks back to the
    kernel at once, which then hands out the same pages again, zeroed and one by one: 2,600 page faults a step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or mallopt(_M_TRIM_THRESHOLD, _LIMITS[0]) != 1:
        return False
    return any(mallopt(_M_MMAP_THRESHOLD, limit) == 1 for limit in _LIMITS)
