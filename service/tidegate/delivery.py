"""One request with events, and what its answer says of them.

A 2xx takes them. What speaks of the content (400, 413, 422 and other 4xx) refuses them. All else speaks of the way: no
answer, 5xx, a redirect, and those 4xx that a wrong URL, a wrong key or a busy application gives. Source:
docs/protocol.md, Events for the application.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from tidegate.config.events import EventsSettings
from tidegate.core.errors import Refused
from tidegate.http_client import HttpAnswer, HttpClient

TIMESTAMP_HEADER = "Tidegate-Timestamp"
SIGNATURE_HEADER = "Tidegate-Signature"
ANSWER_BYTES = 1_048_576  # more than anybody has to say
# Unauthorized, Forbidden, Not Found, Method Not Allowed, proxy authentication, Request Timeout, Misdirected, Too Early,
# Too Many Requests (RFC 9110, 15.5; RFC 8470; RFC 6585)
OF_THE_WAY = frozenset((401, 403, 404, 405, 407, 408, 421, 425, 429))

Verdict: TypeAlias = Literal["taken", "refused", "failed"]


class Outcome(NamedTuple):
    """``failed`` may be tried again, after ``retry_after_s`` where the application says so. ``why`` is for the log."""

    verdict: Verdict
    why: str = ""
    retry_after_s: float = 0.0


class Delivery:
    """Posts to ``settings.url``, signed with ``key``."""

    def __init__(self, settings: EventsSettings, url: str, key: bytes) -> None:
        self._url = url
        self._key = key
        self._timeout_s = settings.timeout_s
        self._http = HttpClient(connections=1, answer_bytes=ANSWER_BYTES)

    async def start(self) -> None:
        await self._http.start()

    async def stop(self) -> None:
        await self._http.stop()

    async def post(self, events: Sequence[bytes], missed: int) -> Outcome:
        body = b'{"missed":%d,"events":[%b]}' % (missed, b",".join(events))
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP_HEADER: str(timestamp),
            SIGNATURE_HEADER: signature(self._key, timestamp, body),
        }
        try:
            async with asyncio.timeout(self._timeout_s):
                return judge(await self._http.post(self._url, headers, body))
        except TimeoutError:
            return Outcome("failed", f"no answer within {self._timeout_s:g} s")
        except Refused as exc:
            return Outcome("failed", exc.message)


def signature(key: bytes, timestamp: int, body: bytes) -> str:
    """Of the time, so that a request which somebody kept is told by its age, and of the body."""
    return "v1=" + hmac.new(key, b"%d.%b" % (timestamp, body), hashlib.sha256).hexdigest()


def judge(answer: HttpAnswer) -> Outcome:
    status = answer.status
    why = f"the application answered {status}"
    if 200 <= status < 300:
        return Outcome("taken")
    if 400 <= status < 500 and status not in OF_THE_WAY:
        return Outcome("refused", why)
    # As a date it is not looked at: then the usual time is waited.
    seconds = answer.retry_after
    return Outcome("failed", why, float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0)
