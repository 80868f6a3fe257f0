"""The edge's end of a trunk, as docs/trunk.md wants it: what its sessions were told, in order. It finds faults of the
node that a client would not see."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from tests.support import eventually
from tidegate.core.model import Cursor, Position
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter

HANDSHAKE = (
    "GET /ws-notifications/?{query} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
)


class Stream:
    """``position``: where it is on this trunk; ``live``: the sessions that are there too."""

    def __init__(self, name: str, position: Position) -> None:
        self.name = name
        self.position = position
        self.live: set[LinkedClient] = set()


class LinkedClient:
    """One session. ``answer`` is the head of its 101, or its refusal; ``data`` the WebSocket frames for its client."""

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker = worker
        self.number = number
        self.answer = b""
        self.accepted = False
        self.welcomed = False
        self.data = b""
        self.sent = 0  # bytes of SEND
        self.parts = b""  # of a SEND that is not whole
        self.tracked: set[int] = set()
        self.live: set[int] = set()
        self.done = 0
        self.reading = True
        self.closed: tuple[int, str] | None = None
        self.cursor: Cursor | None = None  # where its node sent it away
        self.unanswered = 0  # of its messages, then
        self.token = ""  # to be shown to the next node

    def take(self, most: int | None = None) -> list[Any]:
        """The events that have come, up to ``most``, pongs and other texts as they are."""
        events: list[Any] = []
        while self.data and (most is None or len(events) < most):
            length, at = self.data[1], 2
            if length == 126:
                length, at = int.from_bytes(self.data[2:4], "big"), 4
            elif length == 127:
                length, at = int.from_bytes(self.data[2:10], "big"), 10
            kind, payload = self.data[0] & 0x0F, self.data[at : at + length]
            self.data = self.data[at + length :]
            if kind == 1:
                events.append(json.loads(payload) if payload.startswith(b"{") else payload.decode())
            else:
                events.append((kind, payload))
        return events

    async def gets(self, kind: str) -> Any:
        """The next event, which must be of this type."""
        event = await self._worker.next_event(self)
        assert event["type"] == kind, event
        return event

    def says(self, command: dict[str, Any] | str) -> None:
        text = command if isinstance(command, str) else json.dumps(command)
        self._worker.send(Kind.TEXT, self.number, text.encode())

    def written(self) -> None:
        """Its socket took all that was said to it alone."""
        self._worker.send(Kind.WRITTEN, self.number, codec.count(self.sent))

    def gone(self, code: int = 1006, answered: bool = False) -> None:
        self._worker.send(Kind.GONE, self.number, struct.pack("<HB", code, answered))
        self._worker.forget(self)


class Worker(asyncio.Protocol):
    """``faults``: what the node did that it must not."""

    def __init__(self, key: str | None = None, versions: tuple[int, int] = (1, 1)) -> None:
        self._key = key
        self._versions = versions
        self._splitter = Splitter()
        self._numbers = 0
        self._events: dict[LinkedClient, list[Any]] = {}
        self.hello: dict[str, str] = {}
        self.up = False
        self.lost = False
        self.pulses = 0
        self.orders = ""
        self.heard = 0
        self.largest: Counter[Kind] = Counter()  # payload of each kind
        self.faults: list[str] = []
        self.clients: dict[int, LinkedClient] = {}
        self.streams: dict[int, Stream] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def send(self, kind: int, number: int, payload: bytes = b"") -> None:
        self.transport.write(codec.frame(kind, number, payload))

    def data_received(self, data: bytes) -> None:
        self._splitter.feed(data)
        for kind, number, payload in self._splitter.frames(1 << 30):
            self._on_frame(Kind(kind), number, payload)

    def _on_frame(self, kind: Kind, number: int, payload: bytes) -> None:
        self.largest[kind] = max(self.largest[kind], len(payload))
        if kind is Kind.HELLO:
            self._on_hello(codec.read_fields(payload))
        elif kind is Kind.PULSE:
            self.up = True
            self.pulses += 1
            self.orders = payload.decode()
        elif kind is Kind.HEARD:
            self._on_heard(number, payload)
        elif number in self.clients:
            self._on_said(self.clients[number], kind, payload)

    def _on_hello(self, fields: dict[str, str]) -> None:
        from tidegate.trunk.server import proof

        self.hello = fields
        answer = {"lowest": self._versions[0], "highest": self._versions[1], "worker": "w1"}
        if self._key is not None:
            answer["proof"] = proof(self._key, fields["nonce"], "w1")
        self.send(Kind.HELLO, 0, codec.fields(**answer))

    def _on_heard(self, number: int, payload: bytes) -> None:
        before, at = codec.read_position(payload, 0)
        after, at = codec.read_position(payload, at)
        stream = self.streams.get(number)
        if stream is None or not stream.live:
            return  # its last session went while this was under way
        if stream.position != before:
            self.faults.append(f"{stream.name} is at {stream.position}, and {before} was heard")
        stream.position = after
        self.heard += 1
        for client in stream.live:
            client.data += payload[at:]

    def _on_said(self, client: LinkedClient, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.ACCEPT:
                client.answer, client.accepted = payload, True
            case Kind.REFUSE:
                client.answer = payload
                self.clients.pop(client.number, None)
            case Kind.WELCOMED:
                client.welcomed = True
            case Kind.PART:
                client.parts += payload
            case Kind.SEND:
                client.data += client.parts + payload
                client.sent += len(client.parts) + len(payload)
                client.parts = b""
            case Kind.DONE:
                client.done = codec.read_count(payload)
            case Kind.READING:
                client.reading = payload == b"\1"
            case Kind.TOKEN:
                client.token = payload.decode()
            case Kind.TRACK:
                self._suspend(client, codec.read_count(payload[:4]))
                client.tracked.add(codec.read_count(payload[:4]))
            case Kind.FOLLOW:
                self._on_follow(client, payload)
            case Kind.UNTRACK:
                self._suspend(client, codec.read_count(payload))
            case Kind.MOVE:
                self.forget(client)
                client.unanswered = codec.read_count(payload[:4])
                client.cursor, _ = codec.read_cursor(payload, 4)
            case Kind.CLOSE:
                client.closed = int.from_bytes(payload[:2], "little"), payload[2:].decode()
            case _:
                self.faults.append(f"{kind.name} is not the node's to say")

    def _on_follow(self, client: LinkedClient, payload: bytes) -> None:
        number = codec.read_count(payload[:4])
        position, at = codec.read_position(payload, 4)
        name = payload[at:].decode()
        stream = self.streams.setdefault(number, Stream(name, position))
        if (stream.live and stream.position != position) or stream.name != name:
            self.faults.append(f"{name} is at {stream.position}, and is followed at {position}")
        stream.position = position
        client.tracked.discard(number)
        client.live.add(number)
        stream.live.add(client)

    def _suspend(self, client: LinkedClient, number: int) -> None:
        client.tracked.discard(number)
        if number in client.live:
            client.live.discard(number)
            self.streams[number].live.discard(client)

    def forget(self, client: LinkedClient) -> None:
        for number in list(client.live):
            self._suspend(client, number)
        self.clients.pop(client.number, None)

    async def next_event(self, client: LinkedClient) -> Any:
        events = self._events.setdefault(client, [])

        def has_come() -> bool:
            events.extend(client.take())
            return bool(events)

        await eventually(has_come)
        return events.pop(0)

    def open(self, query: str, headers: str = "") -> LinkedClient:
        """Begins a handshake."""
        return self.ask(Kind.OPEN, HANDSHAKE.format(query=query, headers=headers).encode())

    def ask(self, kind: Kind, payload: bytes) -> LinkedClient:
        """OPEN or RESUME."""
        self._numbers += 1
        client = self.clients[self._numbers] = LinkedClient(self, self._numbers)
        self.send(kind, client.number, payload)
        return client

    def resume(self, name: str, connection: str, orders: str) -> LinkedClient:
        """A client comes from another node, where it had its own stream and ``all``, without a message."""
        self._numbers += 1
        client = self.clients[self._numbers] = LinkedClient(self, self._numbers)
        known = codec.fields(connection=connection, term=1, orders=orders)
        cursor = codec.cursor({f"client:{name}": Position("e", 1), "all": Position("e", 1)})
        head = HANDSHAKE.format(query=f"client={name}", headers="").encode()
        self.send(Kind.RESUME, client.number, codec.count(len(known)) + known + cursor + head)
        return client

    async def welcome(self, query: str) -> tuple[LinkedClient, dict[str, Any]]:
        client = self.open(query)
        return client, await client.gets("welcome")


@contextlib.asynccontextmanager
async def linked(path: str, key: str | None = None, versions: tuple[int, int] = (1, 1)) -> AsyncIterator[Worker]:
    """A worker whose trunk to the node at ``path`` is up. At its end the node must have made no fault."""
    _, worker = await asyncio.get_running_loop().create_unix_connection(lambda: Worker(key, versions), path)
    try:
        await eventually(lambda: worker.up or worker.lost)
        yield worker
    finally:
        worker.transport.abort()
    assert worker.faults == []
