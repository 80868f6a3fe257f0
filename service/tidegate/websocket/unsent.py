"""What all connections of a node have unsent in its memory, together, and who goes where that is too much.

Theory of operation. A socket that takes nothing is in ``WriteBatch.blocked`` with what waits for it; all others are
written before the turn ends. A trunk has one buffer for all of its sessions. Twice a second they are added up. Over
three quarters of the most the node is *short*: it lets nobody in (``full``). Over the most, or where it stays short,
room is made until it is not: those whose outboxes cost most are told that they are slow, as if each had more than its
own limit, so that their groups' policies decide. Who was told before and still holds it is closed (4008). A trunk of
which most waits is ended where trunks hold more than half: its sessions go on over another one.

A message to many is in the outboxes of all who have not taken it, and in memory once. So what frames cost is estimated:
each is divided by the number of those who share it, in a sample of the sockets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from sys import getrefcount
from time import monotonic
from typing import Protocol

from tidegate import log
from tidegate.core.errors import CloseCode
from tidegate.metrics import Metrics
from tidegate.turn import Flushable
from tidegate.websocket.wire import OPEN, Wire

LOOK_S = 0.5
SHORT_S = 5.0  # that a node may stay short: those who wait for it would else be kept out for as long as some like
WIRES, FRAMES = 256, 32  # of the sample, and of each of it
CANDIDATES, AT_ONCE = 256, 64  # who are looked at more closely, and who of them are told, so that no turn is long
SAID_S = 10.0  # between two lines of the log
REFERENCES = 3  # to a frame beside those of outboxes, while it is looked at here


class Shared(Protocol):
    """A trunk's link."""

    @property
    def unsent(self) -> int:
        """Bytes in memory."""

    def overflow(self) -> None:
        """Ends it; its sessions go on elsewhere."""


class Unsent:
    """``bytes`` is what was found last. ``on_short`` is told when that changes."""

    def __init__(
        self,
        most_bytes: int,
        blocked: Iterable[Flushable],
        links: Callable[[], Iterable[Shared]],
        metrics: Metrics,
        on_short: Callable[[bool], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._most = most_bytes
        self._enough = most_bytes * 3 // 4
        self._blocked = blocked
        self._links = links
        self._metrics = metrics
        self._on_short = on_short
        self._clock = clock
        self._short_since_s: float | None = None
        self._told: set[Wire] = set()  # that they are slow
        self._line = log.Seldom(SAID_S)
        self.bytes = 0

    def look(self) -> None:
        """Adds up, and makes room where that is needed."""
        wires = [wire for wire in map(_wire, self._blocked) if wire is not None and wire.state is OPEN]
        self._told.intersection_update(wires)
        links = list(self._links())
        waiting, linked = sum(wire.size for wire in wires), sum(link.unsent for link in links)
        if waiting + linked > self._enough:
            waiting = int(waiting * own_part(wires))
        self.bytes = waiting + linked
        self._note_short(self.bytes > self._enough)
        since_s = self._short_since_s
        if self.bytes > self._most or (since_s is not None and self._clock() - since_s >= SHORT_S):
            if linked > self._most // 2 or not wires:
                self._end_largest(links)
            else:
                self._make_room(wires, self.bytes - self._enough)

    def _note_short(self, short: bool) -> None:
        if short == (self._short_since_s is not None):
            return
        self._short_since_s = self._clock() if short else None
        if short:
            log.warning("outboxes.short", bytes=self.bytes, most_bytes=self._most)
        else:
            log.info("outboxes.relieved", bytes=self.bytes)
        self._on_short(short)

    def _end_largest(self, links: Sequence[Shared]) -> None:
        self._metrics.unsent_ended["trunk",] += 1
        max(links, key=lambda link: link.unsent).overflow()

    def _make_room(self, wires: list[Wire], excess: int) -> None:
        closed = 0
        held = {wire: own_bytes(wire) for wire in _some(wires, CANDIDATES)}
        for wire in sorted(held, key=held.__getitem__, reverse=True)[:AT_ONCE]:
            if wire in self._told:
                wire.close(CloseCode.SLOW_CONSUMER, CloseCode.SLOW_CONSUMER.reason)
            elif wire.peer is not None:
                self._told.add(wire)
                wire.peer.on_slow()
            closed += wire.state is not OPEN
            excess -= held[wire] - own_bytes(wire)
            if excess <= 0:
                break
        self._metrics.unsent_ended["connection",] += closed
        if self._line.is_due(self._clock()):
            log.warning("outboxes.overflowed", bytes=self.bytes, most_bytes=self._most, closed=closed)


def _wire(flushable: Flushable) -> Wire | None:
    return flushable if isinstance(flushable, Wire) else None


def _some(wires: Sequence[Wire], most: int) -> Sequence[Wire]:
    return wires if len(wires) <= most else random.sample(wires, most)


def own_bytes(wire: Wire) -> int:
    """About what waits for it costs; what others have too, in part."""
    frames = wire.frames[:: max(1, len(wire.frames) // FRAMES)]
    size = sum(map(len, frames))
    return int(wire.size * sum(len(frame) / max(1, getrefcount(frame) - REFERENCES) for frame in frames) / (size or 1))


def own_part(wires: Sequence[Wire]) -> float:
    """How much of what waits for them is in memory."""
    some = _some(wires, WIRES)
    whole = sum(wire.size for wire in some)
    return sum(map(own_bytes, some)) / whole if whole else 1.0
