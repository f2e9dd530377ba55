"""Keep memory between training steps.

glibc gives large blocks back to the kernel when they are freed, and every step then needs new pages, which the kernel
zeroes: 1.16 s against 0.98 s for a step of DeepLab v3+ on MobileNet V2 with 8 crops of 320 pixels on two cores.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory instead of returning it; tell whether the C library supports it.

    The process keeps its largest amount of memory. Does nothing except on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 64 * 2**20))
    return all(bool(mallopt(name, value)) for name, value in settings)
