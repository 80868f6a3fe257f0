"""What an edge says on a trunk: frames, their payloads, and a link that is told both.

An input is a byte that says how far apart the cuts are, and then the edge's bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from typing import Any, cast

from tests.websocket.hand import HandLoop
from tidegate.core.errors import BadRequest
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter, TrunkBroken
from tidegate.trunk.link import Link
from tidegate.trunk.server import read_request, read_resume
from tidegate.trunk.transport import LinkedTransport
from tidegate.turn import WriteBatch

Frames = list[tuple[int, int, bytes]]

LINE = re.compile(r"([^ \n]+) ([^\n]*)\n")


def check(data: bytes) -> None:
    step, sent = data[:1] or b"\0", data[1:]
    parts = [sent[at : at + step[0]] for at in range(0, len(sent), step[0])] if step[0] else [sent]
    expected = reference(sent)
    found = split(parts)
    assert found == expected, f"{found}, and not {expected}"
    for kind, _, payload in expected[0]:
        _payload(kind, payload)
    once, cut = _heard([sent]), _heard(parts)
    assert once == cut, f"{once} where all comes at once, else {cut}"


def reference(data: bytes) -> tuple[Frames, bool]:
    """The frames, and whether what follows is none."""
    found: Frames = []
    while len(data) >= 9:
        size = int.from_bytes(data[:4], "little")
        if not 5 <= size <= 2**20:
            return found, True
        if len(data) < 4 + size:
            break
        found.append((data[4], int.from_bytes(data[5:9], "little"), data[9 : 4 + size]))
        data = data[4 + size :]
    return found, False


def split(parts: list[bytes]) -> tuple[Frames, bool]:
    splitter, found = Splitter(), Frames()
    try:
        for part in parts:
            splitter.feed(part)
            found += splitter.frames(1 << 30)
    except TrunkBroken:
        return found, True
    return found, False


def _payload(kind: int, payload: bytes) -> None:
    """Each reader of a payload, of whatever kind it is: what is none is said by one exception."""
    with contextlib.suppress(TrunkBroken, BadRequest):
        _, _, head = read_resume(payload)
        read_request(head)
    with contextlib.suppress(BadRequest):
        read_request(payload)
    with contextlib.suppress(TrunkBroken):
        codec.read_count(payload)
    with contextlib.suppress(TrunkBroken):
        codec.read_gone(payload)
    with contextlib.suppress(TrunkBroken):
        positions, end = codec.read_cursor(payload, 0)
        assert end == len(payload) or len(payload) > end
        assert codec.read_cursor(codec.cursor(positions), 0)[0] == positions
    with contextlib.suppress(TrunkBroken):
        fields = codec.read_fields(payload)
        lines = dict(LINE.findall(payload.decode()))
        assert {name: fields.get(name) for name in lines} == lines, "the edge reads other fields"


class _Edge:
    """The listener of a link, and its transport: remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.ended = False

    def on_hello(self, link: Link, fields: dict[str, str]) -> bool:
        self.told.append(("hello", fields))
        return bool(fields.get("worker"))

    def on_open(self, session: LinkedTransport, head: bytes) -> None:
        self.told.append(("open", session.number, head))

    def on_resume(self, session: LinkedTransport, payload: bytes) -> None:
        self.told.append(("resume", session.number, payload))

    def on_up(self, link: Link) -> None:
        pass

    def on_session_lost(self, peer: object, why: str) -> None:
        pass

    def on_lost(self, link: Link) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def abort(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def write(self, data: bytes) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


def _heard(parts: list[bytes]) -> tuple[list[Any], bool, list[int]]:
    edge, loop = _Edge(), HandLoop()
    batch = WriteBatch(cast(asyncio.AbstractEventLoop, loop).call_soon)
    link = Link(cast(Any, edge), batch, b"", 2**20)
    link.connection_made(cast(asyncio.Transport, edge))
    for part in parts:
        if edge.ended:
            break
        link.data_received(part)
        while loop.soon:
            loop.turn()
    return edge.told, edge.ended, sorted(link.sessions)


def frame(kind: Kind, number: int, payload: bytes = b"") -> bytes:
    return codec.frame(kind, number, payload)


HELLO = frame(Kind.HELLO, 0, codec.fields(lowest=1, highest=1, worker="w1"))
GONE = struct.pack("<HB", 1006, False)
