"""Who on this node follows which stream, how far each stream was heard here, and the fan-out.

Theory of operation. An ``Audience`` has the position of its stream as heard on this node. A *live* session has been
queued exactly what the audience has heard, so the audience's position is the session's own: repeats and holes are
checked once per message, and a delivery is one ``put``. A session that is *joining* has a ``Track`` (session.py) that
holds messages until history has been read. Both hear every message in the same turn of the loop, so a session
changes from joining to live between two messages, never in the middle of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service import frames, protocol
from service.model import Gap, Message, Position
from service.session import Session


class Audience:
    """The sessions of one stream on this node. ``position``: how far it was heard; another object when it moves."""

    __slots__ = ("joining", "live", "position", "stream")

    def __init__(self, stream: str, position: Position) -> None:
        self.stream = stream
        self.position = position
        self.live: set[Session] = set()
        self.joining: set[Session] = set()

    @property
    def empty(self) -> bool:
        return not self.live and not self.joining


class Hub:
    """All audiences and all sessions of this node."""

    def __init__(self) -> None:
        self.audiences: dict[str, Audience] = {}
        self.clients: dict[str, dict[str, Session]] = {}  # client -> connection -> session
        self.on_stalled: Callable[[Session, str], None] = lambda session, stream: None  # a track needs its next page
        self.connections = 0
        self.deliveries = 0
        self.delivered_bytes = 0

    # Connections

    def add(self, session: Session) -> None:
        self.clients.setdefault(session.client, {})[session.connection] = session
        self.connections += 1

    def remove(self, session: Session) -> None:
        """Forgets the connection; its streams must have been left before."""
        sessions = self.clients.get(session.client)
        if sessions is None or sessions.pop(session.connection, None) is None:
            return
        self.connections -= 1
        if not sessions:
            del self.clients[session.client]

    def of_client(self, client: str) -> list[Session]:
        return list(self.clients.get(client, {}).values())

    def sessions(self) -> Iterator[Session]:
        for sessions in self.clients.values():
            yield from sessions.values()

    # Streams

    def open(self, stream: str, position: Position) -> Audience:
        """The broker has confirmed a subscription: the stream is heard from ``position`` on."""
        audience = self.audiences[stream] = Audience(stream, position)
        return audience

    def close(self, stream: str) -> None:
        del self.audiences[stream]

    # What the broker says

    def on_message(self, message: Message) -> None:
        """Queues one message for everybody who follows its stream."""
        audience = self.audiences.get(message.stream)
        if audience is None:
            return  # the last one left while the message was under way
        heard, offset = audience.position, message.offset
        if message.epoch == heard.epoch:
            if offset <= heard.offset:
                return  # a repeat
            if offset != heard.offset + 1:  # the broker broke its promise: better a gap than a silent hole
                gap = Gap(message.stream, message.epoch, heard.offset + 1, offset - 1, "expired")
                self.on_gap(gap, Position(message.epoch, offset - 1))
        else:
            gap = Gap(message.stream, message.epoch, None, offset - 1, "reset")
            self.on_gap(gap, Position(message.epoch, offset - 1))
        audience.position = Position(message.epoch, offset)
        frame = frames.text(protocol.encode_message(message))
        live = audience.live
        for session in live:
            session.outbox.put(frame)
        self.deliveries += len(live)
        self.delivered_bytes += len(frame) * len(live)
        if audience.joining:
            for session in list(audience.joining):
                if session.hold(message):
                    self.settle(session, audience)

    def on_gap(self, gap: Gap, position: Position) -> None:
        """Tells everybody live; who is joining reads history again and finds the gap there."""
        audience = self.audiences.get(gap.stream)
        if audience is None:
            return
        audience.position = position
        frame = frames.text(protocol.encode_gap(gap))
        for session in audience.live:
            session.outbox.put(frame)
        for session in audience.joining:
            if session.interrupt(gap.stream):
                self.on_stalled(session, gap.stream)

    def settle(self, session: Session, audience: Audience) -> bool:
        """After a page or a held message: True if the session has caught up and is live now."""
        if not session.catch_up(audience.stream, audience.position):
            return False
        audience.joining.discard(session)
        audience.live.add(session)
        return True
