"""Push through Redis: commands, what their answers mean, and who sends them, blocking or awaiting.

Source: docs/scaling.md, Push through Redis. A batch is one transaction, so that other programs' pushes do not come
between and a cut leaves all of it or nothing. redis-py repeats nothing by itself here: it does not know what may be
repeated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.backoff
import redis.connection
import redis.exceptions
import redis.retry
import redis.sentinel

from tidegate_client.publisher.attempts import Trouble
from tidegate_client.publisher.errors import Refused
from tidegate_client.publisher.lifetimes import PerLoop, PerProcess
from tidegate_client.publisher.pushes import Item, Limits

_MAY_PASS = ("LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "OOM", "TRYAGAIN", "BUSY", "MISCONF")

# How redis-py says that no connection came about, so that nothing was sent; its exceptions do not tell.
_NOT_REACHED = re.compile(r"(Error .*|Timeout) connecting to ")

Commands: TypeAlias = Sequence[Sequence[Any]]
Replies: TypeAlias = Sequence[Any]
Outcome: TypeAlias = Replies | Trouble | Refused  # of one attempt
Result: TypeAlias = Refused | Trouble | None


class RedisPushes:
    """Pushes as commands, and their replies as results: None for one that was accepted, which has no position yet."""

    def __init__(self, prefix: str, limits: Limits) -> None:
        self._stream = f"{prefix}:push"
        self._limits = limits

    def one(self, item: Item) -> Commands:
        return [self._command(item)]

    def accepted(self, answer: Outcome) -> Result:
        return answer if isinstance(answer, Trouble | Refused) else _result(answer[0])

    def fit(self, items: Sequence[Item]) -> int:
        """As much as one HTTP request may hold: Redis does nothing else meanwhile."""
        size = 0
        for count, item in enumerate(items):
            size += len(item.data)
            if size > self._limits.body_bytes and count:
                return count
        return len(items)

    def many(self, items: Sequence[Item]) -> Commands:
        return [self._command(item) for item in items]

    def results(self, items: Sequence[Item], answer: Outcome) -> Sequence[Result]:
        if isinstance(answer, Trouble | Refused):
            return [answer] * len(items)
        return [_result(reply) for reply in answer]

    def _command(self, item: Item) -> Sequence[Any]:
        key = () if item.key is None else ("key", item.key)
        word = () if item.conflate is None else ("conflate", item.conflate)
        span = () if item.traceparent is None else ("traceparent", item.traceparent)
        return ("XADD", self._stream, "*", item.kind, item.name or "1", "data", item.data, *key, *word, *span)


def _result(reply: Any) -> Result:
    if not isinstance(reply, Exception):
        return None
    if _passes(reply):
        return Trouble("unreachable", _text(reply), False)
    return Refused("redis", _text(reply))


def _text(error: BaseException) -> str:
    """What was wrong. redis-py puts the whole command before it, data and all, which is nobody's business."""
    return str(error).rpartition("pipeline caused error: ")[2] or type(error).__name__


def _passes(error: BaseException) -> bool:
    """Whether Redis refused for a reason that may pass. redis-py has its own classes for some of these words, and cuts
    them off the text."""
    kinds = (
        redis.exceptions.BusyLoadingError,
        redis.exceptions.ReadOnlyError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.MasterDownError,
        redis.exceptions.TryAgainError,
    )
    return isinstance(error, kinds) or _text(error).startswith(_MAY_PASS)


def _trouble(exc: redis.exceptions.RedisError) -> Trouble | Refused:
    text = _text(exc)
    if _passes(exc) or isinstance(exc, redis.sentinel.MasterNotFoundError) or _NOT_REACHED.match(text):
        return Trouble("unreachable", text, False)
    refusals = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
    if isinstance(exc, redis.exceptions.TimeoutError):
        return Trouble("timeout", text, True)
    if isinstance(exc, redis.exceptions.ConnectionError) and not isinstance(exc, refusals):
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return Refused("tls", text)
        return Trouble("cut", text, True)
    return Refused("redis", text)


# Who sends


class Sentinels(NamedTuple):
    addresses: list[tuple[str, int]]
    name: str
    sentinel: dict[str, Any]  # options of the connections to Sentinels
    redis: dict[str, Any]  # and of those to the Redis that they name


def where(url: str) -> Sentinels | None:
    """The Sentinels that the URL names; None where it names a Redis. Raises ValueError where it is malformed."""
    if "+sentinel" in url.partition(":")[0]:
        return _sentinels(url)
    redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return None


def _sentinels(url: str) -> Sentinels:
    """What ``redis+sentinel://user:password@h1:26379,h2:26379/NAME?db=0`` says, as docs/scaling.md has it. Raises
    ValueError."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    query = dict(parse_qsl(parts.query))
    both: dict[str, Any] = {name: query.pop(name) for name in list(query) if name.startswith("ssl_")}
    if parts.scheme == "rediss+sentinel":
        both["ssl"] = True
    sentinel = {name: query.pop(f"sentinel_{name}") for name in ("username", "password") if f"sentinel_{name}" in query}
    own: dict[str, Any] = {"db": int(query.pop("db", 0))}
    if credentials:
        own |= {"username": unquote(user) or None, "password": unquote(password) or None}
    name = unquote(parts.path.strip("/"))
    if query or not name:
        raise ValueError(
            "redis+sentinel://[user:password@]host:port[,…]/NAME[?db=&sentinel_username=&sentinel_password=]"
        )
    addresses = [_host_port(host) for host in hosts.split(",")]
    return Sentinels(addresses, name, {**both, **sentinel}, {**both, **own})


def _host_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or 26379


class _Clients(NamedTuple):
    """Of one process or one loop: who speaks to Redis, and those who ask Sentinels where it is."""

    redis: Any
    sentinels: Sequence[Any] = ()


class RedisOptions(NamedTuple):
    """``where`` is for Sentinels, None for a Redis that is named itself."""

    url: str
    timeout_s: float
    where: Sentinels | None

    def make(self) -> _Clients:
        options = self._options(redis.retry.Retry(redis.backoff.NoBackoff(), 0))
        where = self.where
        if where is None:
            return _Clients(redis.Redis.from_url(self.url, **options))
        asked: Any = redis.sentinel.Sentinel  # has no types
        finder = asked(where.addresses, sentinel_kwargs={**options, **where.sentinel}, **options)
        return _Clients(finder.master_for(where.name, **where.redis), finder.sentinels)

    def make_async(self) -> _Clients:
        options = self._options(redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0))
        where = self.where
        if where is None:
            return _Clients(redis.asyncio.Redis.from_url(self.url, **options))
        asked: Any = redis.asyncio.sentinel.Sentinel
        finder = asked(where.addresses, sentinel_kwargs={**options, **where.sentinel}, **options)
        return _Clients(finder.master_for(where.name, **where.redis), finder.sentinels)

    def _options(self, retry: Any) -> dict[str, Any]:
        return {
            "retry": retry,
            "socket_timeout": self.timeout_s,
            "socket_connect_timeout": self.timeout_s,
            "protocol": 2,
        }


class RedisSender:
    def __init__(self, options: RedisOptions) -> None:
        self._redis = PerProcess(options.make)

    def send(self, commands: Commands, timeout_s: float) -> Outcome:
        client = self._redis.get().redis
        try:
            if len(commands) == 1:
                return [client.execute_command(*commands[0])]
            with client.pipeline(transaction=True) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: Replies = pipeline.execute(raise_on_error=False)
                return replies
        except redis.exceptions.ResponseError as exc:
            return [exc] * len(commands)  # nothing was taken
        except redis.exceptions.RedisError as exc:
            return _trouble(exc)

    def close(self) -> None:
        if made := self._redis.take():
            for client in (made.redis, *made.sentinels):
                client.close()


class AsyncRedisSender:
    def __init__(self, options: RedisOptions) -> None:
        self._redis = PerLoop(options.make_async, _close)

    async def send(self, commands: Commands, timeout_s: float) -> Outcome:
        client = (await self._redis.get()).redis
        try:
            if len(commands) == 1:
                return [await client.execute_command(*commands[0])]
            async with client.pipeline(transaction=True) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: Replies = await pipeline.execute(raise_on_error=False)
                return replies
        except redis.exceptions.ResponseError as exc:
            return [exc] * len(commands)  # nothing was taken
        except redis.exceptions.RedisError as exc:
            return _trouble(exc)

    async def close(self) -> None:
        await self._redis.close()


async def _close(made: _Clients) -> None:
    for client in (made.redis, *made.sentinels):
        await client.aclose()
