"""A call becomes a request: ``POST {calls.url}/{method}``, and its answer comes back as JSON text. Source:
docs/protocol.md, Calls.

A request whose kept connection breaks is made once more (``http_client``), with the same ``X-Request-Id``, by which the
application can tell. Nobody else could repeat it so: a client that repeats its call does it under a new id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tidegate.config.settings import CallsSettings
from tidegate.core.errors import CallBadAnswer, CallTimeout, NotAllowed, Refused, TooDeep
from tidegate.core.protocol import check_depth
from tidegate.http_client import HttpClient
from tidegate.slots import Slots

ANSWER_DEPTH = 64

_decode = msgspec.json.Decoder(msgspec.Raw).decode

Observe = Callable[[str, float], None]  # ("reply" or an error's code, seconds)


class CallResult(NamedTuple):
    """``data`` is JSON text as it came, without the whitespace around it; ``null`` for an empty body."""

    status: int
    data: bytes


class Caller:
    """Makes the requests of one node, over connections that it keeps. How many calls one client may have in flight
    is not its affair."""

    def __init__(self, calls: CallsSettings, observe: Observe) -> None:
        self._calls = calls
        self._observe = observe
        self.slots = Slots(calls.connections, methods=len(calls.allow))
        self._urls = {method: f"{calls.url}/{method}" for method in calls.allow}
        self._http = HttpClient(connections=calls.connections, answer_bytes=calls.answer_bytes)

    async def start(self) -> None:
        await self._http.start()

    async def stop(self) -> None:
        """Cuts the calls in flight: they end as unavailable, as do those that come later."""
        await self._http.stop()

    async def call(
        self,
        *,
        client: str,
        connection: str,
        request_id: str,
        method: str,
        data: bytes,
        traceparent: str | None = None,
    ) -> CallResult:
        """The application's answer, whatever its status. ``data`` is JSON; ``request_id`` is visible ASCII and this
        call's own; ``traceparent`` goes on as it came. Raises NotAllowed, CallTimeout, CallUnavailable or
        CallBadAnswer."""
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
        if traceparent is not None:
            headers["traceparent"] = traceparent
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(self._calls.timeout_s):
                async with self.slots.of(client, method):
                    answered = await self._http.post(url, headers, data)
                    answer = CallResult(answered.status, check_answer(answered.body))
        except TimeoutError:
            self._observe(CallTimeout.code, time.monotonic() - begun_s)
            raise CallTimeout(f"no answer within {self._calls.timeout_s:g} s") from None
        except Refused as exc:
            self._observe(exc.code, time.monotonic() - begun_s)
            raise
        self._observe("reply", time.monotonic() - begun_s)
        return answer


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
