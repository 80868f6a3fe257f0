"""One clock for all connections: a wheel of ticks, each connection in the tick at which it is next due.

A connection is looked at when a ping, a timeout or its token's end is due, about once an interval; nothing is
looked at in every tick but the few sockets whose writes are blocked. Each tick has a mark, the payload of all pings of
that tick, so that they share one frame and a pong tells when its ping was sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from service import frames
from service.wire import Turn, Wire


class Member(Protocol):
    """Somebody on the wheel. ``tick`` belongs to the wheel: when it is due."""

    tick: int

    def on_due(self, now_s: float) -> None:
        """Call ``schedule`` again to stay on the wheel."""


class Heartbeat:
    """``interval_s`` and ``timeout_s`` are the application's websocket_ping_interval and websocket_ping_timeout. Times
    are the loop's (monotonic seconds)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        *,
        interval_s: float,
        timeout_s: float,
        write_timeout_s: float,
        on_stalled: Callable[[Wire], None],
    ) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.tick_s = min(0.5, min(interval_s, timeout_s) / 20)
        self._write_timeout_s = write_timeout_s
        self._on_stalled = on_stalled
        self._loop = loop
        self._turn = turn
        self._slots: list[list[Member]] = [[] for _ in range(math.ceil(max(interval_s, timeout_s) / self.tick_s) + 2)]
        self._start_s = loop.time()
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._joined = 0
        self.ping_frame = frames.ping(self.mark)

    @property
    def mark(self) -> bytes:
        """The payload of this tick's pings."""
        return b"%x" % self._tick

    def age_s(self, mark: bytes, now_s: float) -> float | None:
        """How long ago the pings with this payload were sent; None for a payload that is not ours."""
        try:
            tick = int(mark, 16)
        except ValueError:
            return None
        if not self._tick - len(self._slots) <= tick <= self._tick:
            return None
        return max(0.0, now_s - self._time_of(tick))

    def start(self) -> None:
        self._timer = self._loop.call_at(self._time_of(self._tick + 1), self._beat)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def first_ping_s(self, now_s: float) -> float:
        """When a new connection gets its first ping: within one interval, and so that connections which come together
        are spread evenly over it (multiples of the golden ratio fill an interval without clusters)."""
        self._joined += 1
        return now_s + self.interval_s * (1 - (self._joined * 0.6180339887498949) % 1)

    def schedule(self, member: Member, due_s: float) -> None:
        """``member.on_due`` comes with the first tick at or after ``due_s``; an earlier schedule no longer counts.
        Beyond the wheel's length it comes too early, and schedules again."""
        tick = math.ceil((due_s - self._start_s) / self.tick_s)
        tick = max(self._tick + 1, min(tick, self._tick + len(self._slots) - 1))
        member.tick = tick
        self._slots[tick % len(self._slots)].append(member)

    def _time_of(self, tick: int) -> float:
        return self._start_s + tick * self.tick_s

    def _beat(self) -> None:
        now_s = self._loop.time()
        while self._time_of(self._tick + 1) <= now_s:
            self._tick += 1
            self.ping_frame = frames.ping(self.mark)
            slot = self._tick % len(self._slots)
            members, self._slots[slot] = self._slots[slot], []
            for member in members:
                if member.tick == self._tick:
                    member.on_due(now_s)
        for wire in [w for w in self._turn.blocked if now_s - w.stalled_since >= self._write_timeout_s]:
            self._on_stalled(wire)
        self.start()
