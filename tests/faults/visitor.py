"""A client's visit: a fast WebSocket whose events go to its reader. A visitor may stop to read for a while. It has then
a small buffer, and segments as on a network: on a loopback a sender has room for megabytes, and waits for nobody."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import picows

from tests.faults.ledger import Reader
from tests.support import scaled

TROUBLE = (OSError, picows.WSError, TimeoutError)
SEGMENT_BYTES = 1400

_decode = msgspec.json.Decoder().decode


class Visitor(picows.WSListener):
    """``gone`` when it has ended, by whomever; ``error`` is what the reader raised. ``ended_s``: how long it was
    welcome when another ended it, with ``code``, None for a cut."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.gone = asyncio.Event()
        self.error: Exception | None = None
        self.code: int | None = None
        self.ended_s: float | None = None
        self.has_stalled = False
        self._begun_s = time.monotonic()
        self._reader = reader
        self._transport: Any = None
        self._cut = False

    def on_ws_connected(self, transport: Any) -> None:
        self._transport = transport
        self._reader.reads(True)

    def on_ws_disconnected(self, transport: Any) -> None:
        self._reader.reads(False)
        if not self._cut:
            self.ended_s = time.monotonic() - self._begun_s
        self.gone.set()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            self.code = int(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type is picows.WSMsgType.TEXT and self.error is None:
            try:
                self._reader.take(_decode(frame.get_payload_as_memoryview()))
            except Exception as exc:
                self.error = exc
                self._cut = True
                transport.disconnect(False)

    @property
    def connected(self) -> bool:
        """Whether it ever was."""
        return self._transport is not None

    def stall(self) -> None:
        """Reads nothing, so that it does not see its end either, until it goes on."""
        if not self.gone.is_set():
            self.has_stalled = True
            self._reader.reads(False)
            self._transport.underlying_transport.pause_reading()

    def go_on(self) -> None:
        if not self.gone.is_set() and self._reader.reads_s is None:
            self._reader.reads(True)
            self._transport.underlying_transport.resume_reading()

    async def cut(self) -> None:
        """Without a close frame; nothing reaches the reader any more."""
        if not self.gone.is_set():
            self.go_on()
            self._cut = True
            self._transport.disconnect(False)
            await self.gone.wait()


async def visit(port: int, reader: Reader, query: Mapping[str, str], rcvbuf: int | None = None) -> Visitor:
    """Raises one of ``TROUBLE``. ``rcvbuf`` is that of one who is to stall."""

    sockets: list[socket.socket] = []

    def make_socket(url: Any) -> socket.socket | None:
        if rcvbuf is None:
            return None
        sock = socket.socket()
        sockets.append(sock)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        return sock

    url = f"ws://127.0.0.1:{port}/ws-notifications/?{urlencode({'client': reader.name, **query})}"
    visitor = Visitor(reader)
    try:
        await picows.ws_connect(
            lambda: visitor, url, websocket_handshake_timeout=scaled(10), socket_factory=make_socket
        )
    except BaseException:
        for sock in sockets:  # picows 2.3 leaves it open where nobody answers
            sock.close()
        raise
    if not visitor.connected:  # picows 2.3 returns where the node died before it had answered
        raise ConnectionError("cut in the handshake")
    return visitor
