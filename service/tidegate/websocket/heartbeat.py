"""One clock for all connections: a wheel of ticks, each connection in the tick at which it is next due.

A connection is looked at when a ping, a timeout or its token's end is due, about once an interval; nothing is
looked at in every tick but the few sockets whose writes are blocked. Each tick has a mark, the payload of all pings of
that tick, so that they share one frame and a pong tells when its ping was sent.

A process that was held up (stopped, or busy for long) has neither pinged nor read nor written meanwhile. What peers
did not do until then says nothing about them: ``resumed_s``.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Protocol

from tidegate import log
from tidegate.core import frames
from tidegate.turn import Flushable, WriteBatch

OWN_BYTES = 6  # of a mark, that tell a node from others
STOOD_STILL_S = 0.5  # later than a tick: an edge that asks whether this node lives waits for 1 s at least


class HeartbeatTarget(Protocol):
    """Somebody on the wheel. ``tick`` belongs to the wheel: when it is due; 0 at first."""

    tick: int

    def on_due(self, now_s: float) -> None:
        """Call ``schedule`` again to stay on the wheel."""


class Heartbeat:
    """``interval_s`` and ``timeout_s`` are the application's websocket_ping_interval and websocket_ping_timeout. Times
    are the loop's (monotonic seconds). ``resumed_s``: when the process last went on after it was held up.
    ``on_stood_still`` hears each time when it goes on after half a second to a second, or more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: WriteBatch,
        *,
        interval_s: float,
        timeout_s: float,
        write_timeout_s: float,
        on_stalled: Callable[[Flushable], None],
        on_stood_still: Callable[[float], None] | None = None,
    ) -> None:
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self.tick_s = min(0.5, min(interval_s, timeout_s) / 20)
        # Held up for less, nobody is judged by it: a pong or a write still has as long again.
        self._held_up_s = max(min(timeout_s - interval_s, write_timeout_s) / 2, 2 * self.tick_s)
        self._write_timeout_s = write_timeout_s
        self._on_stalled = on_stalled
        self._on_stood_still = on_stood_still
        self._loop = loop
        self._batch = batch
        slots = math.ceil(max(interval_s, timeout_s) / self.tick_s) + 2
        self._slots: list[set[HeartbeatTarget]] = [set() for _ in range(slots)]
        self._start_s = self.resumed_s = loop.time()
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._joined = 0
        # A connection may come from another node (docs/trunk.md): a late pong to that one's ping says nothing here.
        self._own = secrets.token_hex(OWN_BYTES // 2).encode()
        self.ping_frame = frames.ping(self.mark)

    @property
    def mark(self) -> bytes:
        """The payload of this tick's pings."""
        return b"%b%x" % (self._own, self._tick)

    def age_s(self, mark: bytes, now_s: float) -> float | None:
        """How long ago the pings with this payload were sent; None for a payload that is not ours."""
        if not mark.startswith(self._own):
            return None
        try:
            tick = int(mark[OWN_BYTES:], 16)
        except ValueError:
            return None
        if not max(0, self._tick - len(self._slots)) <= tick <= self._tick:
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

    def schedule(self, member: HeartbeatTarget, due_s: float) -> None:
        """``member.on_due`` comes with the first tick at or after ``due_s``; an earlier schedule no longer counts.
        Beyond the wheel's length it comes too early, and schedules again."""
        self.forget(member)
        tick = math.ceil((due_s - self._start_s) / self.tick_s)
        member.tick = max(self._tick + 1, min(tick, self._tick + len(self._slots) - 1))
        self._slots[member.tick % len(self._slots)].add(member)

    def forget(self, member: HeartbeatTarget) -> None:
        """Off the wheel, which else would keep it in memory until it is due."""
        self._slots[member.tick % len(self._slots)].discard(member)

    def _time_of(self, tick: int) -> float:
        return self._start_s + tick * self.tick_s

    def _beat(self) -> None:
        now_s = self._loop.time()
        late_s = now_s - self._time_of(self._tick + 1)
        if late_s >= self._held_up_s:
            self.resumed_s = now_s
        if late_s >= STOOD_STILL_S and self._on_stood_still is not None:
            self._on_stood_still(now_s)
        due = self._due(now_s)
        self.start()
        for member in due:
            try:
                member.on_due(now_s)
            except Exception as exc:  # a fault of ours; the others are due all the same
                log.error("heartbeat.failed", error=exc)
                self.schedule(member, now_s + self.interval_s)
        for wire in [wire for wire in self._batch.blocked if self._is_stuck(wire, now_s)]:
            self._on_stalled(wire)

    def _due(self, now_s: float) -> list[HeartbeatTarget]:
        """Moves the wheel to ``now_s``; who was in the slots that it passed."""
        due: list[HeartbeatTarget] = []
        last = int((now_s - self._start_s) / self.tick_s)
        if self._time_of(last + 1) <= now_s:  # the division was rounded down
            last += 1
        for tick in range(self._tick + 1, min(last, self._tick + len(self._slots)) + 1):
            slot = self._slots[tick % len(self._slots)]
            due += slot
            slot.clear()
        if last > self._tick:
            self._tick = last
            self.ping_frame = frames.ping(self.mark)
        return due

    def _is_stuck(self, wire: Flushable, now_s: float) -> bool:
        return now_s - max(wire.stalled_since, self.resumed_s) >= self._write_timeout_s
