"""Which session on this node follows which stream, how far each stream was heard here, and the fan-out.

Theory of operation. What the broker says is kept until the loop's turn ends; until then it is as if it were still under
way. Then it is delivered, stream by stream (``deliver``): messages that came together go out together, joined once
for all who follow them.

An ``Audience`` has the position of its stream as heard on this node. A *live* session has been queued exactly what the
audience has heard, so the audience's position is the session's own: repeats and holes are checked once per message, and
a delivery is one write. A session that is *joining* has a ``Track`` (session.py) that holds messages until history
has been read. Both hear every message in the same turn of the loop, so a session changes from joining to live between
two messages, never in the middle of one. A track that waits for a page (its peer is slow, for instance) hears nothing,
and costs the others nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

from tidegate.core import frames, protocol
from tidegate.core.model import Gap, Message, Position, kind_of
from tidegate.core.session import Session, Sink, Transport

Write: TypeAlias = Callable[[Iterable[Transport], Sequence[bytes]], None]  # these frames to each of these


# What went out together: the stream, where it was then, how many messages they were, to how many sessions. A number is
# whatever their reader puts between them.
FanOuts: TypeAlias = deque[tuple[str, Position, int, int] | float]


def put_all(wires: Iterable[Transport], waiting: Sequence[bytes]) -> None:
    """Each is written when the turn's deliveries are done, with whatever else waits there."""
    for wire in wires:
        for frame in waiting:
            wire.put(frame)


class Audience:
    """The sessions of one stream on this node. ``position``: how far it was heard; another object when it moves.
    ``live``: those with a socket of their own; ``shared``: those who hear it through one sink. ``unaware``: those to
    whom its offset 0 was named in an earlier epoch; they are told before the first message."""

    __slots__ = ("joining", "live", "position", "shared", "stream", "unaware")

    def __init__(self, stream: str, position: Position) -> None:
        self.stream = stream
        self.position = position
        self.live: dict[Session, Transport] = {}
        self.shared: dict[Sink, set[Session]] = {}
        self.joining: set[Session] = set()
        self.unaware: set[Session] = set()

    @property
    def empty(self) -> bool:
        return not self.live and not self.joining and not self.shared

    def is_only(self, session: Session) -> bool:
        """Whether it joins and nobody else is there."""
        return len(self.joining) == 1 and session in self.joining and not self.live and not self.shared

    @property
    def followers(self) -> int:
        """How many hear a message the moment that it is heard here."""
        return len(self.live) + sum(map(len, self.shared.values()))

    @property
    def hearing(self) -> list[Session]:
        """Those who are joining and must hear each message."""
        return [session for session in self.joining if session.tracks[self.stream].hears]

    def settle(self, session: Session) -> bool:
        """After a page or a held message: True if the session has caught up and is live now."""
        if not session.catch_up(self.stream, self.position):
            return False
        self.joining.discard(session)
        sink = session.wire.sink
        if sink is None:
            self.live[session] = session.wire
        else:
            self.shared.setdefault(sink, set()).add(session)
            session.wire.follow(self.stream, self.position)
        return True

    def suspend(self, session: Session) -> None:
        """It catches up, no longer where the stream is. What it hears next may be of the new beginning already."""
        if session in self.unaware:
            self.unaware.discard(session)
            session.send(protocol.encode_gap(self._moved))
        self._leave(session)

    @property
    def _moved(self) -> Gap:
        """What those are told to whom its offset 0 was named in an earlier epoch."""
        return Gap(self.stream, self.position.epoch, None, self.position.offset, "reset")

    def tell_the_unaware(self) -> None:
        put_all((session.wire for session in self.unaware), [frames.text(protocol.encode_gap(self._moved))])
        self.unaware.clear()

    def _leave(self, session: Session) -> None:
        self.live.pop(session, None)
        sink = session.wire.sink
        if sink is not None and sink in self.shared:
            sessions = self.shared[sink]
            sessions.discard(session)
            if not sessions:
                del self.shared[sink]

    def remove(self, session: Session) -> None:
        self._leave(session)
        self.joining.discard(session)
        self.unaware.discard(session)


class HubListener(Protocol):
    """What the hub reports. All are plain calls in the turn of the loop in which it happens."""

    def on_stalled(self, session: Session, audience: Audience) -> None:
        """A track may need a page that nobody is about to read."""

    def on_hole(self, gap: Gap) -> None:
        """The broker broke its promise: it left out what ``gap`` says, without a word. Clients have been told."""


class Hub:
    """All audiences and all sessions of this node. ``at_turn_end`` takes what is to be called when this turn of the
    loop ends; ``write`` is how frames get to those for whom nothing waits; ``fanned`` gets what went out."""

    def __init__(
        self,
        listener: HubListener,
        at_turn_end: Callable[[Callable[[], None]], object],
        write: Write = put_all,
        fanned: FanOuts | None = None,
    ) -> None:
        self._listener = listener
        self._at_turn_end = at_turn_end
        self._write = write
        self._note = (deque(maxlen=0) if fanned is None else fanned).append
        self.audiences: dict[str, Audience] = {}
        self.clients: dict[str, dict[str, Session]] = {}  # client -> connection -> session
        self._heard: list[Message] = []
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

    def open_audience(self, stream: str, position: Position) -> Audience:
        """The broker has confirmed a subscription: the stream is heard from ``position`` on."""
        self.deliver()  # what was heard before is of an earlier subscription
        audience = self.audiences[stream] = Audience(stream, position)
        return audience

    def close_audience(self, stream: str) -> None:
        del self.audiences[stream]

    # What the broker says

    def on_message(self, message: Message) -> None:
        """It goes to everybody who follows its stream when the turn ends, or what must come after it does."""
        if not self._heard:
            self._at_turn_end(self.deliver)
        self._heard.append(message)

    def on_gap(self, gap: Gap, position: Position) -> None:
        """Tells everybody live; who is joining reads history again and finds the gap there."""
        self.deliver()
        audience = self.audiences.get(gap.stream)
        if audience is not None:
            self._tell(audience, gap, position)

    def on_moved(self, stream: str, position: Position) -> None:
        """Nobody has missed anything, so a socket is told nothing before there is a first message."""
        self.deliver()
        audience = self.audiences.get(stream)
        if audience is not None:
            audience.unaware.update(audience.live)
            # Where a position is kept for them elsewhere it must be the one that they were told.
            moved = frames.text(protocol.encode_gap(Gap(stream, position.epoch, None, position.offset, "reset")))
            self._move(audience, [moved], position)
            self._interrupt(audience)

    def deliver(self) -> None:
        """What was heard in this turn."""
        heard, self._heard = self._heard, []
        streams: dict[str, list[Message]] = {}
        for message in heard:
            streams.setdefault(message.stream, []).append(message)
        # Nobody is written to several times: neither who follows several streams nor who joins amid these messages.
        apart = len(streams) == 1 or all(kind_of(stream) == "client" for stream in streams)
        for stream, messages in streams.items():
            audience = self.audiences.get(stream)
            if audience is not None:  # else the last one left while the messages were under way
                self._deliver(audience, messages, apart)

    def _deliver(self, audience: Audience, messages: list[Message], apart: bool) -> None:
        """``apart``: nobody who is live is written to in this turn for another stream."""
        waiting: list[bytes] = []
        hearing = audience.hearing if audience.joining else []  # nobody begins to hear before this has ended
        write = self._write if apart and not hearing else put_all
        if audience.unaware:
            audience.tell_the_unaware()
        heard = audience.position
        for message in messages:
            offset = message.offset
            if offset != heard.offset + 1 or message.epoch != heard.epoch:
                if offset <= heard.offset and message.epoch == heard.epoch:
                    continue  # a repeat
                self._queue(audience, waiting, heard, write)
                waiting = []
                gap = _gap_before(message, heard)
                self._tell(audience, gap, Position(gap.epoch, gap.last))
                self._listener.on_hole(gap)
            waiting.append(frames.text(protocol.encode_message(message)))
            heard = Position(message.epoch, offset)
            if hearing:
                self._queue(audience, waiting, heard, write)
                waiting = []
                for session in list(hearing):
                    if not session.hold(message):
                        continue
                    if audience.settle(session):
                        hearing.remove(session)
                    else:
                        self._listener.on_stalled(session, audience)
        self._queue(audience, waiting, heard, write)

    def _queue(self, audience: Audience, waiting: list[bytes], heard: Position, write: Write) -> None:
        """These frames to everybody live; they are the stream up to ``heard``."""
        if not waiting:
            return
        live = audience.live
        write(live.values(), waiting)
        followers, messages = len(live), len(waiting)
        if audience.shared:
            followers = audience.followers
            self._move(audience, waiting, heard)
        else:
            audience.position = heard
        self._note((audience.stream, heard, messages, followers))
        self.deliveries += followers * messages
        self.delivered_bytes += followers * sum(map(len, waiting))

    def _move(self, audience: Audience, waiting: Sequence[bytes], position: Position) -> None:
        """The stream is at ``position`` now, also where it is shared; these frames brought it there."""
        before, audience.position = audience.position, position
        for sink in audience.shared:
            sink.hear(audience.stream, before, position, waiting)

    def _tell(self, audience: Audience, gap: Gap, position: Position) -> None:
        if audience.unaware and gap.first is not None:
            audience.tell_the_unaware()
        audience.unaware.clear()
        said = [frames.text(protocol.encode_gap(gap))]
        put_all(audience.live.values(), said)
        self._move(audience, said, position)
        self._interrupt(audience)

    def _interrupt(self, audience: Audience) -> None:
        for session in list(audience.joining):
            if session.interrupt(audience.stream):
                self._listener.on_stalled(session, audience)


def _gap_before(message: Message, heard: Position) -> Gap:
    """The broker broke its promise: better a gap than a silent hole."""
    if message.epoch != heard.epoch:
        return Gap(message.stream, message.epoch, None, message.offset - 1, "reset")
    return Gap(message.stream, message.epoch, heard.offset + 1, message.offset - 1, "expired")
