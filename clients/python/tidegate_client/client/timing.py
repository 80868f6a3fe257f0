"""Timers that know when they are late. A process that was stopped, or a machine that slept, finds its timers overdue
and the answers that they were waiting for in the socket: the timers must not judge first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LATE_S = 2.0
_ANSWERS_S = 0.1


class Deadline:
    """Calls ``then`` after ``seconds`` unless it is cancelled. One that comes late calls ``late``, and begins anew;
    one in time lets the loop read what is in the sockets before it calls."""

    def __init__(self, seconds: float, then: Callable[[], None], late: Callable[[], None] | None = None) -> None:
        self._seconds, self._then, self._late = seconds, then, late
        self._loop = asyncio.get_running_loop()
        self._begin()

    def cancel(self) -> None:
        self._timer.cancel()

    def _begin(self) -> None:
        self._wait(self._seconds, lambda: self._wait(min(_ANSWERS_S, self._seconds), self._then))

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._due = self._loop.time() + seconds
        self._timer = self._loop.call_at(self._due, self._come, then)

    def _come(self, then: Callable[[], None]) -> None:
        if self._loop.time() - self._due <= LATE_S:
            then()
            return
        if self._late is not None:
            self._late()
        self._begin()
