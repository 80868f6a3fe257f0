"""One trunk: the byte stream between a worker of an edge and this node, and the sessions on it.

Theory of operation. What is said to the edge is kept until the loop's turn ends and goes out in one write. All that is
said of a session, and all that its streams say (HEARD), is one sequence, so that its order is the order for each
session. The edge reads on when what it has read is in its sessions' queues; so the kernel's flow control is ours, and a
link on which too much waits is a link that is lost.

When a link is lost its sessions may go on at another node: their sockets are at the edge.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol, cast

from tidegate import log
from tidegate.core.model import Position
from tidegate.core.pace import UNLIMITED, Rates
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter, TrunkBroken
from tidegate.trunk.transport import LinkedTransport
from tidegate.turn import WriteBatch
from tidegate.websocket.peer import Peer

SHARE_FRAMES = 64  # of a link, in one turn of the loop
UNSENT_BYTES = 64 * 1024 * 1024  # of a link; the largest broadcast that an edge may lag behind
CROWDED_BYTES = 64 * 1024  # of a link that the kernel has not taken: what is large waits then, so that others need not
NEXT_S = 0.001  # one who waited goes on, and then the next
UNREAD_BYTES = 1024 * 1024  # that wait for their turn; then nothing more is read
HELLO_BYTES = 4096  # a stranger may have no more


class LinkListener(Protocol):
    """What a link reports to."""

    def on_hello(self, link: Link, fields: dict[str, str]) -> bool:
        """Who is there. False: not to be talked to."""

    def on_open(self, session: LinkedTransport, head: bytes) -> None:
        """A client's handshake: its request's head."""

    def on_resume(self, session: LinkedTransport, payload: bytes) -> None:
        """A connection that another node had, or this one."""

    def on_up(self, link: Link) -> None:
        """It may be talked to."""

    def on_session_lost(self, peer: Peer, why: str) -> None:
        """Its client may go on at another node."""

    def on_lost(self, link: Link) -> None:
        """It has ended; its sessions have."""


class Link(asyncio.Protocol):
    """``worker`` is who the edge says that it is, '' before it has. ``seen``: when something last came (monotonic
    seconds)."""

    stalled_since = 0.0  # for the write batch: a link has no wait of its own

    def __init__(
        self,
        listener: LinkListener,
        batch: WriteBatch,
        hello: bytes,
        outbox_bytes: int,
        rates: Rates = UNLIMITED,
    ) -> None:
        self._listener = listener
        self._batch = batch
        self._hello = hello
        self._outbox_bytes = outbox_bytes
        self._rates = rates
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._done: dict[int, LinkedTransport] = {}  # whose clients had messages answered in this turn
        self._streams: dict[str, list[int]] = {}  # number, and how many sessions have it
        self._numbers = 0
        self._newest = 0  # number of a session
        self._waits = False  # frames wait for their turn
        self._crowd: deque[Callable[[], None]] = deque()  # those who wait for room
        self.sessions: dict[int, LinkedTransport] = {}
        self._is_full = False  # the kernel takes no more
        self._is_going_on = False
        self._is_ending = False  # nothing more is said or heard
        self.said = 0  # bytes that were said in this turn to sessions alone
        self.accepted = 0  # sessions that are connections; others are handshakes
        self.worker = ""
        self.seen = monotonic()
        self.heard = 0  # messages that went out once for all

    # asyncio says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=CROWDED_BYTES)
        self.put(Kind.HELLO, 0, self._hello)

    def data_received(self, data: bytes) -> None:
        if self.worker:
            self.seen = monotonic()  # a stranger has its time, whatever it sends
        if self._is_ending:
            return
        self._splitter.feed(data)
        if not self._waits:
            self._take()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        while self._crowd:
            self._crowd.popleft()()
        for session in list(self.sessions.values()):
            session.lose("lost")
        self._listener.on_lost(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._go_on()

    # Room

    @property
    def crowded(self) -> bool:
        """What is large had better wait."""
        return self._is_full or self.said > CROWDED_BYTES

    def when_room(self, callback: Callable[[], None]) -> None:
        """``callback`` is called once when the link is not crowded, after those who asked before."""
        self._crowd.append(callback)

    def _go_on(self) -> None:
        """One after the other: each may say something large."""
        if self._crowd and not self.crowded and not self._is_going_on:
            self._is_going_on = True
            self._crowd.popleft()()
            asyncio.get_running_loop().call_later(NEXT_S, self._next)

    def _next(self) -> None:
        self._is_going_on = False
        self._go_on()

    # Reading

    def _take(self) -> None:
        """A share of the frames that came."""
        self._waits = False
        if self._transport is None or self._is_ending:
            return
        taken = 0
        try:
            for kind, number, payload in self._splitter.frames(SHARE_FRAMES):
                taken += 1
                if self.worker:
                    self._on_frame(kind, number, payload)
                elif not self._greet(kind, payload):
                    self.abort()
                    return
            if not self.worker and self._splitter.size > HELLO_BYTES:
                raise TrunkBroken("its HELLO is too long")
        except TrunkBroken as exc:
            log.error("trunk.broken", worker=self.worker, error=str(exc))
            self.abort()
            return
        if taken < SHARE_FRAMES:
            self._transport.resume_reading()
            return
        self._waits = True
        if self._splitter.size > UNREAD_BYTES:
            self._transport.pause_reading()
        self._batch.shares.wait(self._take)

    def _greet(self, kind: int, payload: bytes) -> bool:
        """Whether it is somebody to be talked to."""
        if kind != Kind.HELLO:
            raise TrunkBroken("it does not begin with HELLO")
        fields = codec.read_fields(payload)
        if not self._listener.on_hello(self, fields):
            return False
        self.worker = fields["worker"]
        self.seen = monotonic()
        self._listener.on_up(self)
        return True

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind in (Kind.OPEN, Kind.RESUME):
            begin = self._listener.on_open if kind == Kind.OPEN else self._listener.on_resume
            begin(self._add(number), payload)
            return
        session = self.sessions.get(number)
        if session is None:
            return  # a pulse, or of one that has ended here
        if kind == Kind.TEXT:
            session.on_text(payload)
        elif kind == Kind.PONG:
            session.on_pong(payload)
        elif kind == Kind.WRITTEN:
            session.on_written(codec.read_count(payload))
        elif kind == Kind.SLOW:
            session.on_slow()
        elif kind == Kind.GONE:
            session.on_gone(*codec.read_gone(payload))
        # Others are of a later version, and said to those alone who speak it.

    def _add(self, number: int) -> LinkedTransport:
        """At once: the next frame may say that it has gone, and the link may end before anybody looks at it."""
        if number <= self._newest:
            raise TrunkBroken("a session's number comes twice")
        self._newest = number
        session = LinkedTransport(self, number, outbox_bytes=self._outbox_bytes, rates=self._rates)
        self.sessions[number] = session
        return session

    # Writing

    def put(self, kind: Kind, number: int, payload: bytes = b"") -> None:
        self.out(codec.frame(kind, number, payload))

    def out(self, data: bytes) -> None:
        if not self._out:
            self._batch.woken.append(self)
            self._batch.schedule()
        self._out.append(data)

    def hear(self, stream: str, before: Position, after: Position, waiting: Sequence[bytes]) -> None:
        """These frames for all sessions that follow the stream; they bring it from ``before`` to ``after``."""
        positions = codec.position(before) + codec.position(after)
        size = len(positions) + sum(map(len, waiting))
        if size > codec.MOST_BYTES:
            self._hear_apart(stream, before, waiting)
            return
        self.out(codec.head(Kind.HEARD, self.number_of(stream), size))
        self._out.append(positions)
        self._out += waiting
        self.heard += len(waiting)

    def _hear_apart(self, stream: str, before: Position, waiting: Sequence[bytes]) -> None:
        """What is more than a frame holds, message by message. Each is one offset: a gap would be alone."""
        for number, data in enumerate(waiting):
            start = Position(before.epoch, before.offset + number)
            self.hear(stream, start, Position(start.epoch, start.offset + 1), [data])

    def note_done(self, session: LinkedTransport) -> None:
        if not self._out:
            self._batch.woken.append(self)
            self._batch.schedule()
            self._out.append(b"")
        self._done[session.number] = session

    def pulse(self, orders: str) -> None:
        """``orders``: how far this node has obeyed them."""
        self.put(Kind.PULSE, 0, orders.encode())

    def flush(self) -> None:
        """Writes what this turn has said."""
        done, self._done = self._done, {}
        self._out += [codec.frame(Kind.DONE, number, codec.count(one.answered)) for number, one in done.items()]
        out, self._out = self._out, []
        self.said = 0
        if self._transport is None or self._is_ending or self._transport.is_closing():
            return
        self._transport.write(b"".join(out))
        if self.unsent > UNSENT_BYTES:
            self.overflow()
        self._go_on()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the edge."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def overflow(self) -> None:
        """Too much waits for the edge: it goes on over another link."""
        log.warning("trunk.overflowed", worker=self.worker, sessions=len(self.sessions))
        self.abort()

    def abort(self, code: int | None = None) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Ends it when what was said has gone out, and the edge has ended it too: a socket that is closed while
        something is unread takes back what is under way (RFC 1122, 4.2.2.13)."""
        if self._transport is not None and not self._is_ending:
            self.flush()
            self._is_ending = True
            self._transport.resume_reading()  # or the edge's end is not seen
            self._transport.write_eof()

    # Sessions and streams

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, callback)

    def lost(self, peer: Peer, why: str) -> None:
        self._listener.on_session_lost(peer, why)

    def forget(self, session: LinkedTransport) -> None:
        if self.sessions.get(session.number) is session:
            del self.sessions[session.number]
            self.accepted -= session.is_accepted
        self._done.pop(session.number, None)

    def number_of(self, stream: str) -> int:
        return self._streams[stream][0]

    def hold(self, stream: str) -> None:
        """One session more has the stream."""
        entry = self._streams.get(stream)
        if entry is None:
            self._numbers += 1
            entry = self._streams[stream] = [self._numbers, 0]
        entry[1] += 1

    def release(self, stream: str) -> None:
        """One session less."""
        entry = self._streams[stream]
        entry[1] -= 1
        if not entry[1]:
            del self._streams[stream]
