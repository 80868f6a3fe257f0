"""Wires, and a node's heartbeat, on a loop that is turned by hand: every byte and every tick is the test's."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, cast

from tests.wires import CountingSocket, Frames, Heard, connected, frames_of
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.core.outbox import Outbox
from tidegate.core.pace import UNLIMITED, Rates
from tidegate.metrics import Metrics
from tidegate.trace import OFF
from tidegate.turn import Flushable, WriteBatch
from tidegate.websocket.heartbeat import Heartbeat
from tidegate.websocket.peer import Peer, PeerContext
from tidegate.websocket.wire import Wire, WireState


class HandTimer:
    def __init__(self, when_s: float, callback: Callable[[], None]) -> None:
        self.when_s = when_s
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """What a wire and the heartbeat ask of their loop. It turns, and time passes, only when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.readable: Callable[[], None] | None = None
        self.writable: Callable[[], None] | None = None
        self.soon: list[Callable[[], None]] = []
        self.timers: list[HandTimer] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readable = callback

    def remove_reader(self, fd: int) -> None:
        self.readable = None

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self.writable = callback

    def remove_writer(self, fd: int) -> None:
        self.writable = None

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def time(self) -> float:
        return self.now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> HandTimer:
        self.timers.append(HandTimer(when_s, callback))
        return self.timers[-1]

    def call_later(self, seconds: float, callback: Callable[..., None], *args: Any) -> HandTimer:
        return self.call_at(self.now_s + seconds, lambda: callback(*args))

    def turn(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()

    def run(self, seconds: float) -> None:
        """Every timer goes off when it is due."""
        end_s = self.now_s + seconds
        while due := [timer for timer in self.timers if timer.when_s <= end_s]:
            self.now_s = max(self.now_s, min(timer.when_s for timer in due))
            self._go_off()
        self.now_s = end_s

    def hold_up(self, seconds: float) -> None:
        """Nothing is done for so long; then each timer that became due goes off once, and late."""
        self.now_s += seconds
        self._go_off()

    def _go_off(self) -> None:
        due = [timer for timer in self.timers if timer.when_s <= self.now_s]
        self.timers = [timer for timer in self.timers if timer not in due]
        for timer in due:
            if not timer.cancelled:
                timer.callback()
        self.turn()


class HandWire:
    """A wire that reads what it is ``fed`` at once, piece by piece."""

    def __init__(
        self,
        *,
        message_bytes: int,
        binary: bool,
        rates: Rates = UNLIMITED,
        ends: Callable[[], tuple[CountingSocket, socket.socket]] = connected,
    ) -> None:
        self.loop = HandLoop()
        self.heard = Heard()
        self.ours, self._theirs = ends()
        loop = cast(Any, self.loop)
        self.wire = Wire(
            self.ours,
            loop,
            WriteBatch(loop.call_soon),
            message_bytes=message_bytes,
            outbox_bytes=2**20,
            binary=binary,
            rates=rates,
        )
        self.wire.start(self.heard)

    def feed(self, piece: bytes) -> None:
        """Less than 64 KiB, which a wire takes in one go; nothing more once it has closed."""
        if self.loop.readable is None:
            return
        self._theirs.sendall(piece)
        select.select([self.ours], [], [], 5)
        self.loop.readable()
        self.loop.turn()
        while self.loop.soon:  # what was more than a share
            self.loop.turn()

    def write(self, most: int | None = None) -> None:
        """The socket takes up to ``most`` bytes of what waits."""
        self.ours.most = most
        writable = self.loop.writable
        self.loop.turn()
        if writable is not None:
            writable()

    def said(self) -> Frames:
        """What came back in all. The connection is over then."""
        data = b""
        try:
            while part := self._theirs.recv(2**20):
                data += part
        except BlockingIOError:
            pass
        self._theirs.close()
        self.wire.abort()
        return frames_of(data)


class HandSocket(Outbox):
    """What a peer and the heartbeat see of a wire."""

    def __init__(self, loop: HandLoop) -> None:
        super().__init__(2**20)
        self.loop = loop
        self.seen = loop.now_s
        self.stalled_since = 0.0
        self.paused = False
        self.state = WireState.OPEN
        self.peer: Peer | None = None
        self.ended: tuple[float, int] | None = None  # (when, code)

    def wake(self) -> None:
        pass

    def close(self, code: int, reason: str = "") -> None:
        if self.state is WireState.OPEN:
            self.state = WireState.CLOSING
            self.ended = (self.loop.now_s, code)
            assert self.peer is not None
            self.peer.on_closing(code)

    def abort(self, code: int | None = None) -> None:
        self.state = WireState.CLOSED
        self.ended = self.ended or (self.loop.now_s, code or CloseCode.ABNORMAL)
        assert self.peer is not None
        self.peer.on_closed(self.ended[1], False)

    def pings(self) -> int:
        """How many have been queued since this was last asked."""
        found = [raw for raw in self.frames if raw[0] == frames.FIN | frames.PING]
        self.clear()
        return len(found)


class HandGateway:
    """Of the gateway, what a peer asks when time passes."""

    trace = OFF

    def ping_queued(self, session: Any, mark: bytes) -> None:
        pass

    def close(self, session: Any, code: CloseCode) -> None:
        session.wire.close(code)

    def unsubscribe_all(self, session: Any, code: int | None = None) -> None:
        pass

    def remove(self, session: Any, *, confirmed: bool) -> None:
        pass


class HandSession:
    client = connection = "hand"
    since_ms = 0

    class Rights:
        expires: float | None = None

    rights = Rights()

    def __init__(self, wire: HandSocket) -> None:
        self.wire = wire


class HandNode:
    """A heartbeat whose loop is turned by hand, and peers on it."""

    def __init__(self, *, interval_s: float = 30, timeout_s: float = 60, write_timeout_s: float = 15) -> None:
        self.loop = HandLoop()
        loop = cast(Any, self.loop)
        self.turn = WriteBatch(loop.call_soon)
        self.stalled: list[object] = []
        self.heartbeat = Heartbeat(
            loop,
            self.turn,
            interval_s=interval_s,
            timeout_s=timeout_s,
            write_timeout_s=write_timeout_s,
            on_stalled=self._on_stalled,
        )
        self.heartbeat.start()
        self._shared = PeerContext(
            gateway=cast(Any, HandGateway()),
            heartbeat=self.heartbeat,
            loop=loop,
            metrics=Metrics(),
            json_depth=64,
            not_understood_per_minute=10,
            expiring_s=60,
            leeway_s=0,
        )

    def _on_stalled(self, wire: Flushable) -> None:
        self.stalled.append(wire)
        self.turn.blocked.discard(wire)

    def join(self, count: int = 1) -> list[HandSocket]:
        sockets = [HandSocket(self.loop) for _ in range(count)]
        for sock in sockets:
            sock.peer = Peer(self._shared, cast(Any, HandSession(sock)), cast(Any, sock))
        return sockets
