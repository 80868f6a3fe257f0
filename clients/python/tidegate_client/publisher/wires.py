"""Which wire a URL asks for: the HTTP API, or Redis. What a wire needs is imported when it is asked for."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tidegate_client.extras import of_extra
from tidegate_client.publisher.calls import Pushes
from tidegate_client.publisher.pushes import Limits

_URLS = "url: http://host:port of the gateway's internal port, or redis://host:port/db"


class Sender(Protocol):
    def send(self, request: Any, timeout_s: float) -> Any: ...
    def close(self) -> None: ...


class AsyncSender(Protocol):
    async def send(self, request: Any, timeout_s: float) -> Any: ...
    async def close(self) -> None: ...


class Wire(NamedTuple):
    """``answers``: it is the HTTP API, which takes more than pushes."""

    pushes: Pushes
    answers: bool
    sender: Callable[[], Sender]
    async_sender: Callable[[], AsyncSender]


class WireOptions(NamedTuple):
    api_key: str | None
    prefix: str
    timeout_s: float
    ssl_context: ssl.SSLContext | None


def wire(url: str, limits: Limits, options: WireOptions) -> Wire:
    """Raises ValueError for a URL that is neither."""
    match urlsplit(url).scheme:
        case "http" | "https":
            return _http(url.rstrip("/"), limits, options)
        case "redis" | "rediss" | "unix" | "redis+sentinel" | "rediss+sentinel":
            return _redis(url, limits, options)
    raise ValueError(_URLS)


def _http(url: str, limits: Limits, options: WireOptions) -> Wire:
    with of_extra("http", "httpx"):
        from tidegate_client.publisher.http_senders import AsyncHttpSender, HttpOptions, HttpSender
    from tidegate_client.publisher.over_http import HttpPushes

    parts = urlsplit(url)
    if not parts.hostname or parts.username is not None or parts.query or parts.port == 0:  # raises ValueError, too
        raise ValueError(_URLS)
    key = (options.api_key or "").strip()  # of a file, whose last line has an end
    if not (key.isascii() and key.isprintable()):
        raise ValueError("api_key: visible ASCII characters only")
    own = HttpOptions(url, key, options.ssl_context)
    return Wire(HttpPushes(limits), True, lambda: HttpSender(own), lambda: AsyncHttpSender(own))


def _redis(url: str, limits: Limits, options: WireOptions) -> Wire:
    with of_extra("redis", "redis"):
        from tidegate_client.publisher.over_redis import AsyncRedisSender, RedisOptions, RedisPushes, RedisSender, where

    if options.api_key is not None:
        raise ValueError("api_key: the key of Redis is in its URL")
    own = RedisOptions(url, options.timeout_s, where(url))
    return Wire(RedisPushes(options.prefix, limits), False, lambda: RedisSender(own), lambda: AsyncRedisSender(own))
