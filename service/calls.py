"""A call becomes a request: ``POST {calls.url}/{method}``, and its answer comes back as JSON text. Source:
docs/protocol.md, Calls.

An application closes idle connections, and it may do so while a request is on its way to it. Such a request is made
once more: only where the connection had served before and broke without an answer, within the same time, and with
the same ``X-Request-Id``, by which the application can tell. Nobody else could repeat it so: a client that repeats
its call does it under a new id. On a new connection nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import msgspec

from service import aiohttp_seam
from service.errors import CallBadAnswer, CallTimeout, CallUnavailable, NotAllowed, Refused, TooDeep
from service.protocol import check_depth
from service.settings import Calls

ANSWER_DEPTH = 64

# Servers commonly close after 5 s (uvicorn, Node) or more; being first makes the race above rare.
_KEEPALIVE_S = 4.0

_decode = msgspec.json.Decoder(msgspec.Raw).decode

Observe = Callable[[str, float], None]  # ("reply" or an error's code, seconds)


class Answer(NamedTuple):
    """``data`` is JSON text as it came, without the whitespace around it; ``null`` for an empty body."""

    status: int
    data: bytes


class Caller:
    """Makes the requests of one node, over connections that it keeps. How many calls one client may have in flight
    is not its affair."""

    def __init__(self, calls: Calls, observe: Observe) -> None:
        self._calls = calls
        self._observe = observe
        self._urls = {method: f"{calls.url}/{method}" for method in calls.allow}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp_seam.connector(limit=self._calls.connections, keepalive_s=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's cookies are not another's
            timeout=aiohttp.ClientTimeout(total=None),  # `call` keeps the time
            trust_env=False,
            auto_decompress=False,
            trace_configs=[trace],
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tidegate"},
        )

    async def stop(self) -> None:
        """Cuts the calls in flight: they end as unavailable, as do those that come later."""
        if self._session is not None:
            await self._session.close()

    async def call(self, *, client: str, connection: str, request_id: str, method: str, data: bytes) -> Answer:
        """The application's answer, whatever its status. ``data`` is JSON; ``request_id`` is visible ASCII and this
        call's own. Raises NotAllowed, CallTimeout, CallUnavailable or CallBadAnswer."""
        url = self._urls.get(method)
        if url is None:
            raise NotAllowed("this method may not be called")
        headers = {
            "Content-Type": "application/json",
            "X-Client-Id": client,
            "X-Connection-Id": connection,
            "X-Request-Id": request_id,
            "X-Tidegate-Via": "service",
        }
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(self._calls.timeout_s):
                answer = await self._exchange(url, headers, data)
        except TimeoutError:
            self._observe(CallTimeout.code, time.monotonic() - begun_s)
            raise CallTimeout(f"no answer within {self._calls.timeout_s:g} s") from None
        except Refused as exc:
            self._observe(exc.code, time.monotonic() - begun_s)
            raise
        self._observe("reply", time.monotonic() - begun_s)
        return answer

    async def _exchange(self, url: str, headers: dict[str, str], data: bytes) -> Answer:
        try:
            response = await self._post(url, headers, data, again=True)
        except aiohttp.ClientConnectorError as exc:
            raise CallUnavailable("could not connect to the application") from exc
        except aiohttp.ClientConnectionError as exc:
            raise CallUnavailable("the connection to the application broke before its answer") from exc
        except aiohttp.ClientError as exc:
            raise CallBadAnswer("the answer is not valid HTTP") from exc
        try:
            return Answer(response.status, check_answer(await self._read(response)))
        finally:
            response.close()  # does nothing to a connection whose answer was read to its end

    async def _post(self, url: str, headers: dict[str, str], data: bytes, *, again: bool) -> aiohttp.ClientResponse:
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
        most = self._calls.answer_bytes
        body = bytearray()
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise CallBadAnswer(f"the answer is larger than {most} bytes")
        except (aiohttp.ClientError, OSError) as exc:
            raise CallBadAnswer("the answer ended too early") from exc
        return bytes(body)


def check_answer(body: bytes) -> bytes:
    """``body`` as an answer's data. It is checked, but not read: a number keeps its digits. Raises CallBadAnswer."""
    if not body:
        return b"null"
    try:
        body.decode()  # msgspec does not look into strings that it need not make
        check_depth(body, ANSWER_DEPTH)
        return bytes(_decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise CallBadAnswer("the answer is not JSON in UTF-8") from None
    except TooDeep as exc:
        raise CallBadAnswer(f"the answer is {exc.message}") from None


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
    context.trace_request_ctx.reused = True
