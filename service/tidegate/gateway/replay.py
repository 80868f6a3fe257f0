"""Reads a session's streams on, page after page as its peer takes them, until it is live.

The hub tells this module which track needs a page. After every ``await`` the session may have ended or left the stream:
each step looks again.
"""

from __future__ import annotations

import asyncio

from tidegate import log
from tidegate.brokers.contract import Broker
from tidegate.core.errors import Refused
from tidegate.core.hub import Audience
from tidegate.core.model import Gap, History, Position
from tidegate.core.newest import Newest
from tidegate.core.session import PAGE_BYTES, PAGE_MESSAGES, WAITING, Session, Track
from tidegate.locks import Locks
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks
from tidegate.trace import OFF, Trace

RETRY_S = 1.0


class Replay:
    """The hub's listener."""

    def __init__(self, broker: Broker, tasks: Tasks, metrics: Metrics, trace: Trace = OFF) -> None:
        self._broker = broker
        self._tasks = tasks
        self._metrics = metrics
        self.trace = trace
        self.paging = Locks()  # by connection: one page at a time

    # The hub says

    def on_stalled(self, session: Session, audience: Audience) -> None:
        self.read_on(session, audience)

    def on_hole(self, gap: Gap) -> None:
        self._metrics.holes += 1
        log.error("stream.hole_found", stream=gap.stream, epoch=gap.epoch, first=gap.first, last=gap.last)

    # Reading

    async def page(self, stream: str, since: Position) -> History:
        """Raises BrokerDown or InternalError."""
        return await self._broker.history(stream, since, messages=PAGE_MESSAGES, size=PAGE_BYTES)

    def read_on(self, session: Session, audience: Audience) -> None:
        """Begins to read if the track waits for a page."""
        if session.tracks[audience.stream].state is WAITING:
            self._tasks.spawn(self._read_pages(session, audience), "replay")

    async def _read_pages(self, session: Session, audience: Audience) -> None:
        stream = audience.stream
        track = session.tracks.get(stream)
        while track is not None and track.state is WAITING:
            try:
                async with self.paging.of(session.connection):
                    await self.room(session)
                    if not _is_for(session, stream, track):
                        return
                    session.slow_bytes = 0
                    page = await (self._newest if track.latest else self._next_page)(session, stream, track)
                    if not _is_for(session, stream, track):
                        return
                    if page.gap is not None:
                        self._metrics.gaps += 1
                        self.trace.gap(session, page.gap)
                    if isinstance(page, Newest):
                        self._metrics.skipped += page.skipped
                        self._note_skipped(session, stream, page)
                        session.queue_newest(stream, page)
                    else:
                        session.queue_page(stream, page)
                    audience.settle(session)
            except Refused:
                track.state = WAITING
                await asyncio.sleep(RETRY_S)  # others may read meanwhile, a command for instance

    async def _next_page(self, session: Session, stream: str, track: Track) -> History:
        return await self.page(stream, session.start_reading(stream))

    async def _newest(self, session: Session, stream: str, track: Track) -> Newest:
        """What it is told in place of all that follows."""
        newest = Newest(await self._next_page(session, stream, track), PAGE_BYTES)
        while not newest.ended:
            await asyncio.sleep(0)  # with a broker that answers at once this would be one turn of the loop
            if not _is_for(session, stream, track):
                break
            session.start_reading(stream)  # what was held until now is in the page that comes
            newest.add(await self.page(stream, newest.end))
        return newest

    def _note_skipped(self, session: Session, stream: str, newest: Newest) -> None:
        if newest.skipped:
            whole = Gap(stream, newest.end.epoch, newest.start.offset + 1, newest.end.offset, "skipped")
            self.trace.gap(session, whole, [message.offset for message in newest.messages])

    async def room(self, session: Session) -> None:
        """Returns when the outbox is nearly empty, or the session has ended."""
        wire = session.wire
        while not (session.ended or wire.has_room):  # another may have taken it
            room = asyncio.Event()
            wire.when_room(room.set)
            await room.wait()


def _is_for(session: Session, stream: str, track: Track) -> bool:
    """Whether what is read for ``track`` is wanted still."""
    return not session.ended and session.tracks.get(stream) is track
