"""A WebSocket on a socket after Tornado's handshake: read, parse, write. The hot path.

Theory of operation. A ``Wire`` owns a non-blocking socket and is woken by the loop when it can be read.

Reading. All wires read into one shared buffer. Whole, unfragmented frames are taken straight from it; anything else
goes to a ``Reader`` (reader.py), which lives only while something is pending: an idle connection has no buffer of its
own. A turn of the loop takes a share of what one peer sent (turn.py); what is left over stays in the reader, and
nothing more is read until it had its turn. So whatever came before an end of file is handled before it. Frames, of
whatever kind, and bytes are counted by a ``Pace``; while there were too many nothing is read.

Writing. ``put`` wakes the wire, the ``WriteBatch`` writes each woken wire once when the loop's turn ends, and what the
socket does not take waits for it to become writable. A message to many is written by ``fan_out``, past all that,
wherever nothing waits. Too much waiting is the peer's ``on_slow``; no progress at all is for the heartbeat to see
(``stalled_since``).

Closing.   OPEN ---- close(): we start ----> CLOSING, our close frame follows what waits; only the answer is parsed
           OPEN ---- a close frame comes --> ANSWERING, ours goes out, then the socket is closed
           OPEN ---- the peer breaks the protocol --> DEAF, our close frame and the end of file go out, what comes is
                     thrown away until the peer's end of file (a socket closed with unread bytes is reset, and the
                     peer would never see our close frame)
           CLOSING - a close frame comes, ours still waits --> ANSWERING
           any ----- end of file, error, answer, abort() --> CLOSED, and the peer hears ``on_closed`` once
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from enum import IntEnum
from time import monotonic
from typing import Protocol

from tidegate import log
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.core.outbox import Outbox
from tidegate.core.pace import UNLIMITED, Pace, Rates, What
from tidegate.tornado_seam import mask
from tidegate.turn import SHARE_FRAMES, WriteBatch
from tidegate.websocket.fan_out import WRITE_BYTES
from tidegate.websocket.reader import FrameError, Reader, check_text, parse_close

HEAD_BYTES = 512  # of a message, with the longest stream, up to its offset

_SCRATCH = bytearray(65536)
_VIEW = memoryview(_SCRATCH)

# Why nothing is read. Bits of ``Wire.paused``.
HELD = 1  # the gateway said so
KEPT = 2  # what was read waits for its turn
FULL = 4  # the peer takes too little of what it was answered
PACED = 8  # the peer sent too much in a short time

_TEXT = frames.FIN | frames.TEXT
_PING = frames.FIN | frames.PING
_PONG = frames.FIN | frames.PONG


class TransportListener(Protocol):
    """What a wire reports to. All are called on the loop, none may raise."""

    def on_text(self, payload: bytes) -> None: ...

    def on_binary(self, payload: bytes) -> None: ...

    def on_pong(self, payload: bytes) -> None: ...

    def on_share_used(self) -> None:
        """It has sent more than its share of a turn."""

    def on_paced(self, what: What) -> None:
        """It has sent too much in a short time, and is not read for a while."""

    def on_slow(self) -> None:
        """More waits to be written than the outbox's limit."""

    def on_closing(self, code: int | None) -> None:
        """A close frame of ours is under way, with ``code``; None: it is the answer. The wait for the end needs one."""

    def on_closed(self, code: int, answered: bool) -> None:
        """It is over. ``code``: ours where we closed, else the peer's, 1006 where there was none. ``answered``: the
        peer confirmed our close frame, so everything before it arrived."""


class WireState(IntEnum):
    OPEN = 0
    CLOSING = 1
    ANSWERING = 2
    DEAF = 3
    CLOSED = 4


OPEN, CLOSING, ANSWERING, DEAF, CLOSED = WireState  # an attribute of an enum costs five times a name (Python 3.11)


class Wire(Outbox):
    """One WebSocket. ``seen`` is when something last arrived, ``stalled_since`` when a write that still waits last made
    progress, 0.0 if none waits (both monotonic seconds). While ``paused`` (why: HELD, KEPT, FULL, PACED) nothing is
    read: silence says nothing."""

    __slots__ = (
        "_awake",
        "_batch",
        "_binary",
        "_code",
        "_cut",
        "_fd",
        "_limit",
        "_loop",
        "_pace",
        "_reader",
        "paused",
        "peer",
        "seen",
        "sock",
        "stalled_since",
        "state",
    )

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        batch: WriteBatch,
        *,
        message_bytes: int,
        outbox_bytes: int,
        binary: bool = False,
        rates: Rates = UNLIMITED,
    ) -> None:
        super().__init__(outbox_bytes)
        self.sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._batch = batch
        self._limit = message_bytes
        self._binary = binary
        self._reader: Reader | None = None
        self._pace = Pace(rates)
        self._awake = False
        self._cut = b""  # the beginning of the outbox's first frame, where that has been sent in part
        self._code: int = CloseCode.ABNORMAL
        self.paused = 0
        self.peer: TransportListener | None = None
        self.state = OPEN
        self.seen = monotonic()
        self.stalled_since = 0.0

    def start(self, peer: TransportListener, early: bytes = b"") -> None:
        """Begins to read; ``early`` are bytes that arrived together with the handshake."""
        self.peer = peer
        with contextlib.suppress(OSError):  # a Unix socket never waits to send
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._loop.add_reader(self._fd, self._on_readable)
        if self.frames:
            self.wake()
        if early:
            self._receive(early)

    # Reading

    def _on_readable(self) -> None:
        if self.stalled_since and self._is_full():
            return
        try:
            count = self.sock.recv_into(_SCRATCH)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._lost()
            return
        if not count:
            self._lost()
            return
        self.seen = monotonic()
        self._receive(bytes(_VIEW[:count]))

    def _receive(self, data: bytes) -> None:
        if self.state >= ANSWERING:
            return
        pace = self._pace
        pace.bytes -= len(data)
        try:
            if self._reader is None:
                data = self._take_whole_frames(data)
            if data:
                self._reader = self._reader or Reader(self._limit, binary=self._binary)
                self._reader.receive(data)
            if self._reader is not None:
                self._take_pieces(self._reader)
            if pace.messages < 0 or pace.bytes < 0:
                self._slow_down(pace)
        except FrameError as exc:
            self._fail(exc.code, exc.reason)
        except Exception as exc:  # a fault of ours, and the rest of ``data`` is lost
            log.error("connection.failed", error=exc)
            self._fail(CloseCode.INTERNAL_ERROR)

    def _take_whole_frames(self, data: bytes) -> bytes:
        """Handles what needs no care, the common case, up to a share; gives back the rest. Lengths of 126 and more,
        which say so in bytes 2-3, are taken too (shorter ones in that form are left to the reader); those of 64 KiB and
        more never are whole in one read."""
        at, end, share = 0, len(data), SHARE_FRAMES
        peer = self.peer
        assert peer is not None
        while end - at >= 6 and not self.paused:
            first, length = data[at], data[at + 1] - frames.MASKED
            start = at + 6
            if length == 126 and end - at >= 8:
                length = data[at + 2] << 8 | data[at + 3]
                start = at + 8
                if length < 126:
                    break
            elif length < 0 or length > 125:
                break
            stop = start + length
            if stop > end or length > self._limit:
                break
            if first == _TEXT:
                payload = mask(data[start - 4 : start], data[start:stop])
                if not payload.isascii():
                    check_text(payload)
                if self.state is OPEN:
                    peer.on_text(payload)
            elif first == _PONG and length < 126:
                peer.on_pong(mask(data[start - 4 : start], data[start:stop]))
            elif first == _PING and length < 126:
                self._pong(mask(data[start - 4 : start], data[start:stop]))
            else:
                break
            at = stop
            share -= 1
            if at == end or not share or self.state >= ANSWERING:
                break
        self._pace.messages -= SHARE_FRAMES - share
        return b"" if self.state >= ANSWERING else data[at:]

    def _take_pieces(self, reader: Reader) -> None:
        """What the reader makes of it, up to a share; it is dropped when nothing is pending any more."""
        peer = self.peer
        assert peer is not None
        share = SHARE_FRAMES
        while not self.paused and self.state < ANSWERING:
            if not share:
                if not reader.idle:
                    peer.on_share_used()
                    self._keep()
                break
            message = reader.next()
            if message is None:
                break
            share -= 1
            opcode, payload = message
            if opcode == frames.CLOSE:
                self._on_close(parse_close(payload))
            elif opcode == frames.PING:
                self._pong(payload)
            elif opcode == frames.PONG:
                peer.on_pong(payload)
            elif self.state is OPEN and opcode != frames.CONTINUATION:
                if opcode == frames.TEXT:
                    peer.on_text(payload)
                else:
                    peer.on_binary(payload)
        self._pace.messages -= SHARE_FRAMES - share
        if reader.idle:
            self._reader = None

    def _slow_down(self, pace: Pace) -> None:
        """What the peer had saved up is used up: nothing is read until it has earned what it sent."""
        wait_s = pace.wait_s(monotonic())
        if wait_s and self.state is OPEN and self.peer is not None and not self.paused & PACED:
            self._pause(PACED)
            self._loop.call_later(wait_s, self._resume, PACED)
            self.peer.on_paced(pace.what)

    def _pong(self, payload: bytes) -> None:
        if self.state is OPEN:
            self.put(frames.pong(payload))

    def _on_close(self, code: int) -> None:
        if self.state is CLOSING and self.frames:
            self.state = ANSWERING  # they crossed, and ours is still here: now it is the answer
            self.flush()
            return
        if self.state is CLOSING:
            # Crossing close frames look like an answer; an answer repeats our code (section 5.5.1).
            self._lost(answered=code == self._code)
            return
        self._code = code
        self._enter(ANSWERING)
        self.put(frames.close(CloseCode.DONE if code == CloseCode.NO_STATUS else code))
        self.flush()

    def _fail(self, code: CloseCode, reason: str = "") -> None:
        """The peer broke the protocol, or we failed: say so, then hear nothing more."""
        self._reader = None
        if self.state is OPEN:
            self._code = code
            self.put(frames.close(code, reason or code.reason))
        self._enter(DEAF, code)
        self.flush()

    # Not reading for a while

    def pause_reading(self) -> None:
        self._pause(HELD)

    def resume_reading(self) -> None:
        self._resume(HELD)

    def _pause(self, why: int) -> None:
        if self.state is OPEN:  # else what comes is the end, and is waited for
            if not self.paused:
                self._loop.remove_reader(self._fd)
            self.paused |= why

    def _resume(self, why: int) -> None:
        """Reads on if there is no other reason not to. What had been read before comes first, and in its turn."""
        if not self.paused & why:
            return
        self.paused &= ~why
        if self.paused or self.state is CLOSED:
            return
        self.seen = monotonic()
        if self._reader is not None:
            self._keep()
        else:
            self._loop.add_reader(self._fd, self._on_readable)

    def _is_full(self) -> bool:
        """A peer that sends without reading is answered until half its outbox is full. Then it is not read until
        that is nearly gone."""
        if not self.stalled_since or self.size <= self.limit >> 1 or self.state is not OPEN:
            return False
        self._pause(FULL)
        return True

    def _keep(self) -> None:
        """What the reader has waits for its turn."""
        self._loop.remove_reader(self._fd)
        self.paused |= KEPT
        self._batch.shares.wait(self._go_on)

    def _go_on(self) -> None:
        if self.state is CLOSED:
            return
        self.paused &= ~KEPT
        if self.paused or self._is_full():
            return  # what is there comes after all when it is read again
        if self._reader is not None:
            self._receive(b"")
        if not self.paused and self.state is not CLOSED:
            self._loop.add_reader(self._fd, self._on_readable)

    # Writing

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            batch = self._batch
            if not batch.woken:
                batch.schedule()
            batch.woken.append(self)

    def put_rest(self, waiting: Sequence[bytes], sent: int) -> None:
        """Queues these frames, of which the first ``sent`` bytes have gone."""
        for frame in waiting:
            self.put(frame)
        if sent:
            self._forget(sent)

    def flush(self) -> None:
        """Writes what the socket takes. Before ``start`` the socket is Tornado's, and everything waits."""
        self._awake = False
        if self.peer is None:
            return
        waiting = self.frames
        while waiting and not self.stalled_since:
            if len(waiting) == 1:  # by far the most common: nothing below costs more than it must
                data = waiting[0]
            elif self.size <= WRITE_BYTES:
                data = b"".join(waiting)
            else:
                data = b"".join(_first(waiting, WRITE_BYTES))
            try:
                sent = self.sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self._lost()
                return
            if sent == self.size:
                waiting.clear()
                self.size = 0
                self._cut = b""
            else:
                self._forget(sent)
                if sent < len(data):
                    self.stalled_since = monotonic()
                    self._batch.blocked.add(self)
                    self._loop.add_writer(self._fd, self._on_writable)
        if self.on_room is not None and self.has_room:
            self.tell_room()
        if self.paused & FULL and self.has_room:
            self._resume(FULL)
        if self.state is not OPEN:
            if not waiting and self.state >= ANSWERING:
                self._said_all()
        elif waiting and self.overflowing:
            self.peer.on_slow()

    def _forget(self, sent: int) -> None:
        """The first ``sent`` bytes are gone; keeps the frames' boundaries."""
        waiting = self.frames
        self.size -= sent
        whole = 0
        while whole < len(waiting) and sent >= len(waiting[whole]):
            sent -= len(waiting[whole])
            whole += 1
        if whole:
            del waiting[:whole]
            self._cut = b""
        if sent:
            self._cut = self._cut or waiting[0][:HEAD_BYTES]
            waiting[0] = waiting[0][sent:]

    @property
    def waiting(self) -> Sequence[bytes]:
        return [self._cut, *self.frames[1:]] if self._cut and self.frames else self.frames

    def _on_writable(self) -> None:
        self._unblock()
        self.flush()

    def _unblock(self) -> None:
        if self.stalled_since:
            self.stalled_since = 0.0
            self._batch.blocked.discard(self)
            self._loop.remove_writer(self._fd)

    # Closing

    def close(self, code: int, reason: str = "") -> None:
        """Sends what waits, then a close frame, then waits for the answer (the heartbeat ends the wait).
        A slow consumer gets the close frame next: what waited is forgotten, but for a frame already cut."""
        if self.state is not OPEN:
            return
        self._enter(CLOSING, code)
        self._code = code
        if code == CloseCode.SLOW_CONSUMER:
            kept = self.frames[:1] if self._cut else []
            self.clear()
            self.frames += kept
            self.size = sum(map(len, kept))
        self.put(frames.close(code, reason))
        self._resume(HELD | FULL | PACED)

    def _enter(self, state: WireState, code: int | None = None) -> None:
        self.state = state
        if self.peer is not None:
            self.peer.on_closing(code)

    def _said_all(self) -> None:
        """Our close frame is out. A deaf wire lets the peer go first, but doesn't keep it waiting for our end."""
        if self.state is ANSWERING:
            self._lost()
        elif self.state is DEAF:
            with contextlib.suppress(OSError):  # the peer has gone, or this was done before
                self.sock.shutdown(socket.SHUT_WR)

    def abort(self, code: int | None = None) -> None:
        """Ends it without a word; ``code`` goes to the log and the metrics."""
        if code is not None:
            self._code = code
        self._lost()

    def _lost(self, *, answered: bool = False) -> None:
        if self.state is CLOSED:
            return
        self.state = CLOSED
        self._unblock()
        self._loop.remove_reader(self._fd)
        self._reader = None
        self.sock.close()
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.on_closed(self._code, answered)
        self.clear()


def _first(waiting: list[bytes], size: int) -> list[bytes]:
    """The first frames that make up about ``size`` bytes, one at least."""
    for count, frame in enumerate(waiting, 1):
        size -= len(frame)
        if size <= 0:
            return waiting[:count]
    return waiting
