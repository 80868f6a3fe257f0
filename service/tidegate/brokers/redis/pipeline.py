"""Connections to Redis: where it is, one line to it, and a link on which commands queue.

redis-py connects, encrypts and signs in; then the transport is the line's, and hiredis packs and parses. Clients and
pools of redis-py are not used: they retry by themselves, and a publish whose answer was lost would be stored twice.
Here nothing is repeated; a line that fails fails whatever waits.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from hiredis import ProtocolError, Reader, pack_command
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.exceptions import RedisError, ResponseError

from tidegate.brokers.redis.redis_seam import close_transport, transport_of
from tidegate.brokers.redis.scripts import Script
from tidegate.brokers.redis.sentinel import Sentinel, Sentinels
from tidegate.config.endpoints import is_host_port
from tidegate.core.errors import BrokerDown, Unusable

Argument: TypeAlias = bytes | str | int
COMMANDS_WAITING = 20_000  # on one link; beyond that Redis is too slow to be asked more
TROUBLE = (RedisError, OSError, EOFError, TimeoutError)


class ConnectionLost(BrokerDown):
    """Nobody listens where Redis was, or only a proxy that does not reach it: its process has ended."""


class Address:
    """Where Redis is, as ``broker.url`` says. Raises Unusable for a URL that cannot be used, without its secrets: any
    part may be one of a password that is not encoded."""

    def __init__(self, url: str) -> None:
        self._sentinels: Sentinels | None = None
        try:
            self._read(url)
            self._make("127.0.0.1", 6379, 1.0)
        except Unusable:
            raise
        except TypeError as exc:  # says which
            option = re.search(r"argument '(\w+)'", str(exc))
            raise Unusable("broker.url", f"unknown option {option[1] if option else ''}; take it out") from None
        except Exception:  # redis-py lets through whatever it meets
            raise Unusable("broker.url", _UNREADABLE) from None

    def _read(self, url: str) -> None:
        kind, _, rest = url.partition("://")
        if kind.endswith("+sentinel"):
            sentinels, name, sentinel_options, url = _of_sentinels(kind.removesuffix("+sentinel"), rest)
        self._class, self._options = _options(url)
        if kind.endswith("+sentinel"):
            encrypted = {name: value for name, value in self._options.items() if name.startswith("ssl_")}
            self._sentinel_options: dict[str, Any] = {**encrypted, **sentinel_options, "protocol": 2}
            self._sentinels = Sentinels(sentinels, name, self._make_sentinel)

    def _make(self, host: str | None, port: int, timeout_s: float) -> AbstractConnection:
        options = dict(self._options)
        if host is not None:
            options |= {"host": host, "port": port}
        return self._class(**options, socket_timeout=None, socket_connect_timeout=timeout_s)

    def _make_sentinel(self, host: str, port: int, timeout_s: float) -> AbstractConnection:
        options = {**self._sentinel_options, "host": host, "port": port}
        return self._class(**options, socket_timeout=None, socket_connect_timeout=timeout_s)

    async def connect(self, timeout_s: float) -> AbstractConnection:
        """A connection to the master, signed in. Raises Gone or BrokerDown."""
        connection: AbstractConnection | None = None
        sentinel: Sentinel | None = None
        try:
            async with asyncio.timeout(timeout_s):
                if self._sentinels is None:
                    connection = self._make(None, 0, timeout_s)
                    await connection.connect()  # type: ignore[no-untyped-call]
                else:
                    sentinel, host, port = await self._sentinels.master(timeout_s / 2)
                    connection = self._make(host, port, timeout_s)
                    await connection.connect()  # type: ignore[no-untyped-call]
                    await _is_master(connection)
                    self._sentinels.was_right(sentinel)
                return connection
        except BaseException as exc:
            if self._sentinels is not None and sentinel is not None:
                self._sentinels.was_wrong(sentinel)
            if connection is not None:
                close_transport(connection)
                if _nobody_there(exc):
                    raise ConnectionLost("Redis does not listen") from exc
            if isinstance(exc, TROUBLE):
                raise BrokerDown(f"cannot connect to Redis: {_text(exc)}") from exc
            raise


def _of_sentinels(scheme: str, rest: str) -> tuple[list[Sentinel], str, dict[str, Any], str]:
    """``[user:password@]h1:p1,h2:p2/NAME?…`` as Sentinels, the master's name, how to sign in to Sentinels, and the URL
    of what they will name. Raises Unusable."""
    sentinels: list[Sentinel] = []
    try:
        parts = urlsplit(f"//{rest}")
        credentials, at, hosts = parts.netloc.rpartition("@")
        name = unquote(parts.path.strip("/"))
        for host in hosts.split(","):
            address, _, port = host.rpartition(":") if re.search(r":[0-9]+\Z", host) else (host, "", "26379")
            if not is_host_port(f"{address.lower()}:{int(port)}"):
                raise ValueError
            sentinels.append(Sentinel(address.strip("[]"), int(port)))
        if not name:
            raise ValueError
    except ValueError:
        raise Unusable("broker.url", f"must be {scheme}+sentinel://h1:p1,h2:p2/NAME?db=0; {_UNREADABLE}") from None
    query = parse_qsl(parts.query, keep_blank_values=True)
    own = {key: value for key, value in query if key in ("sentinel_username", "sentinel_password")}
    options = {key.removeprefix("sentinel_"): value for key, value in own.items() if value}
    others = urlencode([(key, value) for key, value in query if key not in own])
    return sentinels, name, options, f"{scheme}://{credentials}{at}sentinel.invalid/?{others}"


def _options(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """As redis-py reads the URL. Raises Unusable."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as exc:
        known = str(exc).startswith(("Invalid value for", "Redis URL must"))
        raise Unusable("broker.url", str(exc) if known else _UNREADABLE) from None
    options["protocol"] = 2
    return options.pop("connection_class", Connection), options


_UNREADABLE = (
    "cannot be read: user and password are percent-encoded ([ is %5B, # is %23, @ is %40), a port is from 1 to 65535, "
    "an IPv6 address in brackets, options are known and of their type"
)


async def _is_master(connection: AbstractConnection) -> None:
    """Raises BrokerDown if it is a replica: a Sentinel may be out of date."""
    await connection.send_command("INFO", "replication")
    if b"role:master" not in await connection.read_response():
        raise BrokerDown("a Sentinel names a server that is no master")


def _text(exc: BaseException) -> str:
    if isinstance(exc, TimeoutError):
        return str(exc) or "no answer in time"
    return str(exc) or type(exc).__name__


def _nobody_there(exc: BaseException) -> bool:
    """Whether every attempt was refused, or taken and ended without a word, as a proxy does that reaches nobody. Only
    the text tells where a name has several addresses."""
    cause = exc.__context__ if exc.__context__ is not None else exc
    numbers = {int(number) for number in re.findall(r"\[Errno (\d+)\]", str(cause))}
    if numbers:
        return numbers <= {errno.ECONNREFUSED, errno.ECONNRESET}
    return isinstance(cause, (ConnectionRefusedError, ConnectionResetError)) or str(cause) == _CLOSED


_CLOSED = "Connection closed by server."  # redis-py's word


class RedisConnection(asyncio.Protocol):
    """A connection that is written to in whole turns of the loop. ``on_reply`` is told what comes, errors that Redis
    answers included (ResponseError). ``error`` is None while it lives; ``on_end`` is called once."""

    def __init__(
        self,
        connection: AbstractConnection,
        *,
        on_reply: Callable[[Any], None],
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = connection
        self._transport = transport_of(connection)
        self._transport.set_protocol(self)
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._reader = Reader(replyError=ResponseError, notEnoughData=_NOTHING)
        self.error: str | None = None
        self._on_reply = on_reply
        self._on_end = on_end

    def send(self, *args: Argument) -> None:
        """After the end it does nothing."""
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(pack_command(args))  # type: ignore[arg-type]  # its type says: a tuple of one

    def _write(self) -> None:
        if self.error is None:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while self.error is None and (reply := self._reader.gets()) is not _NOTHING:
                self._on_reply(reply)
        except ProtocolError as exc:
            self.end(f"this is no Redis: {exc}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(_text(exc) if exc is not None else "Redis has closed the connection")

    def end(self, error: str) -> None:
        """Closes; idempotent."""
        if self.error is None:
            self.error = error
            close_transport(self._connection)
            if self._on_end is not None:
                self._on_end(error)


_NOTHING = object()


class Pipeline:
    """Commands and their answers, in order. What waits longer than ``timeout_s`` ends the link: the answers behind it
    would be late too. ``on_answer`` is told how many seconds each took."""

    def __init__(
        self,
        connection: AbstractConnection,
        timeout_s: float,
        *,
        on_end: Callable[[], None] | None = None,
        on_answer: Callable[[float], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._on_end = on_end
        self._on_answer = on_answer
        self._timer: asyncio.TimerHandle | None = None  # while something waits, or did lately
        self._connection = RedisConnection(connection, on_reply=self._answered, on_end=self._ended)

    @property
    def error(self) -> str | None:
        return self._connection.error

    def call(self, *args: Argument) -> asyncio.Future[Any]:
        """The answer to come; it may raise ResponseError, or BrokerDown if the link ends first. Raises BrokerDown."""
        if self._connection.error is not None:
            raise BrokerDown(self._connection.error)
        if len(self._waiting) >= COMMANDS_WAITING:
            raise BrokerDown("Redis is too slow")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((self._loop.time(), answer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        self._connection.send(*args)
        return answer

    async def evaluate(self, script: Script, keys: list[str], args: list[Argument]) -> Any:
        """Runs a script, which Redis may have forgotten."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except ResponseError as exc:
            if not str(exc).startswith("NOSCRIPT "):
                raise
            return await self.call("EVAL", script.text, len(keys), *keys, *args)

    def _answered(self, reply: Any) -> None:
        if not self._waiting:
            self.end("an answer that nobody asked for")
            return
        begun_s, answer = self._waiting.popleft()
        if self._on_answer is not None:
            self._on_answer(self._loop.time() - begun_s)
        if answer.done():
            return  # cancelled
        if isinstance(reply, ResponseError):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _look(self) -> None:
        self._timer = None
        if self._waiting:
            left_s = self._waiting[0][0] + self._timeout_s - self._loop.time()
            if left_s > 0:
                self._timer = self._loop.call_later(left_s, self._look)
            else:
                self.end(f"no answer from Redis within {self._timeout_s:g} s")

    def end(self, error: str) -> None:
        self._connection.end(error)

    def _ended(self, error: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            _, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(BrokerDown(error))
                answer.exception()  # seen: the caller may have given up
        if self._on_end is not None:
            self._on_end()
