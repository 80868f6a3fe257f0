"""The door for clients: Tornado's HTTP server reads a request, a WebSocketHandler answers the handshake, then the
connection owns its socket.

A handshake is all in its headers, so it is answered when they are there, without routing, body or whatever else a
RequestHandler goes through (decision 0040 has the profile). ``get_websocket_protocol`` is Tornado's seam for what comes
after: instead of its own protocol class it gets ``SocketHandover``, which writes the 101 answer and gives the socket to
a ``Wire``. From there on no object of the request is referred to. A refusal waits until the request has been read, as
any answer: whoever closes while its peer still sends resets the connection.

Order of checks: host, path, method, upgrade, origin, query; then, where many come, it waits for its turn; then token,
then what the gateway says (limits, groups, broker).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Awaitable, Callable
from http.client import responses
from typing import Any, cast

import msgspec
from tornado import httputil
from tornado.http1connection import HTTP1Connection
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tidegate import log
from tidegate.config.settings import NEXT_HEADER, PROBE_PATH, TRUNK_HEADER
from tidegate.core.errors import (
    AuthUnavailable,
    BadRequest,
    Busy,
    Draining,
    Full,
    InternalError,
    Refused,
    Unavailable,
)
from tidegate.core.pace import Rates
from tidegate.core.session import Session
from tidegate.gateway.gateway import Gateway
from tidegate.metrics import Metrics
from tidegate.process.listener import has_gone
from tidegate.tornado_seam import NoProtocol, Request, close_when_answered, take_over
from tidegate.turn import WriteBatch
from tidegate.websocket import handshake
from tidegate.websocket.admission import Admission
from tidegate.websocket.peer import Peer, PeerContext
from tidegate.websocket.standing import Standing
from tidegate.websocket.wire import Wire

MESSAGE_CHARACTERS = 300  # of a refusal in a header: nginx has 4 KiB for all of them

_NO_CONTENT = httputil.ResponseStartLine("HTTP/1.1", 204, "No Content")
_UNAVAILABLE = httputil.ResponseStartLine("HTTP/1.1", 503, "Service Unavailable")


class HandshakeContext(msgspec.Struct):
    """What every handshake needs; one per node. ``trunk``: where an edge finds this node's trunk, None where it has
    none; whether it asks over a Unix socket is the argument."""

    rules: handshake.Rules
    gateway: Gateway
    metrics: Metrics
    batch: WriteBatch
    peers: PeerContext
    standing: Standing
    admission: Admission
    message_bytes: int
    outbox_bytes: int
    rates: Rates
    numbers: itertools.count[int]
    trunk: Callable[[bool], str | None]


class PublicApplication(Application):
    """The public port. Every request there is a handshake or is refused, so there is nothing to route."""

    def __init__(self, context: HandshakeContext, **settings: Any) -> None:
        super().__init__(**settings)
        self.context = context

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return _HandshakeDelegate(self, request_conn)


class _HandshakeDelegate(httputil.HTTPMessageDelegate):
    """One request, as Tornado's HTTP server tells it."""

    def __init__(self, application: PublicApplication, connection: httputil.HTTPConnection) -> None:
        self._application = application
        self._connection = connection
        self._handler: HandshakeHandler | None = None
        self._asks_for_trunk = False

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        if cast(httputil.RequestStartLine, start_line).path == PROBE_PATH:
            self._asks_for_trunk = TRUNK_HEADER in headers
            return None
        self._handler = HandshakeHandler(self._application, Request(self._connection, start_line, headers))
        return self._handler.get()

    def data_received(self, chunk: bytes) -> None:
        """The body of what is refused."""

    def finish(self) -> None:
        if self._handler is not None:
            self._handler.refuse()
            return
        # A probe. An edge makes one before each handshake, so it is no more than it must be; and it tells a stranger
        # nothing that a handshake would not, so it asks for no host and no token.
        standing = self._application.context.standing
        if standing.doubtful:
            standing.probed(time.monotonic())
        if self._application.context.gateway.takes_handshakes:
            trunk = self._application.context.trunk(self._over_unix()) if self._asks_for_trunk else None
            answer = httputil.HTTPHeaders() if trunk is None else httputil.HTTPHeaders({TRUNK_HEADER: trunk})
            self._connection.write_headers(_NO_CONTENT, answer)
        else:
            self._connection.write_headers(_UNAVAILABLE, httputil.HTTPHeaders({"Content-Length": "0"}))
        self._connection.finish()

    def _over_unix(self) -> bool:
        return cast(HTTP1Connection, self._connection).stream.socket.family == socket.AF_UNIX

    def on_connection_close(self) -> None:
        self._handler = None


class HandshakeHandler(WebSocketHandler):
    """One handshake. ``refusal``: why it is none, to be told when the request has been read."""

    application: PublicApplication

    def initialize(self) -> None:
        self.refusal: Refused | None = None

    def clear(self) -> None:
        """Nothing: what headers an answer has, ``refuse`` says."""

    async def get(self, *args: str, **kwargs: str) -> None:
        """Either the socket has been handed over, or there is a ``refusal``. Never raises."""
        try:
            await self._shake_hands()
        except Refused as error:
            self.refusal = error
        except Exception as exc:
            log.error("handshake.failed", error=exc)
            self.refusal = InternalError("internal error")

    async def _shake_hands(self) -> None:
        context, headers = self.application.context, self.request.headers
        if context.standing.doubtful and NEXT_HEADER in headers and context.standing.passes_on():
            raise Unavailable("an edge may still pass this node over")
        request = cast(Request, self.request)
        query = context.rules.check_request(request)
        async with context.admission.turn(self._has_gone):
            self._check_still_there()  # it may have waited long, and is not to cost the application a question
            offer = await context.rules.authenticate(request, query, self._peer())
            async with context.admission.entry(self._has_gone):
                await self._let_in(offer)

    async def _let_in(self, offer: handshake.Offer) -> None:
        context, headers, (asked, grant, _) = self.application.context, self.request.headers, offer
        self._check_still_there()
        protocol = self.get_websocket_protocol()
        connection = f"{context.gateway.node}-{next(context.numbers)}"
        wire = protocol.wire
        # Queued first: whatever ends the session while it is admitted has its close frame behind it.
        wire.put(
            handshake.switching_protocols(
                headers["Sec-WebSocket-Key"], protocol.selected_subprotocol, grant.client, connection
            )
        )
        protocol.session = await context.gateway.admit(asked, grant, connection, wire)
        try:
            await protocol.accept_connection(self)
        except BaseException:
            context.gateway.remove(protocol.session, confirmed=False)
            raise

    def _check_still_there(self) -> None:
        """Raises BadRequest."""
        if self._has_gone():
            raise BadRequest("the peer has gone")

    def _has_gone(self) -> bool:
        stream = cast(HTTP1Connection, self.request.connection).stream
        return stream.closed() or has_gone(stream.socket)  # who is not read from may go without the stream's knowing

    def _peer(self) -> str | None:
        """The address of who is at the other end of the socket; None for a Unix socket's."""
        sock = cast(HTTP1Connection, self.request.connection).stream.socket
        if sock is None or sock.family == socket.AF_UNIX:
            return None
        with contextlib.suppress(OSError):  # it has gone
            return str(sock.getpeername()[0])
        return ""

    def get_websocket_protocol(self) -> SocketHandover:
        return SocketHandover(self, self.application.context)

    def refuse(self) -> None:
        """Answers with the contract's error object."""
        error = self.refusal
        assert error is not None
        context = self.application.context
        context.metrics.handshakes[error.code,] += 1
        context.gateway.trace.refused(error, *context.rules.stranger(cast(Request, self.request), self._peer()))
        log.debug("handshake.refused", code=error.code, error=error.message)
        headers = httputil.HTTPHeaders(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(error.body)),
                "Date": httputil.format_timestamp(time.time()),
            }
        )
        headers.update(error.headers)
        connection = cast(HTTP1Connection, self.request.connection)
        if isinstance(error, Full | Draining | Busy):
            close_when_answered(connection)  # a full node cannot afford to keep those that it refuses
            headers["Connection"] = "close"
        status = error.status
        is_nodes = status in (502, 503) and not isinstance(error, AuthUnavailable)  # and not the application's
        if is_nodes and NEXT_HEADER in self.request.headers:
            # Another node may take it. Of the answers by which nginx goes to another, this one counts as no failure
            # (proxy_next_upstream). Where no other is left, it goes to the location that says the refusal.
            status = 404
            headers["X-Accel-Redirect"] = "/.refused/502"
            said = {"code": error.code, "message": error.message[:MESSAGE_CHARACTERS]}
            headers["Tidegate-Refusal"] = json.dumps({"error": said}, separators=(",", ":"))  # as a header: ASCII
        line = httputil.ResponseStartLine("HTTP/1.1", status, responses[status])
        connection.write_headers(line, headers, b"" if self.request.method == "HEAD" else error.body)
        connection.finish()


class SocketHandover(NoProtocol):
    """Tornado's protocol object for one handshake: answers it and hands the socket over to ``wire``. Both settings of
    pings are the heartbeat's."""

    def __init__(self, handler: HandshakeHandler, context: HandshakeContext) -> None:
        super().__init__(handler)
        self._context = context
        self._connection = cast(HTTP1Connection, handler.request.connection)
        self.session: Session | None = None
        self.subprotocol = handshake.subprotocol(handler.request.headers)
        self.wire = Wire(
            self._connection.stream.socket,
            context.peers.loop,
            context.batch,
            message_bytes=context.message_bytes,
            outbox_bytes=context.outbox_bytes,
            rates=context.rates,
        )

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        """A session that ended while it was admitted hears why: its close frame waits behind the answer. Raises
        BadRequest if the peer has gone."""
        session, context = self.session, self._context
        assert session is not None
        if self._connection.stream.closed():
            raise BadRequest("the peer has gone")
        early = take_over(self._connection.detach())
        context.metrics.opened()
        log.info("connection.opened", conn=session.connection, client=session.client)
        peer = Peer(context.peers, session, self.wire)
        if not session.ended:
            context.gateway.welcome(session)  # it leaves together with the answer, in one write
        self.wire.start(peer, early)
        if session.ended and peer.wire is not None:
            peer.on_closing()

    @property
    def selected_subprotocol(self) -> str | None:
        return self.subprotocol
