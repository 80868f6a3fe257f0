"""Servers that calls are made to, which do what a test says, and the caller that makes them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.support import eventually
from tidegate.calls import Caller, CallResult
from tidegate.config.settings import CallsSettings

Exchange = Callable[["Peer"], Awaitable[None]]


class Request:
    def __init__(self, head: bytes, body: bytes) -> None:
        line, *fields = head.decode().removesuffix("\r\n\r\n").split("\r\n")
        self.line = line
        self.headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        self.body = body


class Peer:
    """One connection, as the server sees it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> Request:
        """The next request; it is also kept in ``server.requests``."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        request = Request(head, b"")
        request.body = await self.reader.readexactly(int(request.headers["content-length"]))
        self.server.requests.append(request)
        return request

    async def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))
        await self.writer.drain()

    async def answer(self, body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> None:
        await self.send(head, b"Content-Length: %d\r\n\r\n" % len(body), body)

    def reset(self) -> None:
        """Has the connection end with RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


class Server:
    """A TCP server that does with each connection what the test says, and then closes it."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.accepted = 0
        self.open = 0
        self.most_open = 0


@contextlib.asynccontextmanager
async def serving(exchange: Exchange) -> AsyncIterator[Server]:
    state = Server()
    tasks: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        state.accepted += 1
        state.open += 1
        state.most_open = max(state.open, state.most_open)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await exchange(Peer(state, reader, writer))
        finally:
            state.open -= 1
            writer.close()
            tasks.discard(task)
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # the test has ended
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        while tasks:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await server.wait_closed()


class Calling:
    """A caller, and what it told of its calls."""

    def __init__(self, caller: Caller, outcomes: list[str]) -> None:
        self.caller = caller
        self.outcomes = outcomes

    async def __call__(
        self, data: bytes = b"{}", *, client: str = "alice", method: str = "echo", request_id: str = "r1"
    ) -> CallResult:
        return await self.caller.call(
            client=client, connection="n1k4-7", request_id=request_id, method=method, data=data
        )


@contextlib.asynccontextmanager
async def calling(url: str, **settings: Any) -> AsyncIterator[Calling]:
    """Checks at its end that neither a task nor a connection is left: a server's task ends with its connection."""
    before = asyncio.all_tasks()
    outcomes: list[str] = []

    def observe(outcome: str, seconds: float) -> None:
        assert seconds >= 0
        outcomes.append(outcome)

    caller = Caller(CallsSettings(url=url, **{"timeout_s": 5, **settings}), observe)
    await caller.start()
    try:
        yield Calling(caller, outcomes)
    finally:
        await caller.stop()
        await eventually(lambda: asyncio.all_tasks() <= before)


def answering(*parts: bytes, head: bytes | None = None) -> Exchange:
    """Each connection: one request, one answer; raw where there is a head."""

    async def exchange(peer: Peer) -> None:
        await peer.request()
        if head is None:
            await peer.answer(b"".join(parts))
        else:
            await peer.send(head, b"\r\n", *parts)

    return exchange
