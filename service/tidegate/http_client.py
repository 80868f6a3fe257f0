"""Requests to an application, over connections that are kept.

An application closes idle connections, and it may do so while a request is on its way to it. Such a request is made
once more: only where the connection had served before and broke without an answer, within the same time, and with
the same headers. On a new connection nothing is ever sent twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp

from tidegate import aiohttp_seam
from tidegate.core.errors import CallBadAnswer, CallUnavailable

# Servers commonly close after 5 s (uvicorn, Node) or more; being first makes the race above rare.
_KEEPALIVE_S = 4.0


class HttpAnswer(NamedTuple):
    status: int
    body: bytes
    retry_after: str = ""


class HttpClient:
    """``connections`` at once at most, answers of up to ``answer_bytes``. Keeps no time: who asks does."""

    def __init__(self, *, connections: int, answer_bytes: int) -> None:
        self._connections = connections
        self._answer_bytes = answer_bytes
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp_seam.connector(limit=self._connections, keepalive_s=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's cookies are not another's
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            trace_configs=[trace],
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tidegate"},
        )

    async def stop(self) -> None:
        """Cuts the requests in flight: they end as unavailable, as do those that come later."""
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, headers: Mapping[str, str], data: bytes) -> HttpAnswer:
        """The answer, whatever its status; redirects are not followed. Raises CallUnavailable or CallBadAnswer."""
        try:
            response = await self._post(url, headers, data, again=True)
        except aiohttp.ClientConnectorError as exc:
            raise CallUnavailable("could not connect to the application") from exc
        except aiohttp.ClientConnectionError as exc:
            raise CallUnavailable("the connection to the application broke before its answer") from exc
        except aiohttp.ClientError as exc:
            raise CallBadAnswer("the answer is not valid HTTP") from exc
        try:
            return HttpAnswer(response.status, await self._read(response), response.headers.get("Retry-After", ""))
        finally:
            response.close()  # does nothing to a connection whose answer was read to its end

    async def _post(self, url: str, headers: Mapping[str, str], data: bytes, *, again: bool) -> aiohttp.ClientResponse:
        """The answer's head. ``again``: the request may be made a second time."""
        if self._session is None or self._session.closed:
            raise CallUnavailable("this node makes no calls now")
        attempt = SimpleNamespace(reused=False)
        try:
            return await self._session.post(
                url, data=data, headers=headers, allow_redirects=False, trace_request_ctx=attempt
            )
        except aiohttp.ClientConnectionError:
            if not (again and attempt.reused):
                raise
        return await self._post(url, headers, data, again=False)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self._answer_bytes:
                    raise CallBadAnswer(f"the answer is larger than {self._answer_bytes} bytes")
        except (aiohttp.ClientError, OSError) as exc:
            raise CallBadAnswer("the answer ended too early") from exc
        return bytes(body)


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx.reused = True
