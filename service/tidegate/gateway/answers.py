"""How fast the large answers to commands follow each other: history, presence, the first page after a ``join``.

An answer of 256 KiB costs this process little, and an edge in front as much again or three times as much, which is not
seen here: nginx passes on all that a socket has before it looks at the next one, so ten connections that ask as fast as
they are answered fill each turn of its loop, and everybody else waits for it. What a connection asks for now and then
is free. Beyond that answers have their time one after the other, for all connections together.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic

# Half of what the slowest edge passes on where it shares a core with the service: `python -m bench flood`.
BYTES_PER_S = 128 * 1024 * 1024
FREE_BYTES = 1024 * 1024  # of one connection, in a window
WINDOW_S = 1.0
SHORT_S = 0.001  # no wait, but not forgotten: the next ones are later by it


class Answers:
    """``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._window_ends_s = 0.0
        self._made: Counter[str] = Counter()  # bytes by connection, in this window
        self._owed: Counter[str] = Counter()  # of them those beyond what is free that nobody has waited for
        self._passed_on_s = 0.0  # when all that was waited for will have been passed on

    def made(self, connection: str, size: int) -> None:
        """It was given an answer of ``size`` bytes."""
        now_s = self._clock()
        if now_s >= self._window_ends_s:
            self._window_ends_s = now_s + WINDOW_S
            self._made.clear()
            self._owed.clear()
        self._made[connection] += size
        if self._made[connection] > FREE_BYTES:
            self._owed[connection] += size

    def wait_s(self, connection: str) -> float:
        """Seconds from now on until it may have another one; to be asked once for each."""
        now_s = self._clock()
        owed = self._owed.pop(connection, 0)
        if not owed:
            return 0.0
        self._passed_on_s = max(self._passed_on_s, now_s) + owed / BYTES_PER_S
        return self._passed_on_s - now_s

    async def turn(self, connection: str) -> bool:
        """Returns when it may have another one; True if that took a while."""
        wait_s = self.wait_s(connection)
        if wait_s < SHORT_S:
            return False
        await asyncio.sleep(wait_s)
        return True
