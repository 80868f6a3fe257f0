"""Admission control: how fast handshakes are let in, and in which order.

Theory of operation. Places grow at the rate of ``limits.handshakes_per_second``, up to a few; each handshake takes one.
Where there is none it waits, and who came first goes first. Nobody waits in vain: who would not have his turn within
``limits.handshake_wait_s`` is refused at once, and told when he would have had it, so that those who are refused come
back one after the other as well. Who is refused for what he says (a bad token) gives his place to the next.

While the loop lags nobody is let in: those who are here already come first.

Who goes while it waits takes no place, and does not stand in the way of those who come: twice a second all who wait are
looked at.

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
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, TypeAlias

from tidegate import log
from tidegate.config.settings import LimitsSettings
from tidegate.core.errors import BadRequest, Busy
from tidegate.websocket.lag import Lag

AT_ONCE_S = 0.02  # so much of a second's places may be taken in one moment
STEP_S = 0.005  # between two looks at who waits
LAGGING_S = 0.05  # the same while the loop lags
OWED_S = 1.0  # of places that those who moved have taken before there were any
LOOK_S = 0.5  # between two looks at who of those who wait has gone
AGAIN_MOST_S = 60
LINE_S = 60.0  # between two lines in the log

HasGone: TypeAlias = Callable[[], bool]


class Waiting(NamedTuple):
    """One that waits, until ``until_s`` at most."""

    until_s: float
    turn: asyncio.Future[None]
    has_gone: HasGone


class Admission:
    """``async with admission.turn(…):`` has its turn, or raises Refused; what is raised inside gives the place back.
    ``check_room`` is told how many wait, and raises Refused where one more has no room. ``asks``: an application."""

    _loop: asyncio.AbstractEventLoop

    def __init__(
        self, limits: LimitsSettings, lag: Lag, check_room: Callable[[int], None], *, asks: bool = False
    ) -> None:
        self._next = Admission(limits, lag, check_room) if asks else None
        most = limits.handshakes_per_second
        # One is too few where it is due often: what a late turn of the loop lets pass would be lost.
        self._at_once = max(1 if most < 10 else 2, int(most * AT_ONCE_S))
        self._rate = most - self._at_once + 1  # so that there are never more in a second, wherever it begins
        self._wait_s = limits.handshake_wait_s
        self._lag = lag
        self._check_room = check_room
        self._queue: deque[Waiting] = deque()
        self._looked_s = -math.inf  # for those who have gone
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

    @contextlib.asynccontextmanager
    async def turn(self, has_gone: HasGone = lambda: False) -> AsyncIterator[None]:
        """``has_gone``: whether who waits is there no more."""
        await self._wait(has_gone)
        try:
            yield
        except BaseException:
            self._places = min(self._places + 1, self._at_once)
            self._go_on()
            raise

    def entry(self, has_gone: HasGone = lambda: False) -> contextlib.AbstractAsyncContextManager[None]:
        """Within a turn: what comes between the application's answer and the welcome."""
        return contextlib.nullcontext() if self._next is None else self._next.turn(has_gone)

    async def _wait(self, has_gone: HasGone) -> None:
        now_s = self._count()
        if self._lag.exceeds:
            raise Busy("this node lags behind")
        if self._places >= 1 and not self._queue:
            self._take()
            return
        if self._queue and now_s >= self._looked_s + LOOK_S:
            self._pass_over_gone(now_s)
        self._check_room(len(self._queue))
        ahead_s = (len(self._queue) + 1 - self._places) / self._rate
        if ahead_s > self._wait_s:
            raise self._turned_away(now_s, ahead_s)
        turn = self._loop.create_future()
        self._queue.append(Waiting(now_s + self._wait_s, turn, has_gone))
        self._schedule(now_s)
        await turn

    def _pass_over_gone(self, now_s: float) -> None:
        """They hear it in their turn, which is now."""
        self._looked_s = now_s
        stay: deque[Waiting] = deque()
        for one in self._queue:
            if one.turn.done():
                continue
            if one.has_gone():
                one.turn.set_exception(BadRequest("the peer has gone"))
            else:
                stay.append(one)
        self._queue = stay

    def moved(self) -> None:
        """A connection came from another node."""
        self._count()
        self._places = max(self._places - 1, -self._rate * OWED_S)
        if self._next is not None:
            self._next.moved()

    def end(self) -> None:
        """This node takes nobody any more: those who wait go on now, to hear it."""
        while self._queue:
            turn = self._queue.popleft().turn
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
            self._timer = self._loop.call_at(
                min(now_s + wait_s, max(self._queue[0].until_s, now_s + STEP_S)), self._look
            )

    def _look(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        """Those have their turn for whom there are places."""
        now_s = self._count()
        if now_s >= self._looked_s + LOOK_S:
            self._pass_over_gone(now_s)
        while self._queue:
            until_s, turn, _ = self._queue[0]
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
