"""Return freed memory to the kernel.

glibc keeps freed memory in arenas, one for each thread. A frame of a clip passes through several threads, and each
fragment of a video has an encoder with its own threads, so that free memory of many megabytes accumulates in these
arenas.
"""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> bool:
    """Return the free pages of this process; tell whether there were any.

    Does nothing except on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except AttributeError:  # another C library
        return False
