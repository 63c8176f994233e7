"""How the service's processes keep their memory: large blocks stay theirs, in one heap, and what stays is not searched again and again.

glibc returns a freed block of some hundred kilobytes at once, and its next user pays for mapping and clearing the pages again: for
images of 602 kB that is about a tenth of the CPU time of a request. It also gives threads heaps of their own, each of which keeps what it
held at its busiest moment. Even one heap grows slowly, by gaps between blocks of all sizes: give_back() lets go of the pages in them.

Python's search for garbage goes through every object that there is, now and then: 11 ms after all the imports, in which a device runs out
of images. settle() leaves out what is there once a process is ready; a search is then done in less than one.
"""

from __future__ import annotations

import ctypes
import gc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE = 1 << 25
"""The largest threshold that glibc takes: blocks above are still given back."""


def keep_large_blocks() -> None:
    """For this process, before it has threads, where the C library is glibc; elsewhere nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, 8 * LARGE)


def give_back() -> None:
    """Return free pages to the kernel, wherever they are in the heap (a fraction of a millisecond); for glibc."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def settle() -> None:
    """Once everything that stays is there: collect the rest, and let the garbage collector look at newer objects only."""
    gc.collect()
    gc.freeze()
