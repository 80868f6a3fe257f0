"""The frames of a trunk as bytes. No I/O. Source: docs/trunk.md.

A frame is its length (32 bits, little-endian, of what follows), its kind (8 bits), a number (32 bits: of a session or a
stream, 0 for the trunk itself) and a payload. A position is the epoch's length (8 bits), the epoch, and the offset (64
bits).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from tidegate.core.model import Cursor, Position

HEAD = struct.Struct("<IBI")
_OFFSET = struct.Struct("<Q")
_COUNT = struct.Struct("<I")
_CODE = struct.Struct("<H")
_KIND_AND_NUMBER = HEAD.size - 4

MOST_BYTES = 1024 * 1024  # of a frame; an event has 256 KiB, a request's head 56
NUMBERS = 2**31  # of sessions and streams of one trunk, which never come again on it


class Kind(IntEnum):
    HELLO = 1
    PULSE = 2
    OPEN = 3
    ACCEPT = 4
    REFUSE = 5
    WELCOMED = 6
    TEXT = 7
    PONG = 8
    DONE = 9
    READING = 10
    SEND = 11
    WRITTEN = 12
    SLOW = 13
    TRACK = 14
    UNTRACK = 15
    FOLLOW = 16
    HEARD = 17
    CLOSE = 18
    GONE = 19
    TOKEN = 20
    MOVE = 21
    RESUME = 22
    PART = 23


class TrunkBroken(ValueError):
    """The other side sent what is no frame. The text has no payload in it."""


def frame(kind: int, number: int, payload: bytes = b"") -> bytes:
    return HEAD.pack(len(payload) + _KIND_AND_NUMBER, kind, number) + payload


def head(kind: int, number: int, size: int) -> bytes:
    """Of a frame whose payload has ``size`` bytes and follows by itself."""
    return HEAD.pack(size + _KIND_AND_NUMBER, kind, number)


def position(where: Position) -> bytes:
    epoch = where.epoch.encode("ascii")
    return b"%c%b%b" % (len(epoch), epoch, _OFFSET.pack(where.offset))


def read_position(payload: bytes, at: int) -> tuple[Position, int]:
    """A position, and where it ends. Raises TrunkBroken."""
    try:
        end = at + 1 + payload[at]
        epoch = payload[at + 1 : end].decode("ascii")
        (offset,) = _OFFSET.unpack_from(payload, end)
    except (IndexError, UnicodeDecodeError, struct.error):
        raise TrunkBroken("a position is cut off, or is none") from None
    return Position(epoch, offset), end + _OFFSET.size


def count(number: int) -> bytes:
    return _COUNT.pack(number)


def read_count(payload: bytes) -> int:
    """Raises TrunkBroken."""
    if len(payload) != _COUNT.size:
        raise TrunkBroken("a count has four bytes")
    return int(_COUNT.unpack(payload)[0])


def code(number: int, reason: str = "") -> bytes:
    """A close code and its reason."""
    return _CODE.pack(number) + reason.encode()


def read_gone(payload: bytes) -> tuple[int, bool]:
    """The close code, and whether the client answered our close frame. Raises TrunkBroken."""
    if len(payload) != _CODE.size + 1:
        raise TrunkBroken("an end has three bytes")
    return int(_CODE.unpack_from(payload)[0]), payload[-1] == 1


def cursor(positions: Cursor) -> bytes:
    """How many streams, and of each its position, its name's length (16 bits) and its name."""
    names = [(position(where), stream.encode()) for stream, where in positions.items()]
    return _CODE.pack(len(names)) + b"".join(where + _CODE.pack(len(name)) + name for where, name in names)


def read_cursor(payload: bytes, at: int) -> tuple[Cursor, int]:
    """A cursor, and where it ends. Raises TrunkBroken."""
    positions: Cursor = {}
    try:
        (streams,) = _CODE.unpack_from(payload, at)
        at += _CODE.size
        for _ in range(streams):
            where, at = read_position(payload, at)
            (length,) = _CODE.unpack_from(payload, at)
            name = payload[at + _CODE.size : at + _CODE.size + length]
            positions[name.decode("ascii")] = where
            at += _CODE.size + length
        if at > len(payload):  # the last name is
            raise TrunkBroken("a cursor is cut off")
    except (struct.error, UnicodeDecodeError):
        raise TrunkBroken("a cursor is cut off, or is none") from None
    return positions, at


def fields(**values: object) -> bytes:
    """Lines of a name and a value; no value has a line break."""
    return "".join(f"{name} {value}\n" for name, value in values.items()).encode()


def read_fields(payload: bytes) -> dict[str, str]:
    """What is no line of a name, a blank and a value is passed over, as Lua does it. Raises TrunkBroken."""
    try:
        lines = payload.decode().split("\n")[:-1]  # not `splitlines`, which knows breaks of which the edge does not
    except UnicodeDecodeError:
        raise TrunkBroken("fields are not UTF-8") from None
    words = [line.lstrip(" ").partition(" ") for line in lines]
    return {name: value for name, blank, value in words if name and blank}


class Splitter:
    """Takes a byte stream apart. ``feed`` what came, then go through ``frames``."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def size(self) -> int:
        """Bytes that came and were not given."""
        return len(self._rest)

    def feed(self, data: bytes) -> None:
        self._rest = self._rest + data if self._rest else data

    def frames(self, most: int) -> Iterator[tuple[int, int, bytes]]:
        """Kind, number and payload of up to ``most`` whole frames. Raises TrunkBroken."""
        data, at, end = self._rest, 0, len(self._rest)
        try:
            while most and end - at >= HEAD.size:
                size, kind, number = HEAD.unpack_from(data, at)
                if not _KIND_AND_NUMBER <= size <= MOST_BYTES:
                    raise TrunkBroken(f"a frame of {size} bytes")
                stop = at + 4 + size
                if stop > end:
                    break
                payload = data[at + HEAD.size : stop]
                at = stop
                most -= 1
                yield kind, number, payload
        finally:
            self._rest = data[at:] if at else data


def common_version(ours: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """The highest that both speak, of the lowest and highest of each."""
    highest = min(ours[1], theirs[1])
    return highest if highest >= max(ours[0], theirs[0]) else None
