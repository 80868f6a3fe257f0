"""Admission control: how fast handshakes are let in, and in which order.

Theory of operation. Places grow at the rate of ``limits.handshakes_per_second``, up to a few; each handshake takes one.
Where there is none it waits, and who came first goes first. Nobody waits in vain: who would not have his turn within
``limits.handshake_wait_s`` is refused at once, and told when he would have had it, so that those who are refused come
back one after the other as well. Who is refused for what he says (a bad token) gives his place to the next.

While the loop lags nobody is let in: those who are here already come first.

Where an application is asked who a client is, its answer may take seconds, and many answers may come at once. So a turn
is one to be asked, and is had by another as soon as the answer is no; who is to be let in waits for a place of another
``Admission``, the ``entry``, which almost never takes any time.

A connection that moves here from another node has been let in before, and waits for nobody. Its place is taken all the
same, so that others wait for it. Source: docs/decisions/0048-handshakes-wait-in-a-queue.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable

from tidegate import log
from tidegate.config.settings import LimitsSettings
from tidegate.core.errors import Busy
from tidegate.websocket.lag import Lag

AT_ONCE_S = 0.02  # so much of a second's places may be taken in one moment
STEP_S = 0.005  # between two looks at who waits
LAGGING_S = 0.05  # the same while the loop lags
OWED_S = 1.0  # of places that those who moved have taken before there were any
AGAIN_MOST_S = 60
LINE_S = 60.0  # between two lines in the log


class Admission(contextlib.AbstractAsyncContextManager[None]):
    """``async with admission:`` has its turn, or raises Refused; what is raised inside gives the place back.
    ``check_room`` is told how many wait, and raises Refused where one more has no room. ``asks``: an application."""

    _loop: asyncio.AbstractEventLoop

    def __init__(
        self, limits: LimitsSettings, lag: Lag, check_room: Callable[[int], None], *, asks: bool = False
    ) -> None:
        self._next = Admission(limits, lag, check_room) if asks else None
        # What is to be done between a turn and the welcome is done within it.
        self.entry: contextlib.AbstractAsyncContextManager[None] = self._next or contextlib.nullcontext()
        most = limits.handshakes_per_second
        # One is too few where it is due often: what a late turn of the loop lets pass would be lost.
        self._at_once = max(1 if most < 10 else 2, int(most * AT_ONCE_S))
        self._rate = most - self._at_once + 1  # so that there are never more in a second, wherever it begins
        self._wait_s = limits.handshake_wait_s
        self._lag = lag
        self._check_room = check_room
        self._queue: deque[tuple[float, asyncio.Future[None]]] = deque()  # until when it may wait
        self._places: float = self._at_once
        self._away = 0.0  # who were refused, and have not had the time yet to come back
        self._seen_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.begun = 0  # who had their turn
        self._refused = 0  # since the last line
        self._line = log.Seldom(LINE_S)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seen_s = loop.time()
        if self._next is not None:
            self._next.start(loop)

    @property
    def waiting(self) -> int:
        return len(self._queue) + (self._next.waiting if self._next is not None else 0)

    async def __aenter__(self) -> None:
        now_s = self._count()
        if self._lag.exceeds:
            raise Busy("this node lags behind")
        if self._places >= 1 and not self._queue:
            self._take()
            return
        self._check_room(len(self._queue))
        ahead_s = (len(self._queue) + 1 - self._places) / self._rate
        if ahead_s > self._wait_s:
            raise self._turned_away(now_s, ahead_s)
        turn = self._loop.create_future()
        self._queue.append((now_s + self._wait_s, turn))
        self._schedule(now_s)
        await turn

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        if kind is not None:
            self._places = min(self._places + 1, self._at_once)
            self._go_on()

    def moved(self) -> None:
        """A connection came from another node."""
        self._count()
        self._places = max(self._places - 1, -self._rate * OWED_S)
        if self._next is not None:
            self._next.moved()

    def end(self) -> None:
        """This node takes nobody any more: those who wait go on now, to hear it."""
        while self._queue:
            _, turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._next is not None:
            self._next.end()

    def _count(self) -> float:
        """The time, up to which places have grown."""
        now_s = self._loop.time()
        more = (now_s - self._seen_s) * self._rate
        self._seen_s = now_s
        self._places = min(self._places + more, self._at_once)
        self._away = max(self._away - more, 0.0)
        return now_s

    def _take(self) -> None:
        self._places -= 1
        self.begun += 1

    def _turned_away(self, now_s: float, ahead_s: float) -> Busy:
        self._refused += 1
        self._away += 1
        again_s = min(math.ceil(ahead_s + self._away / self._rate), AGAIN_MOST_S)
        if self._line.is_due(now_s):
            log.warning(
                "handshakes.refused",
                message="more clients come than limits.handshakes_per_second lets in within limits.handshake_wait_s",
                waiting=len(self._queue),
                times=self._refused,
            )
            self._refused = 0
        return Busy("too many clients come at once", retry_after_s=again_s)

    def _schedule(self, now_s: float) -> None:
        if self._timer is None:
            wait_s = LAGGING_S if self._lag.exceeds else max((1 - self._places) / self._rate, STEP_S)
            self._timer = self._loop.call_at(min(now_s + wait_s, max(self._queue[0][0], now_s + STEP_S)), self._look)

    def _look(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        """Those have their turn for whom there are places."""
        now_s = self._count()
        while self._queue:
            until_s, turn = self._queue[0]
            if turn.done():  # cancelled
                self._queue.popleft()
            elif now_s > until_s:
                self._queue.popleft()
                turn.set_exception(self._turned_away(now_s, len(self._queue) / self._rate))
            elif self._places >= 1 and not self._lag.exceeds:
                self._queue.popleft()
                self._take()
                turn.set_result(None)
            else:
                self._schedule(now_s)
                break
