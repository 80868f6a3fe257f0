"""How far the loop is behind: how late what was due is done.

A timer that goes off every 50 ms sees it. One late beat says nothing, for a process may be held up once (by a
collection of garbage, by its neighbours on the machine) and catches up. So the lag is the least of the last five: what
has been added to everything that happened here meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tidegate import log

BEAT_S = 0.05
BEATS = 5
LINE_S = 60.0  # between two lines in the log


class Lag:
    """``exceeds``: it is above ``limit_s``. ``observe`` hears how late each beat was (seconds)."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, limit_s: float, observe: Callable[[float], None]) -> None:
        self._limit_s = limit_s
        self._observe = observe
        self._beats = deque([0.0] * BEATS, maxlen=BEATS)
        self._due_s = 0.0
        self._line = log.Seldom(LINE_S)
        self._timer: asyncio.TimerHandle | None = None
        self.seconds = 0.0
        self.exceeds = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._wait()

    def _wait(self) -> None:
        self._due_s = self._loop.time() + BEAT_S
        self._timer = self._loop.call_at(self._due_s, self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now_s = self._loop.time()
        late_s = max(0.0, now_s - self._due_s)
        self._wait()
        self._observe(late_s)
        self._beats.append(late_s)
        self.seconds = min(self._beats)
        self.exceeds = self.seconds > self._limit_s
        if self.exceeds and self._line.is_due(now_s):
            log.warning(
                "loop.lagged",
                message="the node does everything late, and refuses handshakes: it has too much to do or too little "
                "of a core",
                lag_ms=round(self.seconds * 1000),
            )
