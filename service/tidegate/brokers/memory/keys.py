"""The idempotency keys of the embedded broker: each is promised for five minutes, so none is given up early."""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Callable

from tidegate.core.model import Position

KEY_AGE_S = 300.0
KEY_BYTES = 220  # that one costs, however long it is (measured; tests/brokers/test_memory.py compares)

_Known = struct.Struct("<dQ16s")  # when it ends, offset, digest of the body; the epoch follows


class IdempotencyKeys:
    """A key is of its stream. It stands for a body and for the position where that was journalled."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.size = 0  # what all of them cost, in bytes
        self._clock = clock
        self._known: OrderedDict[bytes, bytes] = OrderedDict()  # oldest first

    def find(self, stream: str, key: str, body: bytes) -> Position | None:
        """Where this body was journalled with this key, if it was. Raises KeyError where it was another body."""
        known = self._known.get(_name(stream, key))
        if known is None:
            return None
        ends_s, offset, digest = _Known.unpack_from(known)
        if ends_s <= self._clock():
            return None
        if digest != _digest(body):
            raise KeyError(key)
        return Position(known[_Known.size :].decode(), offset)

    def add(self, stream: str, key: str, body: bytes, position: Position) -> None:
        name = _name(stream, key)
        self._known.pop(name, None)
        known = _Known.pack(self._clock() + KEY_AGE_S, position.offset, _digest(body))
        self._known[name] = known + position.epoch.encode()
        self.size = len(self._known) * KEY_BYTES

    def sweep(self, most: int) -> None:
        """Forgets up to ``most`` whose time is over."""
        now_s = self._clock()
        for _ in range(most):
            known = next(iter(self._known.values()), None)
            if known is None or _Known.unpack_from(known)[0] > now_s:
                return
            self._known.popitem(last=False)
            self.size -= KEY_BYTES


def _name(stream: str, key: str) -> bytes:
    return hashlib.blake2b(f"{stream} {key}".encode(), digest_size=16).digest()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
