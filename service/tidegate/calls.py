"""A call becomes a request: ``POST {calls.url}/{method}``, and its answer comes back as JSON text. Source:
docs/protocol.md, Calls.

An application closes idle connections, and it may do so while a request is on its way to it. Such a request is made
once more: only where the connection had served before and broke without an answer, within the same time, and with
the same ``X-Request-Id``, by which the application can tell. Nobody else could repeat it so: a client that repeats
its call does it under a new id. On a new connection nothing is ever sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import msgspec

from tidegate import aiohttp_seam
from tidegate.config.settings import CallsSettings
from tidegate.core.errors import CallBadAnswer, CallTimeout, CallUnavailable, NotAllowed, Refused, TooDeep
from tidegate.core.protocol import check_depth

ANSWER_DEPTH = 64

# Servers commonly close after 5 s (uvicorn, Node) or more; being first makes the race above rare.
_KEEPALIVE_S = 4.0

_decode = msgspec.json.Decoder(msgspec.Raw).decode

Observe = Callable[[str, float], None]  # ("reply" or an error's code, seconds)


class CallResult(NamedTuple):
    """``data`` is JSON text as it came, without the whitespace around it; ``null`` for an empty body."""

    status: int
    data: bytes


class Slots:
    """Gives out the ``limit`` connections, so that calls which hang do not take them all: a client may
    have as many as are free, half of all where nobody else calls; a method, where there are several, three times as
    many as are free. Somebody else finds one free then. Calls that wait get one in turn, method by method, client by
    client."""

    def __init__(self, limit: int, *, methods: int) -> None:
        self._free = limit
        self._methods = methods
        self._of_client: Counter[str] = Counter()
        self._of_method: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[str, dict[asyncio.Future[None], None]]] = OrderedDict()
        self.waiting = 0  # calls

    @contextlib.asynccontextmanager
    async def of(self, client: str, method: str) -> AsyncIterator[None]:
        if self._may(client, method):  # who waits may not: else they would have been let in before
            self._take(client, method)
        else:
            await self._wait(client, method)
        try:
            yield
        finally:
            self._give(client, method)

    def _may(self, client: str, method: str) -> bool:
        return self._of_client[client] < self._free and self._may_method(method)

    def _may_method(self, method: str) -> bool:
        return self._methods == 1 or self._of_method[method] < 3 * self._free

    def _take(self, client: str, method: str) -> None:
        self._free -= 1
        self._of_client[client] += 1
        self._of_method[method] += 1

    def _give(self, client: str, method: str) -> None:
        self._free += 1
        self._of_method[method] -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]
        self._let_in()

    async def _wait(self, client: str, method: str) -> None:
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(method, OrderedDict()).setdefault(client, {})[slot] = None
        self.waiting += 1
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():
                self._give(client, method)  # it came at the same time
            else:
                self._leave(client, method, slot)
            raise

    def _leave(self, client: str, method: str, slot: asyncio.Future[None]) -> None:
        """It waits no longer. Idempotent."""
        clients = self._waiting.get(method)
        if clients is None or slot not in clients.get(client, ()):
            return
        self.waiting -= 1
        del clients[client][slot]
        if not clients[client]:
            del clients[client]
        if not clients:
            del self._waiting[method]

    def _let_in(self) -> None:
        """Everybody who may have a slot now."""
        while (found := self._next()) is not None:
            client, method = found
            clients = self._waiting[method]
            slot = next(iter(clients[client]))
            self._waiting.move_to_end(method)
            clients.move_to_end(client)
            self._leave(client, method, slot)
            if not slot.cancelled():
                self._take(client, method)
                slot.set_result(None)

    def _next(self) -> tuple[str, str] | None:
        for method, clients in self._waiting.items():
            if self._free and self._may_method(method):
                for client in clients:  # few have as many as are free, so that this is short
                    if self._of_client[client] < self._free:
                        return client, method
        return None


class Caller:
    """Makes the requests of one node, over connections that it keeps. How many calls one client may have in flight
    is not its affair."""

    def __init__(self, calls: CallsSettings, observe: Observe) -> None:
        self._calls = calls
        self._observe = observe
        self.slots = Slots(calls.connections, methods=len(calls.allow))
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

    async def call(self, *, client: str, connection: str, request_id: str, method: str, data: bytes) -> CallResult:
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
                async with self.slots.of(client, method):
                    answer = await self._exchange(url, headers, data)
        except TimeoutError:
            self._observe(CallTimeout.code, time.monotonic() - begun_s)
            raise CallTimeout(f"no answer within {self._calls.timeout_s:g} s") from None
        except Refused as exc:
            self._observe(exc.code, time.monotonic() - begun_s)
            raise
        self._observe("reply", time.monotonic() - begun_s)
        return answer

    async def _exchange(self, url: str, headers: dict[str, str], data: bytes) -> CallResult:
        try:
            response = await self._post(url, headers, data, again=True)
        except aiohttp.ClientConnectorError as exc:
            raise CallUnavailable("could not connect to the application") from exc
        except aiohttp.ClientConnectionError as exc:
            raise CallUnavailable("the connection to the application broke before its answer") from exc
        except aiohttp.ClientError as exc:
            raise CallBadAnswer("the answer is not valid HTTP") from exc
        try:
            return CallResult(response.status, check_answer(await self._read(response)))
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
