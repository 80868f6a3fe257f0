"""What the process takes of its machine."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")  # pages: of the address space, and of it in memory


def cpu_s() -> float:
    """Seconds of processor time, of the user and of the system."""
    return time.process_time()


def virtual_bytes() -> float:
    """The address space; NaN where there is no /proc."""
    return _pages(0)


def resident_bytes() -> float:
    """Of it in memory; NaN where there is no /proc."""
    return _pages(1)


def _pages(column: int) -> float:
    try:
        return int(_STATM.read_text().split()[column]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # none there, or no open file left to look
        return math.nan
