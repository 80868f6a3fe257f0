"""Which server is the master: asked from Sentinels, of which some may be dead, hung or out of date.

The one that was right last is asked first. Where it has not answered after a short time the next is asked beside it,
and so on; the first answer counts. Nothing is repeated here: whoever asks comes again. redis-py's own client asks them
one after the other, and each ten times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, RedisError

from tidegate.brokers.redis.redis_seam import close_transport
from tidegate.core.errors import BrokerDown

NEXT_S = 0.25  # without an answer, after which the next one is asked too


class Sentinel(msgspec.Struct, frozen=True):
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Sentinels:
    """``make(host, port, timeout_s)`` gives a connection to a Sentinel that is not connected yet."""

    def __init__(
        self, sentinels: Sequence[Sentinel], name: str, make: Callable[[str, int, float], AbstractConnection]
    ) -> None:
        self._order = list(sentinels)
        self._name = name
        self._make = make

    def was_right(self, sentinel: Sentinel) -> None:
        """What it named was the master: it is asked first from now on."""
        self._order.remove(sentinel)
        self._order.insert(0, sentinel)

    def was_wrong(self, sentinel: Sentinel) -> None:
        """What it named was not there, or no master: the others may know better."""
        self._order.remove(sentinel)
        self._order.append(sentinel)

    async def master(self, timeout_s: float) -> tuple[Sentinel, str, int]:
        """The first answer: who gave it, the master's host and port. Raises BrokerDown with what each has said."""
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        said: dict[Sentinel, str] = {}

        async def ask(sentinel: Sentinel) -> None:
            try:
                host, port = await self._ask(sentinel, timeout_s)
            except (BrokerDown, RedisError, OSError, EOFError, TimeoutError, ValueError) as exc:
                said[sentinel] = _text(exc)
            else:
                if not found.done():
                    found.set_result((sentinel, host, port))

        asked: list[Sentinel] = []
        try:
            async with asyncio.timeout(timeout_s), asyncio.TaskGroup() as asking:
                tasks: set[asyncio.Future[Any]] = set()
                for sentinel in list(self._order):
                    asked.append(sentinel)
                    task: asyncio.Future[Any] = asking.create_task(ask(sentinel))
                    tasks.add(task)
                    await asyncio.wait({task, found}, timeout=NEXT_S, return_when=asyncio.FIRST_COMPLETED)
                    if found.done():
                        break
                while tasks and not found.done():
                    await asyncio.wait({*tasks, found}, return_when=asyncio.FIRST_COMPLETED)
                    tasks = {task for task in tasks if not task.done()}
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            pass
        if found.done():
            sentinel, host, port = found.result()
            return sentinel, host, port
        answers = "; ".join(f"{sentinel}: {said.get(sentinel, 'no answer')}" for sentinel in asked)
        raise BrokerDown(f"no Sentinel names a master of {self._name} ({answers})")

    async def _ask(self, sentinel: Sentinel, timeout_s: float) -> tuple[str, int]:
        connection = self._make(sentinel.host, sentinel.port, timeout_s)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
            answer: Any = await connection.read_response()
        finally:
            close_transport(connection)
        if answer is None:
            raise BrokerDown("it knows no such name")
        host, port = answer
        return host.decode(), int(port)


def _text(exc: BaseException) -> str:
    text = str(exc) or type(exc).__name__
    if isinstance(exc, AuthenticationError):  # redis-py has cut the code off
        code = "NOAUTH" if "required" in text else "WRONGPASS"
        return f"{code} {text} See sentinel_username and sentinel_password of broker.url"
    return text
