"""Wires on real sockets, for tests: what a peer was told, and what came out at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from tests.support import eventually, scaled
from tidegate.core import frames
from tidegate.core.pace import UNLIMITED, Rates, What
from tidegate.turn import WriteBatch
from tidegate.websocket.wire import Wire

MESSAGE_BYTES = 128 * 1024

NAMES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}

Frames = list[tuple[str, bytes]]


class CountingSocket(socket.socket):
    """A real socket that remembers how much each ``send`` was given, and takes no more than ``most`` of it."""

    sent: list[int]
    most: int | None

    def send(self, data: Any, flags: int = 0) -> int:
        self.sent.append(len(data))
        return super().send(data[: self.most], flags)


def connected(*, buffers: int | None = None) -> tuple[CountingSocket, socket.socket]:
    """Two ends of a TCP connection, neither of which blocks. ``buffers``: the kernel's, about, so that they fill."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.socket()
        if buffers is not None:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        theirs.connect(listener.getsockname())
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        accepted, _ = listener.accept()
    ours = CountingSocket(fileno=accepted.detach())
    ours.sent, ours.most = [], None
    if buffers is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def frames_of(data: bytes) -> Frames:
    """The frames in ``data`` as (name, payload). Raises AssertionError unless they are whole and as a server's are."""
    found: Frames = []
    while data:
        first, length, at = data[0], data[1], 2
        assert first & 0xF0 == 0x80, "final, no reserved bits"
        assert length < 0x80, "not masked"
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(data[2:at], "big")
        assert len(data) >= at + length, "cut"
        found.append((NAMES[first & 0x0F], data[at : at + length]))
        data = data[at + length :]
    return found


def closed_with(found: Frames) -> int | None:
    """The code of the close frame, which must be the last frame; None if there is none."""
    assert all(name != "close" for name, _ in found[:-1]), "something follows the close frame"
    if not found or found[-1][0] != "close":
        return None
    return int.from_bytes(found[-1][1][:2], "big")


class Heard:
    """The peer of a wire: remembers what it was told. ``on_text_do`` is called with each text."""

    def __init__(self) -> None:
        self.messages: Frames = []
        self.slow = 0
        self.shares = 0  # used up
        self.paced: list[What] = []
        self.closing = 0
        self.closed: tuple[int, bool] | None = None  # (code, answered)
        self.on_text_do: Callable[[bytes], None] = lambda payload: None
        self.on_slow_do: Callable[[], None] = lambda: None

    def on_text(self, payload: bytes) -> None:
        self.messages.append(("text", payload))
        self.on_text_do(payload)

    def on_binary(self, payload: bytes) -> None:
        self.messages.append(("binary", payload))

    def on_pong(self, payload: bytes) -> None:
        self.messages.append(("pong", payload))

    def on_share_used(self) -> None:
        self.shares += 1

    def on_paced(self, what: What) -> None:
        self.paced.append(what)

    def on_slow(self) -> None:
        self.slow += 1
        self.on_slow_do()

    def on_closing(self, code: int | None) -> None:
        self.closing += 1

    def on_closed(self, code: int, answered: bool) -> None:
        assert self.closed is None, "told twice"
        self.closed = (int(code), answered)


class Line:
    """A wire on the running loop, and the other end of its socket, which does only what the test says."""

    def __init__(
        self,
        turn: WriteBatch | None = None,
        *,
        buffers: int | None = None,
        outbox_bytes: int = 2**20,
        start: bool = True,
        early: bytes = b"",
        rates: Rates = UNLIMITED,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.turn = turn or WriteBatch(self.loop.call_soon)
        self.heard = Heard()
        self.ours: CountingSocket
        self.ours, self.theirs = connected(buffers=buffers)
        self.wire = Wire(
            self.ours,
            self.loop,
            self.turn,
            message_bytes=MESSAGE_BYTES,
            outbox_bytes=outbox_bytes,
            binary=True,
            rates=rates,
        )
        self._read = b""
        if start:
            self.wire.start(self.heard, early)

    def put(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.wire.put(frames.text(payload))

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(self.loop.sock_sendall(self.theirs, data), scaled(10))

    async def frames(self, count: int) -> Frames:
        """What came first; no more than ``count`` frames may have come."""
        while len(found := _whole(self._read)) < count:
            assert await self._receive(), f"ended after {len(found)}"
        assert len(found) == count
        return found

    async def end(self) -> Frames:
        """Everything that ever came, once there is an end of file. A reset is none."""
        while await self._receive():
            pass
        return frames_of(self._read)

    async def _receive(self, most: int = 65536) -> bytes:
        part = await asyncio.wait_for(self.loop.sock_recv(self.theirs, most), scaled(10))
        self._read += part
        return part

    async def closed(self) -> tuple[int, bool]:
        """(code, answered)"""
        closed: tuple[int, bool] = await eventually(lambda: self.heard.closed)
        return closed

    async def stalled(self) -> None:
        await eventually(lambda: self.wire.stalled_since)


def _whole(data: bytes) -> Frames:
    """The frames at the beginning of ``data`` that have come completely."""
    found: Frames = []
    while len(data) >= 2:
        length = {126: 4 + int.from_bytes(data[2:4], "big"), 127: 10 + int.from_bytes(data[2:10], "big")}.get(
            data[1], 2 + data[1]
        )
        if len(data) < length:
            break
        found += frames_of(data[:length])
        data = data[length:]
    return found
