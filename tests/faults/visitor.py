"""A client's visit: a fast WebSocket whose events go to its reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import picows

from tests.faults.ledger import Reader
from tests.support import scaled

TROUBLE = (OSError, picows.WSError, TimeoutError)

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
        self._begun_s = time.monotonic()
        self._reader = reader
        self._transport: Any = None
        self._cut = False

    def on_ws_connected(self, transport: Any) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: Any) -> None:
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

    async def cut(self) -> None:
        """Without a close frame; nothing reaches the reader any more."""
        if not self.gone.is_set():
            self._cut = True
            self._transport.disconnect(False)
            await self.gone.wait()


async def visit(port: int, reader: Reader, query: Mapping[str, str]) -> Visitor:
    """Raises one of ``TROUBLE``."""
    url = f"ws://127.0.0.1:{port}/ws-notifications/?{urlencode({'client': reader.name, **query})}"
    visitor = Visitor(reader)
    await picows.ws_connect(lambda: visitor, url, websocket_handshake_timeout=scaled(10))
    if not visitor.connected:  # picows 2.3 returns where the node died before it had answered
        raise ConnectionError("cut in the handshake")
    return visitor
