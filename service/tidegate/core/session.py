"""One connection's state machine: what it has been told of each stream, and what it must be told next.

Theory of operation. A stream of a session is *live* (the session is in step with the hub; nothing is kept here) or it
has a ``Track``, whose state says what the hub's messages mean to it:

    STARTING   no position was given: delivery starts with the answer (welcome, reply, joined); messages before it
               are not for this session
    READING    a page of history is being read: hold what the hub hears, or it falls between the page and going live
    WAITING    the page did not reach the top: the next one covers what the hub hears; hold nothing
    AHEAD      the page reached further than the hub has heard: drop what comes until the hub is there too

    STARTING -> live                       when the answer is queued
    READING  -> live | WAITING | AHEAD     when the page is queued (``catch_up``)
    WAITING  -> READING                    when the peer has taken the page (``start_reading``)
    AHEAD    -> live | WAITING             when the hub catches up; or when a gap, or another epoch, interrupts

A join with a position starts a stream anew that the session has: whatever its state, it gets another track, READING,
that stands where the stream was (``start_anew``). What is said of its position meanwhile is still true, and if the
page can't be read that track is WAITING and goes on from there: the stream is neither lost nor silent. With the answer
it jumps to the position that was asked for. Whoever read for the track before finds another in its place, and ends.

A session that is too slow for a live stream goes back to WAITING (``fall_back``). With ``latest`` it is not told all
that it missed, but what is newest when there is room (``queue_newest``); its position moves when that is queued.

Nothing here knows a clock, a socket or a broker; the gateway moves it, the hub feeds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Protocol

from tidegate.core import frames, protocol
from tidegate.core.journal import cost
from tidegate.core.model import Cursor, Gap, History, Message, Position, encode_cursor, group_of
from tidegate.core.newest import Newest

PAGE_BYTES = 256 * 1024  # of data in one page of replay, and the most that a track holds
PAGE_MESSAGES = 500


class StreamView(Protocol):
    """A stream as heard on this node (the hub's audience)."""

    stream: str
    position: Position


class Sender(Protocol):
    """A socket, as far as a delivery needs it."""

    def send(self, data: bytes, /) -> int:
        """How many bytes it took. Raises OSError if it takes none now, or never again."""


class Sink(Protocol):
    """Carries what is said to all sessions of a stream as one, to where they are: a trunk (docs/trunk.md). ``worker``:
    who is at its other end."""

    @property
    def worker(self) -> str: ...

    def hear(self, stream: str, before: Position, after: Position, waiting: Sequence[bytes], /) -> None:
        """These frames, to those who follow the stream there; they bring it from ``before`` to ``after``."""


class Transport(Protocol):
    """The socket's side, as the core sees it: an outbox (outbox.py) and what is done to its connection. ``sink``: what
    it shares with others, None where the socket is its own."""

    limit: int
    size: int

    @property
    def sink(self) -> Sink | None: ...

    @property
    def sock(self) -> Sender: ...

    @property
    def has_room(self) -> bool: ...

    def when_room(self, callback: Callable[[], None]) -> None: ...

    def tell_room(self) -> None: ...

    def put(self, frame: bytes) -> None: ...

    def put_rest(self, waiting: Sequence[bytes], sent: int) -> None:
        """Queues these frames, of which the first ``sent`` bytes have gone."""

    def close(self, code: int, reason: str = "") -> None:
        """Sends what waits and a close frame; nothing may be queued afterwards."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def done(self) -> None:
        """One more of the client's messages is answered."""

    def hand_over(self) -> None:
        """Where its socket is an edge's: another node takes it, once all is answered."""

    def keep_token(self, token: str) -> None:
        """It has a new one, for whoever takes its connection up."""

    def track(self, stream: str) -> None:
        """It has the stream, and is not where the stream is."""

    def follow(self, stream: str, position: Position) -> None:
        """From here on it is where the stream is, which is at ``position``."""

    def untrack(self, stream: str) -> None:
        """It has the stream no more."""


class Rights(Protocol):
    """What the client's token allows (auth/tokens.py)."""

    @property
    def expires(self) -> float | None: ...

    def may_join(self, group: str) -> bool: ...

    def may_publish(self, group: str) -> bool: ...


class TrackState(Enum):
    STARTING = "starting"
    READING = "reading"
    WAITING = "waiting"
    AHEAD = "ahead"


STARTING, READING, WAITING, AHEAD = TrackState  # an attribute of an enum costs several times a name (Python 3.11)


class Track:
    """How far one session has been told of one stream that is not live yet."""

    __slots__ = (
        "answered",
        "epoch",
        "held",
        "held_bytes",
        "interrupted",
        "latest",
        "offset",
        "page",
        "reset",
        "since",
        "state",
    )

    def __init__(self, since: Position | None) -> None:
        self.since = since  # the position that was asked for; the first page follows it
        self.state = STARTING if since is None else READING
        self.epoch = since.epoch if since else ""
        self.offset = since.offset if since else 0
        self.held: list[Message] = []
        self.held_bytes = 0
        self.interrupted = False  # what is held can't be used: a gap came, or it was too much
        self.page: History | None = None  # the first page, read before the answer is composed
        self.answered = False  # the welcome or reply that names the stream has been queued
        self.reset = False  # recovery was asked for, but there is no position to continue from
        self.latest = False  # what follows is passed over, but for the newest

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    @property
    def hears(self) -> bool:
        """Whether it must hear each message. A page that is yet to be read will have them."""
        return self.state is READING or self.state is AHEAD


class Confirmations:
    """What a peer is known to have received, by its pongs. Source: docs/protocol.md, cursor=last.

    ``confirmed`` is the record: a position for every stream of the session, never ahead of what arrived.
    """

    __slots__ = ("_pings", "closing", "confirmed", "saving", "unsaved")

    def __init__(self, confirmed: Cursor) -> None:
        self.confirmed = confirmed
        self.closing: Cursor | None = None  # what was queued when we closed
        self.saving = False  # the gateway is storing ``confirmed``
        self.unsaved = False  # ``confirmed`` is to be stored, for the first time or again
        # A peer that lives but never answers pings must not make this grow; losing the oldest only repeats more.
        self._pings: deque[tuple[bytes, Cursor]] = deque(maxlen=8)

    def sent(self, mark: bytes, positions: Cursor) -> None:
        """A ping with this payload was queued behind everything up to ``positions``."""
        self._pings.append((mark, positions))

    def pong(self, mark: bytes) -> bool:
        """Confirms the ping with this payload and all before it; False if there is none such."""
        if not any(mark == sent for sent, _ in self._pings):
            return False
        while True:
            sent, positions = self._pings.popleft()
            if sent == mark:
                self.confirm(positions)
                return True

    def confirm(self, positions: Cursor) -> None:
        self.unsaved = True  # though it may be the same: a record that is used must not grow old
        for stream, position in positions.items():
            if stream in self.confirmed:
                self.confirmed[stream] = position

    def start(self, stream: str, position: Position) -> None:
        """The stream starts, or starts anew: pings under way say nothing of it any more."""
        self.forget(stream)
        self.confirmed[stream] = position

    def forget(self, stream: str) -> None:
        self.unsaved = True
        self.confirmed.pop(stream, None)
        for _, positions in self._pings:
            positions.pop(stream, None)


class Session:
    """One connection of one client, as far as its streams go. What else is due for it belongs to who does it."""

    __slots__ = (
        "_composed",
        "client",
        "confirmations",
        "connection",
        "device",
        "dropped",
        "ended",
        "lasting",
        "moving",
        "refused",
        "rights",
        "since_ms",
        "slow_bytes",
        "streams",
        "term",
        "tracks",
        "welcomed",
        "wire",
    )

    def __init__(self, client: str, connection: str, rights: Rights, wire: Transport, since_ms: int) -> None:
        self.client = client
        self.connection = connection
        self.rights = rights
        self.wire = wire
        self.since_ms = since_ms
        self.term = 0  # how often its connection was taken up by another node, or by this one anew
        self.device: str | None = None  # set where the session owns a record
        self.confirmations: Confirmations | None = None
        self.streams: dict[str, StreamView] = {}
        self.tracks: dict[str, Track] = {}
        self.lasting: frozenset[str] = frozenset()  # groups that the application made it a member of
        self.welcomed = False
        self.refused: tuple[str, ...] = ()  # groups that it asked for and may not follow
        self.moving = False  # it was told to connect anew
        self.slow_bytes = 0  # that waited when it fell back; until there is room
        self.ended = False  # follows nothing any more
        self.dropped = False  # its connection is gone
        self._composed: tuple[list[Position], str | None] | None = None  # the last cursor, and what it was made of

    @property
    def owner(self) -> str:
        """Who saves a record: what an earlier term of the same connection still has under way is of another owner."""
        return f"{self.connection}#{self.term}" if self.term else self.connection

    # Streams

    @property
    def groups(self) -> Iterable[str]:
        return (group for group in map(group_of, self.streams) if group is not None)

    @property
    def group_count(self) -> int:
        return sum(1 for _ in self.groups)

    def was_told(self, stream: str) -> bool:
        """Whether it has the stream, and the answer that says so has been queued."""
        track = self.tracks.get(stream)
        return stream in self.streams and (track is None or track.answered)

    def follow(self, heard: StreamView, since: Position | None) -> Track:
        """A stream was asked for; ``since`` None: from now on."""
        track = self.tracks[heard.stream] = Track(since)
        self.streams[heard.stream] = heard
        self._composed = None
        return track

    def unfollow(self, stream: str) -> None:
        self.streams.pop(stream, None)
        self.tracks.pop(stream, None)
        self._composed = None
        if self.confirmations is not None:
            self.confirmations.forget(stream)

    def position(self, stream: str) -> Position:
        """What has been queued of a stream that was answered."""
        track = self.tracks.get(stream)
        return self.streams[stream].position if track is None else track.position

    def positions(self) -> Cursor:
        """What has been queued of all streams that were answered."""
        return {
            stream: self.position(stream)
            for stream in self.streams
            if (track := self.tracks.get(stream)) is None or track.answered
        }

    def cursor(self) -> str | None:
        """``positions`` as one token; None where it would pass 4 KiB. Composed again only when a stream has moved."""
        if self.tracks:
            return encode_cursor(self.positions())
        heard = [heard.position for heard in self.streams.values()]
        if self._composed is None or self._composed[0] != heard:
            self._composed = heard, encode_cursor(self.positions())
        return self._composed[1]

    # What the hub says

    def hold(self, message: Message) -> bool:
        """A live message for a stream that is not live here. True: ask ``catch_up`` again."""
        track = self.tracks[message.stream]
        if track.state is AHEAD:
            if message.epoch != track.epoch:  # the hub goes on elsewhere: was the page older than what it has heard?
                track.interrupted = True
            return True
        if track.state is READING and not track.interrupted:
            track.held.append(message)
            track.held_bytes += cost(message)
            if track.held_bytes > PAGE_BYTES:
                self.interrupt(message.stream)  # the next page will have them
        return False

    def interrupt(self, stream: str) -> bool:
        """What is held is of no use: read again. A gap that caused it is found by that reading.
        True: nobody is about to read a page for this track, start one."""
        track = self.tracks[stream]
        if track.state is STARTING:
            return False  # it begins wherever the hub is when it is answered
        track.interrupted = True
        track.held, track.held_bytes = [], 0
        if track.state is not AHEAD:
            return False
        track.state = WAITING
        return True

    # Catching up

    def start_reading(self, stream: str) -> Position:
        """A page will be read after the position that this returns; hold from now on."""
        track = self.tracks[stream]
        track.state = READING
        track.interrupted = False
        track.held, track.held_bytes = [], 0
        return track.position

    def queue_page(self, stream: str, page: History) -> None:
        """Queues a page: its gap, if any, then its messages."""
        self._queue_gap(stream, page)
        for message in page.messages:
            self.send(protocol.encode_message(message))
        self._move(stream, page.end)

    def queue_newest(self, stream: str, newest: Newest) -> None:
        """Queues what is kept of a stretch, and says what is left out of it."""
        self._queue_gap(stream, newest)
        for event in newest.events():
            self.send(protocol.encode_gap(event) if isinstance(event, Gap) else protocol.encode_message(event))
        self._move(stream, newest.end)

    def _queue_gap(self, stream: str, page: History | Newest) -> None:
        """What the peer must be told before ``page``."""
        epoch = page.start.epoch
        if epoch != self.tracks[stream].epoch and (page.gap is None or page.gap.first is not None):
            # Its beginning has moved (docs/decisions/0013); the peer was told the earlier epoch.
            self.send(protocol.encode_gap(Gap(stream, epoch, None, 0, "reset")))
        if page.gap is not None:
            self.send(protocol.encode_gap(page.gap))

    def _move(self, stream: str, position: Position) -> None:
        track = self.tracks[stream]
        track.epoch, track.offset = position.epoch, position.offset

    def catch_up(self, stream: str, heard: Position) -> bool:
        """Queues what was held beyond the page. True: in step with the hub, the stream is live from here on.
        False: wait for the next page (WAITING) or for the hub (AHEAD)."""
        track = self.tracks[stream]
        for message in track.held:
            if message.offset <= track.offset:
                continue  # a repeat: the page had it
            if message.offset != track.offset + 1 or message.epoch != track.epoch:
                break
            self.send(protocol.encode_message(message))
            track.offset = message.offset
        track.held, track.held_bytes = [], 0
        if track.interrupted:
            track.state = WAITING
            return False
        if track.epoch != heard.epoch or track.offset > heard.offset:
            track.state = AHEAD  # of another epoch too: had the hub heard of it first, it would have interrupted
            return False
        if track.offset < heard.offset:
            track.state = WAITING
            return False
        del self.tracks[stream]
        return True

    def fall_back(self, stream: str, *, latest: bool) -> None:
        """A live stream goes back to reading the journal: the peer is slow and its group's policy allows it."""
        track = self.tracks[stream] = Track(self.position(stream))
        track.state, track.answered, track.latest = WAITING, True, latest

    def start_anew(self, stream: str, since: Position) -> Track:
        """A join gave a position of a stream that was answered: hold from now on, read the page after ``since``. Then
        ``join_fields`` and ``queue_first_page``; or WAITING, if it can't be read: the stream goes on where it was."""
        track = self.tracks[stream] = Track(self.position(stream))
        track.since, track.answered = since, True
        return track

    # Answers

    def join_fields(self, stream: str) -> dict[str, object]:
        """What welcome, ``joined`` or a reply says of a stream, and where its delivery starts. Call it once, in the
        same turn in which the answer is queued; then ``queue_first_page``."""
        track, heard = self.tracks[stream], self.streams[stream].position
        track.answered = True
        page, known = track.page, heard
        fields: dict[str, object]
        if page is None:
            start, fields = heard, {"top": heard.offset}
            if track.reset:
                fields |= {"recovered": False, "missed": 0}
        else:
            gap = page.gap
            offset = page.start.offset if gap is None or gap.first is None else gap.first - 1
            start = Position(page.start.epoch, offset)
            fields = {"top": page.top, "recovered": gap is None, "missed": page.top - page.start.offset}
            known = _known_to_have(track.since, page)
        track.epoch, track.offset = start.epoch, start.offset
        if self.confirmations is not None:
            self.confirmations.start(stream, known)
        return {"epoch": start.epoch, "offset": start.offset, **fields}

    def standing(self, stream: str) -> dict[str, object]:
        """What a reply says of a stream that was answered before, and goes on."""
        position, heard = self.position(stream), self.streams[stream].position
        top = max(position.offset, heard.offset) if position.epoch == heard.epoch else position.offset
        return {"epoch": position.epoch, "offset": position.offset, "top": top}

    def queue_first_page(self, stream: str) -> None:
        """After the answer is queued: its gap and first page. ``catch_up`` comes next. A page for which there is no
        room, because other streams had theirs, is read again when there is."""
        track = self.tracks[stream]
        page, track.page = track.page, None
        if page is not None and page.messages and not self.wire.has_room:
            if page.gap is not None:
                self.send(protocol.encode_gap(page.gap))
                track.epoch, track.offset = page.gap.epoch, page.gap.last
        elif page is not None:
            self.queue_page(stream, page)
        elif track.reset:
            self.send(protocol.encode_gap(Gap(stream, track.epoch, None, track.offset, "reset")))

    def send(self, event: bytes) -> None:
        """Queues one event."""
        if not self.ended:
            self.wire.put(frames.text(event))


def _known_to_have(since: Position | None, page: History) -> Position:
    """Where a record starts with this answer: where the peer was, so that a gap which never reaches it is told again.
    Not above the top: such a position would come to stand for messages that are still to come."""
    if since is None or (since.epoch == page.start.epoch and since.offset > page.top):
        return page.start
    return since
