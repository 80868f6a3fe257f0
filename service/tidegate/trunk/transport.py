"""One session's side of a link: what the gateway, the hub and a peer know of its client. The session does not know the
difference to a socket of its own.

What waits for the client waits at the edge. ``size`` is how much of what was said to this session alone (SEND) the edge
has not yet told to be written; what its streams say (HEARD) the edge counts, and says SLOW. When that has gone out the
node learns by a pong without a payload, which is sent behind it and means nothing to a client: before it is written
there is no room, or what is newest would be read long before it can go out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.core.model import Position
from tidegate.core.pace import UNLIMITED, Pace, Rates
from tidegate.core.session import Sender, Sink
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind
from tidegate.websocket.peer import Peer
from tidegate.websocket.reader import FrameError, check_text
from tidegate.websocket.wire import CLOSED, CLOSING, FULL, HELD, OPEN, PACED, WireState

# Of what is said to one session alone. What comes in many reads the edge joins from all of them, at each read again.
PART_BYTES = 16 * 1024
UNASKED_PONG = frames.pong(b"")  # RFC 6455, 5.5.3


class Carrier(Sink, Protocol):
    """A link, as its sessions know it. ``said``: bytes to sessions alone in this turn; ``accepted``: how many sessions
    are connections."""

    said: int
    accepted: int

    @property
    def crowded(self) -> bool:
        """What is large had better wait."""

    def when_room(self, callback: Callable[[], None]) -> None:
        """``callback`` is called once, when it is not crowded."""

    def put(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        """Says a frame, when this turn of the loop ends."""

    def out(self, data: bytes) -> None:
        """The same, of a frame that is made already."""

    def note_done(self, session: LinkedTransport) -> None:
        """A message of its client is answered: the edge hears how many are."""

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Calls it then."""

    def lost(self, peer: Peer, why: str) -> None:
        """Its client may go on at another node."""

    def forget(self, session: LinkedTransport) -> None: ...

    def number_of(self, stream: str) -> int:
        """Of a stream that is held."""

    def hold(self, stream: str) -> None:
        """One session more has the stream."""

    def release(self, stream: str) -> None:
        """One session less."""


class LinkedTransport:
    """``number`` is the edge's, for this session on this link. Nothing is said before ``accept``."""

    __slots__ = (
        "_code",
        "_early",
        "_on_room",
        "_pace",
        "_slow_until",
        "_streams",
        "_tracked",
        "answered",
        "hands_over",
        "is_accepted",
        "limit",
        "number",
        "paused",
        "peer",
        "received",
        "seen",
        "sent",
        "sink",
        "size",
        "state",
    )

    def __init__(self, link: Carrier, number: int, *, outbox_bytes: int, rates: Rates = UNLIMITED) -> None:
        self.sink = link
        self.number = number
        self.limit = outbox_bytes
        self.size = 0
        self.sent = 0  # bytes of SEND, ever
        self._slow_until = 0  # so many of them are written when the edge has sent what made it say SLOW
        self.received = 0  # messages of the client
        self.answered = 0  # of these
        self.paused = 0
        self.peer: Peer | None = None
        self.seen = monotonic()
        self.state: WireState = OPEN
        self._pace = Pace(rates)
        self._code: int = CloseCode.ABNORMAL
        self._early: list[bytes] | None = []  # until it was accepted
        self._on_room: list[Callable[[], None]] = []
        self._streams: set[str] = set()  # that the edge knows of it
        self._tracked: set[str] = set()  # of these, those in which it catches up
        self.hands_over = False
        self.is_accepted = False

    def deny(self, code: int, reason: str) -> None:
        """It cannot be taken up: its client hears a close frame."""
        self._early = None
        self._say(Kind.CLOSE, codec.code(code, reason))
        self._end(answered=False)

    def accept(self, answer: bytes, peer: Peer) -> None:
        """``answer`` is the head of the 101, empty where the client had its own before. What was said meanwhile
        follows it."""
        early, self._early = self._early, None
        self.peer = peer
        self.is_accepted = True
        self.sink.accepted += 1
        self.sink.put(Kind.ACCEPT, self.number, answer)
        for frame in early or ():
            self.sink.out(frame)

    def refuse(self, answer: bytes) -> None:
        """``answer`` is an HTTP answer. It was no session."""
        self._early = None
        self._say(Kind.REFUSE, answer)
        self._end(answered=False)

    @property
    def gone(self) -> bool:
        return self.state is CLOSED

    def welcomed(self) -> None:
        """All that the welcome began is said: its handshake is over."""
        self.sink.put(Kind.WELCOMED, self.number)

    def _say(self, kind: Kind, payload: bytes = b"") -> None:
        if self.state is CLOSED:
            return
        if self._early is None:
            self.sink.put(kind, self.number, payload)
        else:
            self._early.append(codec.frame(kind, self.number, payload))

    # What the core does with a transport

    def put(self, frame: bytes) -> None:
        size = len(frame)
        self.size += size
        self.sent += size
        self.sink.said += size
        last = 0
        if size > PART_BYTES:
            last = (size - 1) // PART_BYTES * PART_BYTES
            for at in range(0, last, PART_BYTES):
                self._say(Kind.PART, frame[at : at + PART_BYTES])
        self._say(Kind.SEND, frame[last:])

    @property
    def sock(self) -> Sender:
        raise AssertionError("a message to many crosses a link as one")

    def put_rest(self, waiting: Sequence[bytes], sent: int) -> None:
        raise AssertionError("a message to many crosses a link as one")

    @property
    def has_room(self) -> bool:
        return self._is_read() and not self.sink.crowded

    def _is_read(self) -> bool:
        """Its client has taken nearly all of it."""
        # The edge tells of few bytes only where a stream is tracked.
        waits = self._tracked and self._slow_until > self.sent - self.size
        return (self.size <= self.limit >> 4 and not waits) or self.state is CLOSED

    def when_room(self, callback: Callable[[], None]) -> None:
        if self._is_read():
            self.sink.when_room(callback)
        else:
            self._on_room.append(callback)

    def tell_room(self) -> None:
        waiting, self._on_room = self._on_room, []
        for callback in waiting:
            callback()

    def pause_reading(self) -> None:
        self._pause(HELD)

    def resume_reading(self) -> None:
        self._resume(HELD)

    def _pause(self, why: int) -> None:
        if not self.paused:
            self._say(Kind.READING, b"\0")
        self.paused |= why

    def _resume(self, why: int) -> None:
        if self.paused & why:
            self.paused &= ~why
            if not self.paused:
                self.seen = monotonic()
                self._say(Kind.READING, b"\1")

    def done(self) -> None:
        self.answered += 1
        self.sink.note_done(self)
        if self.hands_over and self.answered == self.received:
            self._go()

    def hand_over(self) -> None:
        """Its client is sent to another node, once all is answered that came of it. What comes from now on is for
        that one."""
        self.hands_over = True
        if self.state is OPEN and self.answered == self.received:
            self._go()

    def _go(self) -> None:
        peer = self.peer
        if peer is None or self.state is not OPEN:
            return
        self._say(Kind.MOVE, codec.count(self.received) + codec.cursor(peer.session.positions()))
        self.lose("handed over")

    def lose(self, why: str) -> None:
        """Here it is over, and nothing is said of it to the edge."""
        if self.state is CLOSED:
            return
        peer = self.peer
        self.peer = None  # its end is no close
        if peer is not None and self.state is OPEN:
            self.sink.lost(peer, why)
        elif peer is not None:
            peer.on_closed(self._code, False)
        self._end(answered=False)

    def close(self, code: int, reason: str = "") -> None:
        if self.state is not OPEN:
            return
        self.state = CLOSING
        self._code = code
        if self.peer is not None:
            self.peer.on_closing(code)
        self._say(Kind.CLOSE, codec.code(code, reason))

    def abort(self, code: int | None = None) -> None:
        """Cuts it; ``code`` goes to the log and the metrics."""
        if code is not None:
            self._code = code
        self._say(Kind.CLOSE, codec.code(CloseCode.ABNORMAL))
        self._end(answered=False)

    # Streams

    def track(self, stream: str) -> None:
        """It has the stream, and catches up."""
        self._say(Kind.TRACK, codec.count(self._number(stream)) + stream.encode())
        self._tracked.add(stream)

    def follow(self, stream: str, position: Position) -> None:
        """It is where the stream is on this link, which is ``position``, from here on."""
        payload = codec.count(self._number(stream)) + codec.position(position) + stream.encode()
        self._say(Kind.FOLLOW, payload)
        self._forget_track(stream)

    def untrack(self, stream: str) -> None:
        """It has the stream no more."""
        if stream in self._streams:
            self._say(Kind.UNTRACK, codec.count(self.sink.number_of(stream)))
            self._streams.discard(stream)
            self.sink.release(stream)
            self._forget_track(stream)

    def _forget_track(self, stream: str) -> None:
        self._tracked.discard(stream)
        if not self._tracked:
            self._slow_until = 0  # from here on the edge does not tell of so little as that pong
            self._note_read()

    def _note_read(self) -> None:
        """Who waited for its client to take what it had goes on, if it has."""
        if self._is_read():
            self._resume(FULL)
            self.tell_room()

    def _number(self, stream: str) -> int:
        if stream not in self._streams:
            self._streams.add(stream)
            self.sink.hold(stream)
        return self.sink.number_of(stream)

    # What the edge says of it

    def on_text(self, payload: bytes) -> None:
        self.seen = monotonic()
        if self.state is not OPEN or self.peer is None or self.hands_over:
            return
        self.received += 1
        try:
            if not payload.isascii():
                check_text(payload)
        except FrameError as exc:
            self.close(exc.code, exc.reason or exc.code.reason)
            return
        self.peer.on_text(payload)
        if self.size > self.limit >> 1 and not self.gone:
            self._pause(FULL)  # until that is nearly gone, as on a socket
        self._count(len(payload))

    def _count(self, size: int) -> None:
        """A message of so many bytes came. What is on its way is still taken where its client is not to be read."""
        pace = self._pace
        pace.messages -= 1
        pace.bytes -= size
        wait_s = pace.wait_s(self.seen) if pace.messages < 0 or pace.bytes < 0 else 0.0
        if wait_s and self.state is OPEN and self.peer is not None and not self.paused & PACED:
            self._pause(PACED)
            self.sink.later(wait_s, lambda: self._resume(PACED))
            self.peer.on_paced(pace.what)

    def on_pong(self, payload: bytes) -> None:
        """Empty: the client lives, as the edge has seen."""
        self.seen = monotonic()
        if payload and self.peer is not None:
            self.peer.on_pong(payload)
            self._count(len(payload))

    def on_written(self, total: int) -> None:
        """``total`` bytes of SEND, modulo 2^32, have left the edge."""
        self.size = (self.sent - total) % 2**32
        self._note_read()

    def on_slow(self) -> None:
        if self.state is OPEN and self.peer is not None:
            self.peer.on_slow()
            if self._tracked:
                self.put(UNASKED_PONG)
                self._slow_until = self.sent

    def keep_token(self, token: str) -> None:
        self._say(Kind.TOKEN, token.encode())

    def on_gone(self, code: int, answered: bool) -> None:
        """Its socket is closed. ``code``: the client's, where it was the first to say one."""
        if self.state is OPEN:
            self._code = code
        self._end(answered=answered)

    def _end(self, *, answered: bool) -> None:
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self.size = 0
        self.sink.forget(self)
        for stream in self._streams:
            self.sink.release(stream)
        self._streams.clear()
        self.tell_room()
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.on_closed(self._code, answered)
