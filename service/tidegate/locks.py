"""One lock per name, made when it is wanted and forgotten when nobody holds it."""

from __future__ import annotations

import asyncio


class Locks:
    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    def of(self, name: str) -> _Lock:
        """``async with locks.of(name)``: one at a time, in the order in which they came."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = _Lock(self._locks, name)
        return lock

    def is_held(self, name: str) -> bool:
        return name in self._locks


class _Lock(asyncio.Lock):
    """``users`` hold it or wait for it; the last one takes it from ``locks``."""

    def __init__(self, locks: dict[str, _Lock], name: str) -> None:
        super().__init__()
        self._locks = locks
        self._name = name
        self._users = 0

    async def __aenter__(self) -> None:
        self._users += 1
        try:
            await self.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc: object) -> None:
        self.release()
        self._leave()

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            del self._locks[self._name]
