"""Connections that belong to one process, or to one event loop.

A socket that a fork has doubled must not be used on both sides, and one that an event loop has made is of no use to
another loop. So what holds sockets is made where it is first asked for: in each process, and in each loop, anew."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What ``make`` gives, one in each process; what a parent had is left alone, its sockets are the parent's."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: tuple[int, T] | None = None  # for which process
        self._locks: dict[int, threading.Lock] = {}  # a fork may come while one is held, and copies it so

    def get(self) -> T:
        made = self._made
        if made is None or made[0] != os.getpid():
            with self._locks.setdefault(os.getpid(), threading.Lock()):
                made = self._made
                if made is None or made[0] != os.getpid():
                    made = self._made = (os.getpid(), self._make())
        return made[1]

    def take(self) -> T | None:
        """This process's, which the caller closes; None where there is none."""
        made, self._made = self._made, None
        return made[1] if made is not None and made[0] == os.getpid() else None


class PerLoop(Generic[T]):
    """What ``make`` gives, one in each event loop. It is closed with the loop: ``asyncio.run`` ends the asynchronous
    generators that its loop has begun, and one of them keeps watch here."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._made: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]] = WeakKeyDictionary()
        self._pid = os.getpid()

    async def get(self) -> T:
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._made = WeakKeyDictionary()
            self._pid = os.getpid()
        made = self._made.get(loop)
        if made is None:
            value = self._make()
            watch = self._until_the_end(value)
            made = self._made[loop] = (value, watch)
            await anext(watch)
        return made[0]

    async def close(self) -> None:
        """This loop's."""
        if made := self._made.get(asyncio.get_running_loop()):
            await made[1].aclose()

    async def _until_the_end(self, value: T) -> AsyncGenerator[None]:
        loop = asyncio.get_running_loop()
        try:
            yield
        finally:
            self._made.pop(loop, None)
            await self._close(value)
