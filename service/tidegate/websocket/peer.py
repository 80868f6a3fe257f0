"""Between one wire and the gateway: what a peer's frames mean, and what is due for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import Protocol

import msgspec

from tidegate import log
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.core.pace import What
from tidegate.core.protocol import NotUnderstood, Refresh, decode_command, encode_expiring
from tidegate.core.session import Rights, Session, Transport
from tidegate.gateway.gateway import Gateway
from tidegate.metrics import Metrics
from tidegate.turn import Floods
from tidegate.websocket.heartbeat import Heartbeat
from tidegate.websocket.wire import OPEN, WireState

FLOOD_PAUSES = 50  # within a window of ``Floods``: for half of it nothing was read
CLOSE_S = 5.0  # how long we wait for the answer to our close frame

_WARNED = -math.inf  # ``_warn_s`` of a token whose end has been announced

_PONGS = {b"ping": frames.text(b"pong"), b"Ping": frames.text(b"Pong")}
_SIGNS_OF_LIFE = (b"pong", b"Pong")


class PeerTransport(Transport, Protocol):
    """What a peer sees of its client's socket. ``seen``: when something last came of it (monotonic seconds)."""

    seen: float
    paused: int
    state: WireState

    def abort(self, code: int | None = None) -> None: ...


class PeerContext(msgspec.Struct):
    """What all peers of a node have in common. A connection ends ``leeway_s`` after its token, as a handshake would be
    refused; its client hears of the end ``expiring_s`` before it. ``floods``: who sends too much again and again."""

    gateway: Gateway
    heartbeat: Heartbeat
    loop: asyncio.AbstractEventLoop
    metrics: Metrics
    json_depth: int
    not_understood_per_minute: int
    expiring_s: float
    leeway_s: float
    floods: Floods = msgspec.field(default_factory=lambda: Floods(FLOOD_PAUSES))


class Peer:
    """``tick`` is the heartbeat's. ``wire`` is None when the connection has ended."""

    __slots__ = (
        "_context",
        "_end_by_s",
        "_next_ping_s",
        "_not_understood",
        "_refreshing",
        "_rights",
        "_warn_s",
        "session",
        "tick",
        "wire",
    )

    def __init__(self, context: PeerContext, session: Session, wire: PeerTransport) -> None:
        self._context = context
        self.session = session
        self.wire: PeerTransport | None = wire
        self.tick = 0
        self._rights = session.rights  # as they were looked at last
        self._warn_s = context.expiring_s  # before its token's end that it hears of it
        self._refreshing = False  # a new token may be on its way
        self._not_understood: deque[float] | None = None  # when, within the last minute
        self._end_by_s = 0.0  # once a close frame of ours is under way: how long its answer has
        now_s = wire.seen
        self._next_ping_s = context.heartbeat.first_ping_s(now_s)
        self._schedule(now_s)

    # The wire says

    def on_text(self, payload: bytes) -> None:
        if len(payload) == 4:
            pong = _PONGS.get(payload)
            if pong is not None:
                self.session.wire.put(pong)
                self.session.wire.done()
                return
            if payload in _SIGNS_OF_LIFE:
                self.session.wire.done()
                return
        try:
            command = decode_command(payload, depth=self._context.json_depth)
        except NotUnderstood as exc:
            self._context.gateway.refuse(self.session, self._counted(exc))
            return
        self._context.gateway.submit(self.session, command)
        if type(command) is Refresh:  # the new token may end before the next ping: look again with the next tick
            self._refreshing = True
            self._context.heartbeat.schedule(self, self._context.loop.time())

    def on_binary(self, payload: bytes) -> None:
        raise AssertionError("the wire refuses binary messages")

    def on_pong(self, payload: bytes) -> None:
        age_s = self._context.heartbeat.age_s(payload, time.monotonic())
        if age_s is not None:
            self._context.metrics.ping_seconds.observe(age_s)
            self._context.gateway.pong(self.session, payload)

    def on_share_used(self) -> None:
        self._context.gateway.share_used(self.session, "frames")

    def on_paced(self, what: What) -> None:
        self._context.metrics.paced[what,] += 1
        if self._context.floods.used(self.session.connection, self._context.loop.time()):
            log.warning(
                "connection.flooding",
                conn=self.session.connection,
                client=self.session.client,
                what=f"{what} per second",
            )

    def on_slow(self) -> None:
        if not self._context.gateway.slow(self.session):
            self._close(CloseCode.SLOW_CONSUMER)

    def on_closing(self, code: int | None = None) -> None:
        self._context.gateway.unsubscribe_all(self.session, code)  # nothing of any stream may follow a close frame
        self._end_by_s = self._context.loop.time() + CLOSE_S
        self._context.heartbeat.schedule(self, self._end_by_s)

    def on_closed(self, code: int, answered: bool) -> None:
        session = self.session
        self.wire = None
        self._context.heartbeat.forget(self)
        self._context.gateway.remove(session, confirmed=answered)
        self._context.gateway.trace.closed(session, code, answered=answered)
        self._context.metrics.closed(code)
        log.info(
            "connection.closed",
            conn=session.connection,
            client=session.client,
            close_code=int(code),
            duration_ms=int(time.time() * 1000) - session.since_ms,
        )

    def on_lost(self) -> None:
        """Its client is on its way to another node, or back to this one."""
        self.wire = None
        self._context.heartbeat.forget(self)

    # The heartbeat says

    def on_due(self, now_s: float) -> None:
        wire, heartbeat = self.wire, self._context.heartbeat
        if wire is None:
            return
        if wire.state is not OPEN:
            if now_s >= self._end_by_s:
                wire.abort()  # no answer to our close frame
            else:
                heartbeat.schedule(self, self._end_by_s)
            return
        if now_s >= self._silent_at_s(wire) and not wire.paused:
            self._close(CloseCode.NO_SIGN_OF_LIFE)
            return
        if now_s >= self._next_ping_s:
            # One, however late; by whole intervals, or all would be in step after the process was held up.
            late = (now_s - self._next_ping_s) // heartbeat.interval_s
            self._next_ping_s += heartbeat.interval_s * (late + 1)
            self._context.gateway.ping_queued(self.session, heartbeat.mark)
            wire.put(heartbeat.ping_frame)
        rights = self.session.rights
        if self._refreshing or rights is not self._rights:
            self._notice_refresh(rights)
        if rights.expires is not None:
            left_s = rights.expires - time.time()
            if left_s + self._context.leeway_s <= 0:
                self._close(CloseCode.TOKEN_EXPIRED)
                return
            if left_s <= self._warn_s:
                self._warn_s = _WARNED
                self.session.send(encode_expiring(max(0, math.ceil(left_s))))
        self._schedule(now_s)

    def _silent_at_s(self, wire: PeerTransport) -> float:
        """When it will have given no sign of life for too long."""
        heartbeat = self._context.heartbeat
        return max(wire.seen, heartbeat.resumed_s) + heartbeat.timeout_s

    def _notice_refresh(self, rights: Rights) -> None:
        """Another end is announced anew, but not before half of the time until then is over: a client that answers each
        announcement with a refresh would else do so in each tick, where its tokens are shorter than ``expiring_s``."""
        if rights is not self._rights:
            if rights.expires is not None and rights.expires != self._rights.expires:
                self._warn_s = min(self._context.expiring_s, (rights.expires - time.time()) / 2)
            self._rights = rights
            self._refreshing = False
        elif self._context.gateway.waiting(self.session) is None:
            self._refreshing = False  # it was refused

    def _schedule(self, now_s: float) -> None:
        assert self.wire is not None
        due_s = min(self._next_ping_s, self._silent_at_s(self.wire))
        rights = self._rights
        if self._refreshing:
            due_s = now_s  # the next tick
        elif rights.expires is not None:
            left_s = rights.expires - time.time()
            due_s = min(due_s, now_s + left_s + (self._context.leeway_s if self._warn_s == _WARNED else -self._warn_s))
        self._context.heartbeat.schedule(self, due_s)

    def _close(self, code: CloseCode) -> None:
        self._context.gateway.close(self.session, code)

    def _counted(self, text: NotUnderstood) -> NotUnderstood:
        """Ten in a minute end the connection, when the last of them is answered."""
        now_s = time.monotonic()
        if self._not_understood is None:
            self._not_understood = deque(maxlen=self._context.not_understood_per_minute)
        times = self._not_understood
        times.append(now_s)
        text.one_too_many = len(times) == times.maxlen and now_s - times[0] < 60
        return text
