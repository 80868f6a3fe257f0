"""An application that events are posted to: it checks signatures and answers as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.callee import Peer, Server, serving

KEY = "0123456789abcdef-events"
OK = b"HTTP/1.1 200 OK\r\n"


def status(code: int, *headers: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {code} So", *headers)).encode()


class Receiver:
    """``answer(events)`` gives the head of what is answered to a batch; nothing: there is no answer until ``release``.
    ``taken`` is what got a 2xx."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = f"{server.url}/events"
        self.answer: Callable[[list[dict[str, str]]], bytes] = lambda events: OK
        self.batches: list[dict[str, Any]] = []
        self.taken: list[dict[str, str]] = []
        self.release = asyncio.Event()
        self.at_once = self.most_at_once = 0

    @property
    def clients(self) -> list[str]:
        return [event["client"] for event in self.taken]

    async def exchange(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await self._receive(peer, request.headers, request.body)
            finally:
                self.at_once -= 1

    async def _receive(self, peer: Peer, headers: dict[str, str], body: bytes) -> None:
        """As docs/protocol.md tells an application to."""
        timestamp = headers["tidegate-timestamp"]
        signed = hmac.new(KEY.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert headers["tidegate-signature"] == f"v1={signed}"
        assert abs(time.time() - int(timestamp)) < 60
        batch = json.loads(body)
        self.batches.append(batch)
        head = self.answer(batch["events"])
        if not head:
            await self.release.wait()
            head = OK
        if b" 200 " in head:
            self.taken += batch["events"]
        await peer.answer(b"", head)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receivers: list[Receiver] = []

    async def exchange(peer: Peer) -> None:
        await receivers[0].exchange(peer)

    async with serving(exchange) as server:
        receivers.append(Receiver(server))
        yield receivers[0]
