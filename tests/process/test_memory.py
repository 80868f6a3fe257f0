"""Large blocks come from the kernel, and go back to it, also after one was given back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT
from tidegate.process.memory import LARGE_BYTES

# `hblks` of mallinfo(3) are the blocks that malloc has from the kernel; glibc 2.33 or newer.
PROGRAM = f"""
import ctypes
from tidegate.process import memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
CALL
block = bytearray(16 << 20)
del block  # from here on malloc has what is smaller in its heap, unless it is told otherwise
before = mallinfo2().hblks
block = bytearray({LARGE_BYTES})
print(mallinfo2().hblks - before)
"""


def blocks_of_the_kernel(call: str) -> int:
    program = PROGRAM.replace("CALL", call)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "service")
    return int(done.stdout)


@pytest.mark.parametrize(("call", "count"), [("memory.keep_large_blocks_out_of_the_heap()", 1), ("", 0)])
def test_a_large_block_is_none_of_the_heap(call: str, count: int) -> None:
    assert blocks_of_the_kernel(call) == count


def test_what_the_operator_says_of_malloc_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(32 << 20))
    assert blocks_of_the_kernel("memory.keep_large_blocks_out_of_the_heap()") == 0
