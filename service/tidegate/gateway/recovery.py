"""Attaches a session to a stream, with a position or without one, and detaches it. See docs/design.md, How a session
catches up.

After every ``await`` the session may have ended or left the stream: each step looks again. One lock per stream is held
around subscribe and unsubscribe, else the second of two joiners would be answered before the node listens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tidegate.brokers.contract import Broker
from tidegate.core.errors import BrokerDown, Refused
from tidegate.core.hub import Audience, Hub
from tidegate.core.model import Gap, Position, group_of
from tidegate.core.session import WAITING, Session
from tidegate.gateway.replay import Replay
from tidegate.locks import Locks
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks


class Recovery:
    """``policy`` gives a group's policy for connections that do not keep up: ``close``, ``replay`` or ``latest``."""

    def __init__(
        self,
        hub: Hub,
        replay: Replay,
        broker: Broker,
        tasks: Tasks,
        metrics: Metrics,
        *,
        policy: Callable[[str], str],
    ) -> None:
        self._policy = policy
        self._hub = hub
        self._replay = replay
        self._broker = broker
        self._tasks = tasks
        self._metrics = metrics
        self.trace = replay.trace
        self._locks = Locks()

    async def attach(self, session: Session, stream: str, since: Position | None) -> None:
        """The session follows the stream, and the first page after ``since`` is at hand. Its answer and
        ``start_delivery`` come next. Raises BrokerDown or Internal, with the session as it was."""
        audience = self._hub.audiences.get(stream) or await self._subscribe(stream)
        if session.ended:
            self._unsubscribe_if_empty(audience)
            return
        track = session.follow(audience, since)
        audience.joining.add(session)
        if since is None:
            return
        try:
            track.page = await self._replay.page(stream, since)
        except Refused:
            self.detach(session, stream)
            raise

    async def room(self, session: Session) -> None:
        """Returns when the peer has taken nearly all that waits for it, or the session has ended."""
        await self._replay.room(session)

    async def join(self, session: Session, stream: str, since: Position) -> None:
        """``attach``, once the peer has taken what waits for it; where the session has the stream, it starts anew.
        A peer that joins faster than it reads would else be sent a page for each command."""
        async with self._replay.paging.of(session.connection):
            await self._replay.room(session)
            if session.ended:
                return
            if stream in session.streams:
                await self._start_anew(session, stream, since)
            if not session.ended and stream not in session.streams:  # or not any more
                await self.attach(session, stream, since)

    async def _start_anew(self, session: Session, stream: str, since: Position) -> None:
        """As ``attach``. If the page can't be read the stream goes on where it was, from the journal."""
        audience = self._catch_up(session, stream)
        track = session.start_anew(stream, since)
        try:
            track.page = await self._replay.page(stream, since)
        except Refused:
            if session.tracks.get(stream) is track:  # else it has ended, or was removed
                track.state = WAITING
                self._replay.read_on(session, audience)
            raise

    async def _subscribe(self, stream: str) -> Audience:
        """The stream's audience, once the broker has confirmed that it is heard here. An open audience needs no lock:
        it is closed only when it is found empty, before anything is awaited."""
        async with self._locks.of(stream):
            audience = self._hub.audiences.get(stream)
            return audience or self._hub.open_audience(stream, await self._broker.subscribe(stream))

    def start_delivery(self, session: Session, stream: str) -> None:
        """The answer that names the stream has been queued: its first page follows, then what was held, then it is
        live."""
        track = session.tracks[stream]
        if track.page is not None:
            self._metrics.recovered(track.page)
            if track.page.gap is not None:
                self.trace.gap(session, track.page.gap)
        elif track.reset:
            self._metrics.reset()
            self.trace.gap(session, Gap(stream, track.epoch, None, track.offset, "reset"))
        session.queue_first_page(stream)
        audience = self._hub.audiences[stream]
        if not audience.settle(session):
            session.wire.track(stream)
            self._replay.read_on(session, audience)

    def slow(self, session: Session) -> bool:
        """The outbox is above its limit. True: groups whose policy allows it fell back to their journals, and the
        peer gets another chance, which as much again of other streams ends; False: there is nothing left but to close
        it."""
        wire = session.wire
        fell_back = False
        for stream in list(session.streams):
            group = group_of(stream)
            if group is None or stream in session.tracks:
                continue
            policy = self._policy(group)
            if policy != "close":
                self._fall_back(session, stream, latest=policy == "latest")
                fell_back = True
        if fell_back:
            session.slow_bytes = wire.size  # a burst of one turn may be any number of limits
        return bool(session.tracks) and wire.size <= max(session.slow_bytes, wire.limit) + wire.limit

    def _fall_back(self, session: Session, stream: str, *, latest: bool) -> None:
        """From live back to reading the journal, as fast as the peer takes it."""
        audience = self._catch_up(session, stream)
        self.trace.slow(session, stream, "latest" if latest else "replay")
        session.fall_back(stream, latest=latest)
        self._metrics.fell_back["latest" if latest else "replay",] += 1
        self._replay.read_on(session, audience)

    def _catch_up(self, session: Session, stream: str) -> Audience:
        """It hears the stream through a track from here on."""
        audience = self._hub.audiences[stream]
        audience.suspend(session)
        session.wire.track(stream)
        audience.joining.add(session)
        return audience

    def detach(self, session: Session, stream: str) -> None:
        """Nothing more of this stream, from now on."""
        session.unfollow(stream)
        session.wire.untrack(stream)
        audience = self._hub.audiences.get(stream)
        if audience is not None:
            audience.remove(session)
            self._unsubscribe_if_empty(audience)

    def detach_all(self, session: Session) -> None:
        for stream in list(session.streams):
            self.detach(session, stream)

    def _unsubscribe_if_empty(self, audience: Audience) -> None:
        if audience.empty:
            self._tasks.spawn(self._unsubscribe(audience.stream), "unsubscribe")

    async def _unsubscribe(self, stream: str) -> None:
        async with self._locks.of(stream):
            audience = self._hub.audiences.get(stream)
            if audience is None or not audience.empty:
                return
            self._hub.close_audience(stream)
            with contextlib.suppress(BrokerDown):  # it lost the subscription with the connection
                await self._broker.unsubscribe(stream)
