"""An application that is asked who a client is, by its session cookie, as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.callee import Peer, Request, Server, serving

ORIGIN = "https://site.example"  # of the pages that may connect


class Site:
    """``sessions``: what it answers for which session; an int is a status. While ``hangs`` is set it answers nobody."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {"s-alice": {"client": "alice", "groups": ["news", "team.*"]}}
        self.server: Server | None = None
        self.hangs = False
        self.hangs_for = ""  # an address
        self.hangs_for_session = "-"
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._went_on = asyncio.Event()

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"{self.server.url}/who/"

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"AUTH__MODE": "callback", "AUTH__CALLBACK_URL": self.url, "ORIGINS": [ORIGIN], **more}

    def go_on(self) -> None:
        self.hangs = False
        self._went_on.set()

    async def exchange(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                await self._answer(peer, request)
            finally:
                self._at_once -= 1

    async def _answer(self, peer: Peer, request: Request) -> None:
        assert request.line == "POST /who/ HTTP/1.1"
        assert request.headers["content-type"] == "application/json"
        question = json.loads(request.body)
        self.asked.append(question)
        session = question["headers"].get("cookie", "").partition("session=")[2]
        if self.hangs or question["address"] == self.hangs_for or session == self.hangs_for_session:
            await self._went_on.wait()
        answer = self.sessions.get(session, 401)
        if isinstance(answer, int):
            await peer.answer(b"{}", b"HTTP/1.1 %d It is so\r\n" % answer)
        else:
            await peer.answer(answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def as_page(session: str, origin: str = ORIGIN) -> dict[str, str]:
    """What a browser sends with a page's WebSocket."""
    return {"Cookie": f"session={session}", "Origin": origin}


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[Site]:
    made = Site()
    async with serving(made.exchange) as server:
        made.server = server
        yield made
