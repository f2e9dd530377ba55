"""Giving freed memory back to the kernel.

glibc keeps what is freed in the arena that it came from, and each thread has another. A frame of a clip goes through
several threads, and each fragment of a video has an encoder with threads of its own: holes of many megabytes gather in
all these arenas, other ones in each run, while the program holds no more than before.
"""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> bool:
    """Return the pages of this process in which nothing lies; says whether there were any.

    Anywhere but on Linux with glibc nothing happens.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except AttributeError:  # another C library
        return False
