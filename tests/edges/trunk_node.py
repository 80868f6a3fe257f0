"""A node that only stands for one, at the other end of an nginx' trunk: it does what a test says, faults too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.edges.edge import Edge
from tests.edges.lua import running
from tests.peer import TEXT, frame
from tests.scripted import server
from tidegate.core.model import Cursor, Position
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter
from tidegate.trunk.server import read_resume

ROOM = 1
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: x\r\nTidegate-Client: alice\r\nTidegate-Connection: n-1\r\n\r\n"
)


def at(offset: int) -> Position:
    return Position("e", offset)


class ScriptedNode:
    """``relayed``: handshakes that came on the public port. ``cursors``: of the connections that came by RESUME;
    ``said``: what came on the trunks for the sessions, as (kind, number, payload)."""

    def __init__(self, *, versions: tuple[int, int] = (1, 1), says_hello: bool = True) -> None:
        self.versions = versions
        self.says_hello = says_hello
        self.where: str | None = None  # what it says of its trunk
        self.relayed = 0
        self.trunks: list[asyncio.StreamWriter] = []
        self.ended = 0
        self.hello: dict[str, str] = {}
        self.cursors: list[Cursor] = []
        self.said: list[tuple[int, int, bytes]] = []
        self.sessions: list[tuple[asyncio.StreamWriter, int]] = []
        self.probes: list[bytes] = []

    # Its public port

    async def public(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /.probe "):
            self.probes.append(head)
            trunk = f"Tidegate-Trunk: {self.where}\r\n" if self.where else ""
            writer.write(f"HTTP/1.1 204 No Content\r\n{trunk}\r\n".encode())
            return
        self.relayed += 1
        writer.write(_ANSWER + frame(TEXT, b"relayed", mask=None))
        await reader.read()

    # Its trunks

    async def trunk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.trunks.append(writer)
        splitter = Splitter()
        if self.says_hello:
            lowest, highest = self.versions
            hello = codec.fields(lowest=lowest, highest=highest, node="n", nonce="00")
            writer.write(codec.frame(Kind.HELLO, 0, hello))
        try:
            while data := await reader.read(65536):
                splitter.feed(data)
                for kind, number, payload in splitter.frames(1 << 30):
                    self._on_frame(writer, kind, number, payload)
        finally:
            self.ended += 1

    def _on_frame(self, writer: asyncio.StreamWriter, kind: int, number: int, payload: bytes) -> None:
        if kind == Kind.HELLO:
            self.hello = codec.read_fields(payload)
            writer.write(codec.frame(Kind.PULSE, 0, b"0-0"))
        elif kind == Kind.PULSE:
            writer.write(codec.frame(Kind.PULSE, 0, b"0-0"))
        elif kind == Kind.OPEN:
            self.sessions.append((writer, number))
            self.say(Kind.ACCEPT, _ANSWER)
            self.follow(at(0))
            self.say(Kind.WELCOMED)
            self.say(Kind.SEND, frame(TEXT, b"welcome", mask=None))
        elif kind == Kind.RESUME:
            self.sessions.append((writer, number))
            _, cursor, _ = read_resume(payload)
            self.cursors.append(cursor)
            self.say(Kind.ACCEPT)
            self.follow(cursor["room"])
            self.say(Kind.WELCOMED)
        else:
            self.said.append((kind, number, payload))

    # What it says to its newest session, or on that one's trunk

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        writer, number = self.sessions[-1]
        writer.write(codec.frame(kind, number, payload))

    def follow(self, where: Position, name: bytes = b"room") -> None:
        self.say(Kind.FOLLOW, codec.count(ROOM) + codec.position(where) + name)

    def hear(self, before: int, after: int) -> None:
        data = frame(TEXT, b"%d" % after, mask=None)
        self.raw(codec.frame(Kind.HEARD, ROOM, codec.position(at(before)) + codec.position(at(after)) + data))

    def raw(self, data: bytes) -> None:
        self.sessions[-1][0].write(data)


@contextlib.asynccontextmanager
async def scripted(node: ScriptedNode, **settings: Any) -> AsyncIterator[Edge]:
    async with (
        server(node.public) as port,
        server(node.trunk) as trunk_port,
        running(port, **{"EDGE__TRUNK": True, "EDGE__HOLD_S": 3} | settings) as edge,
    ):
        node.where = node.where or str(trunk_port)
        yield edge
