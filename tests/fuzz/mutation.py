"""Inputs that are nearly as good as known ones, and the smallest one that still fails."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

MOST_BYTES = 4096
_NUMBERS = (b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\x7e\x00\x7d", b"\xff\xff\xff\xff", b"9007199254740993")


def mutant(chance: random.Random, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A seed with one to four changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        start = chance.randint(0, len(data))
        end = min(len(data), start + chance.choice((0, 1, 1, 2, 4, 16)))
        match chance.randrange(7):
            case 0:
                data[start:end] = b""
            case 1:
                data[start:end] = bytes(chance.choices(range(256), k=chance.randint(1, 4)))
            case 2:
                data[start:end] = chance.choice(words or _NUMBERS)
            case 3:
                data[start:end] = chance.choice(_NUMBERS)
            case 4:
                data[start:start] = data[start:end] * chance.choice((1, 2, 9, 70))
            case 5:  # a part of another
                other = chance.choice(seeds)
                at = chance.randint(0, len(other))
                data[start:end] = other[at : at + chance.choice((1, 4, 16, 400))]
            case _ if start < len(data):
                data[start] ^= 1 << chance.randrange(8)
    return bytes(data[:MOST_BYTES])


def smallest(data: bytes, fails: Callable[[bytes], bool], *, seconds: float = 20) -> bytes:
    """A part of ``data`` that fails too, and of which nothing can be left out, as far as time allows."""
    until_s = time.monotonic() + seconds
    size = max(1, len(data) // 2)
    while size:
        at = 0
        while at < len(data) and time.monotonic() < until_s:
            less = data[:at] + data[at + size :]
            if fails(less):
                data = less
            else:
                at += size
        size //= 2
    for at in range(len(data)):
        plain = data[:at] + b"a" + data[at + 1 :]
        if data[at : at + 1] != b"a" and time.monotonic() < until_s and fails(plain):
            data = plain
    return data
