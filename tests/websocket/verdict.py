"""What the bytes of a peer amount to: by a slow parser that reads as RFC 6455 does, by the reader, and by a wire."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.peer import BINARY, CLOSE, TEXT
from tests.websocket.hand import HandWire
from tests.wires import NAMES, CountingSocket, Frames, closed_with, connected
from tidegate.core.errors import CloseCode
from tidegate.websocket.reader import FrameError, Reader, parse_close

CONTINUATION = 0
LIMIT = 300  # small, so that examples pass it


class Verdict(NamedTuple):
    """What the bytes of a peer amount to: what its other end hears, and the close frame that it must answer with."""

    heard: Frames
    close: int | None


# A parser that sees all bytes at once and takes them one rule at a time, as section 5.2 reads.


def judge(data: bytes, *, limit: int, binary: bool) -> Verdict:
    heard: Frames = []
    message: bytes | None = None
    kind = ""
    while len(data) >= 2:
        final, reserved, opcode = data[0] >= 0x80, data[0] & 0x70, data[0] % 16
        masked, length = data[1] >= 0x80, data[1] % 128
        control = opcode >= 8
        if reserved or not masked or opcode not in NAMES:
            return Verdict(heard, 1002)
        if control and (not final or length > 125):
            return Verdict(heard, 1002)
        if opcode == CONTINUATION and message is None:
            return Verdict(heard, 1002)
        if opcode in (TEXT, BINARY) and message is not None:
            return Verdict(heard, 1002)
        if opcode == BINARY and not binary:
            return Verdict(heard, 1003)
        start = {126: 4, 127: 10}.get(length, 2)
        if len(data) < start:
            break
        if length > 125:
            least = 126 if length == 126 else 65536
            length = int.from_bytes(data[2:start], "big")
            if length < least:
                return Verdict(heard, 1002)
        if not control and length >= 2**63:
            return Verdict(heard, 1002)
        if not control and length + len(message or b"") > limit:
            return Verdict(heard, 1009)
        if len(data) < start + 4:
            break
        key = data[start : start + 4]
        rest = data[start + 4 :]
        payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(rest[:length]))
        whole = len(rest) >= length
        data = rest[length:]
        if control:
            if not whole:
                break
            if opcode == CLOSE:
                return Verdict(heard, close_answer(payload))
            heard.append((NAMES[opcode], payload))
            continue
        if opcode != CONTINUATION:
            message, kind = b"", NAMES[opcode]
        assert message is not None
        message += payload
        if kind == "text" and not (is_utf8(message) if whole and final else may_become_utf8(message)):
            return Verdict(heard, 1007)
        if not whole:
            break
        if final:
            heard.append((kind, message))
            message = None
    return Verdict(heard, None)


def close_answer(payload: bytes) -> int:
    if not payload:
        return 1000
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in {*range(1000, 1004), *range(1007, 1015)} or 3000 <= code <= 4999):
        return 1002
    return code if is_utf8(payload[2:]) else 1007


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def may_become_utf8(text: bytes) -> bool:
    """Whether some ending makes it UTF-8."""
    return is_utf8(text) or any(is_utf8(text + tail) for tail in _TAILS)


# These four bytes stand for all that may follow a lead byte.
_TAILS = [
    b"".join(tail)
    for count in (1, 2, 3)
    for tail in itertools.product((b"\x80", b"\x90", b"\xa0", b"\xbf"), repeat=count)
]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if start < end]


def by_wire(
    parts: Iterable[bytes],
    *,
    limit: int = LIMIT,
    binary: bool = True,
    ends: Callable[[], tuple[CountingSocket, socket.socket]] = connected,
) -> Verdict:
    """Fast path and reader together, over a socket; a ping is heard when its pong comes back."""
    hand = HandWire(message_bytes=limit, binary=binary, ends=ends)
    for part in parts:
        hand.feed(part)
    said = hand.said()
    return Verdict(
        hand.heard.messages + [("ping", payload) for name, payload in said if name == "pong"], closed_with(said)
    )


def by_reader(parts: Iterable[bytes], *, limit: int = LIMIT, binary: bool = True) -> Verdict:
    """The reader alone."""
    reader = Reader(limit, binary=binary)
    heard: Frames = []
    try:
        for part in parts:
            reader.receive(part)
            while (message := reader.next()) is not None:
                opcode, payload = message
                if opcode == CONTINUATION:
                    assert payload == b"", "a fragment that is not the last"
                    continue
                if opcode == CLOSE:
                    code = parse_close(payload)
                    return Verdict(heard, 1000 if code == CloseCode.NO_STATUS else code)
                heard.append((NAMES[opcode], payload))
    except FrameError as exc:
        return Verdict(heard, exc.code)
    return Verdict(heard, None)


def pings_last(verdict: Verdict) -> Verdict:
    """The order of messages and that of pings, each by itself: pongs go out, messages go in."""
    return Verdict(sorted(verdict.heard, key=lambda item: item[0] == "ping"), verdict.close)


def check(data: bytes, cuts: Iterable[int], *, limit: int = LIMIT, binary: bool = True) -> Verdict:
    expected = judge(data, limit=limit, binary=binary)
    parts = pieces(data, cuts)
    assert by_reader(parts, limit=limit, binary=binary) == expected
    assert by_wire(parts, limit=limit, binary=binary) == pings_last(expected)
    return expected
