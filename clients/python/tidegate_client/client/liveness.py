"""Whether the other side lives. A JSON ping goes out each interval; when nothing at all comes within the timeout
after it, the connection is ended. Silence is counted from a ping that was sent. Source: clients/README.md, The
machine, 11."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate_client.client.timing import Deadline

PROBE_S = 5.0


class Liveness:
    def __init__(self, interval_s: float, timeout_s: float, ping: Callable[[], None], dead: Callable[[], None]) -> None:
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._ping, self._dead = ping, dead
        self._loop = asyncio.get_running_loop()
        self._deadline: Deadline | None = None
        self._next = self._loop.call_later(interval_s, self._send)

    def heard(self) -> None:
        """Something came."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def probe(self) -> None:
        """Sends a ping now, that must be answered soon."""
        self._next.cancel()
        self.heard()
        self._send(min(PROBE_S, self._timeout_s))

    def stop(self) -> None:
        self._next.cancel()
        self.heard()

    def _send(self, timeout_s: float | None = None) -> None:
        self._ping()
        if self._deadline is None:
            self._deadline = Deadline(timeout_s or self._timeout_s, self._dead, late=self._ping)
        self._next = self._loop.call_later(self._interval_s, self._send)
