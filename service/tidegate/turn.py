"""A turn of the loop: how it ends, and how it is shared among connections that always have more to do.

Theory of operation. What is to be written waits for the turn's end, so that it goes out in one piece.

A connection has a share of a turn: some frames, some time for its commands. What is left over waits here, and each turn
takes as much of it as fits into a slice, the longest waiting first. So a turn stays short however many flood, the
flooders get equal parts, and whoever asks for little never waits here at all.

The slice is for work that is done when it is called, such as parsing. A task is not, it only becomes due: so one task
a turn is let go on, which looks at the clock by itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from tidegate import log
from tidegate.core.errors import CloseCode

# Measured by `python -m bench flood`: ten that flood add a few milliseconds to a neighbour's round trip.
SHARE_FRAMES = 8
SHARE_S = 0.0005
SLICE_S = 0.001

WINDOW_S = 10.0
FLOOD_SHARES = 1000  # used up within a window, by one connection: some 10,000 frames
FLOODS_SAID = 10  # within a window


class Shares:
    """``call_soon`` is the loop's: what it is given runs in the next turn, after sockets were looked at. ``clock``
    gives monotonic seconds."""

    def __init__(
        self, call_soon: Callable[[Callable[[], None]], object], clock: Callable[[], float] = monotonic
    ) -> None:
        self._call_soon = call_soon
        self.clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._tasks: deque[asyncio.Future[None]] = deque()
        self._begun = False

    def wait(self, go_on: Callable[[], None]) -> None:
        """``go_on`` is called for the next share. It must not raise; it may wait again."""
        self._waiting.append(go_on)
        self._schedule()

    def first(self) -> float:
        """Until when a task that begins now has its share."""
        return self.clock() + SHARE_S

    async def next(self) -> float:
        """Returns in the task's next share: until when it has it (monotonic seconds)."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.append(turn)
        self._schedule()
        await turn
        return self.first()

    def _schedule(self) -> None:
        if not self._begun:
            self._begun = True
            self._call_soon(self._slice)

    def _slice(self) -> None:
        self._begun = False
        until_s = self.clock() + SLICE_S
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()
            if self.clock() >= until_s:
                break
        while self._tasks:
            turn = self._tasks.popleft()
            if not turn.done():  # nobody has cancelled it
                turn.set_result(None)
                break
        if self._waiting or self._tasks:
            self._schedule()


class Floods:
    """The connections that use up their share again and again: ``shares`` within a window is often."""

    def __init__(self, shares: int = FLOOD_SHARES) -> None:
        self._shares = shares
        self._until_s = 0.0
        self._used: Counter[str] = Counter()  # by connection, in this window
        self._said = 0

    def used(self, connection: str, now_s: float) -> bool:
        """It has used up a share. True: often enough to be worth a line in the log, and there were not too many."""
        if now_s >= self._until_s:
            self._until_s = now_s + WINDOW_S
            self._used.clear()
            self._said = 0
        self._used[connection] += 1
        if self._used[connection] != self._shares or self._said >= FLOODS_SAID:
            return False
        self._said += 1
        return True


class Flushable(Protocol):
    """A wire, as far as a turn knows it. ``stalled_since``: monotonic seconds, 0.0 if nothing waits."""

    stalled_since: float

    def flush(self) -> None: ...

    def abort(self, code: int | None = None) -> None: ...


class WriteBatch:
    """The end of the loop's turn, in which everything is written: what was given to ``before_writing`` queues more,
    then each wire that was woken writes, once, then ``written`` is called. ``call_soon`` is the loop's."""

    __slots__ = ("_before", "_begun", "_call_soon", "_written", "blocked", "shares", "woken")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        shares: Shares | None = None,
        *,
        written: Callable[[], None] | None = None,
    ) -> None:
        self._call_soon = call_soon
        self.shares = shares or Shares(call_soon)
        self._begun = False
        self._before: list[Callable[[], None]] = []
        self._written = written
        self.woken: list[Flushable] = []
        self.blocked: set[Flushable] = set()  # sockets that take nothing at the moment

    def schedule(self) -> None:
        """There is something to write when this turn ends."""
        if not self._begun:
            self._begun = True
            self._call_soon(self._end)

    def before_writing(self, work: Callable[[], None]) -> None:
        """``work`` is called when this turn ends, before anything is written."""
        self._before.append(work)
        if not self._begun:
            self.schedule()

    def _end(self) -> None:
        before, self._before = self._before, []
        for work in before:
            try:
                work()
            except Exception as exc:  # a fault of ours; what was not delivered is announced as a gap
                log.error("delivery.failed", error=exc)
        self._begun = False
        woken, self.woken = self.woken, []
        for wire in woken:
            try:
                wire.flush()
            except Exception as exc:  # a fault of ours; those behind it would wait for ever
                log.error("connection.failed", error=exc)
                wire.abort(CloseCode.INTERNAL_ERROR)
        if self._written is not None:
            self._written()
