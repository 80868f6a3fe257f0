"""What malloc does with large blocks.

glibc takes large blocks from the kernel, and gives them back when they are freed. But with the first that it gives back
it takes the next ones of that size from its heap (`M_MMAP_THRESHOLD`, mallopt(3)). The tables of all connections are
made anew, and larger, each time when so many have come; in the heap each leaves a hole that is too small for the next.
A node with 10,500 connections of which 50 a second were new ones grew by 2.1 % in an hour so, and by 0.3 with a fixed
threshold (`python -m bench soak`). What it costs: pages that come from the kernel are cleared first, which is a tenth
of a request whose body has a MiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

LARGE_BYTES = 256 * 1024
_M_MMAP_THRESHOLD = -3  # malloc.h
_CHOSEN = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # the operator's own, in the environment


def keep_large_blocks_out_of_the_heap() -> None:
    """From now on, unless the environment says how malloc works. Nothing happens where malloc is not glibc's."""
    if any(name in os.environ for name in _CHOSEN):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
