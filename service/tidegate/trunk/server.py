"""The listener of trunks: who may open one, what is said to all, and a client's handshake on one.

A trunk speaks for any client, so it is never on the public port, which whoever reaches an edge reaches. Over TCP its
edge proves that it knows ``trunk.key``: an HMAC of what this node made up for this link. The key itself is never sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, cast

from tornado.httputil import HTTPConnection, HTTPInputError, parse_request_start_line

from tidegate import log
from tidegate.auth.callback import Login
from tidegate.brokers.contract import Broker
from tidegate.core.errors import BadRequest, CloseCode, InternalError, NotAllowed, Refused, Unauthorized
from tidegate.core.model import Cursor
from tidegate.gateway.moves import CannotResume, Moves, Resumption
from tidegate.process.listener import Listener
from tidegate.tasks import Tasks
from tidegate.tornado_seam import Request, parse
from tidegate.trunk import codec
from tidegate.trunk.link import Link
from tidegate.trunk.transport import LinkedTransport
from tidegate.websocket import handshake
from tidegate.websocket.application import HandshakeContext
from tidegate.websocket.peer import Peer

VERSIONS = (1, 1)  # lowest and highest that we speak; a release speaks its predecessor's too
PULSE_S = 1.0
SILENT_S = 5.0  # nothing from the other side for so long: it is gone, or hangs
ENDING_S = 1.0  # in which an edge takes a node's last words
LATE_S = 1.0  # a beat that comes later than this says that we were held up, and judges nobody


class TrunkServer:
    """All trunks of this node. ``key`` is what a worker must know that comes over TCP; who may come to a Unix socket,
    its mode says."""

    _context: HandshakeContext

    def __init__(self, moves: Moves, broker: Broker, tasks: Tasks, node: str, key: str | None) -> None:
        self._moves = moves
        self._broker = broker
        self._tasks = tasks
        self._node = node
        self._key = key
        self._links: dict[Link, tuple[str | None, str]] = {}  # the key, and what the worker was asked to prove with it
        self._heard = 0  # of links that have ended
        self._timer: asyncio.TimerHandle | None = None
        self._beat_s = 0.0
        self._sockets: list[socket.socket] = []
        self._ends: list[Callable[[], None]] = []

    def start(self, context: HandshakeContext, listener: Listener, sockets: list[socket.socket]) -> None:
        self._context = context
        self._sockets = sockets
        for sock in sockets:
            wanted = None if sock.family == socket.AF_UNIX else self._key
            self._ends.append(listener.add(sock, partial(self._on_connection, wanted)))
        self._beat_s = asyncio.get_running_loop().time()
        self._beat()

    def stop_listening(self) -> None:
        while self._ends:
            self._ends.pop()()

    async def stop(self) -> None:
        """Ends all links, when what was said has gone out: the last words of a node are where its clients go on."""
        self.stop_listening()
        if self._timer is not None:
            self._timer.cancel()
        for link in list(self._links):
            link.close()
        deadline_s = monotonic() + ENDING_S
        while self._links and monotonic() < deadline_s:  # noqa: ASYNC110 - once in its life
            await asyncio.sleep(0.01)
        for link in list(self._links):
            link.abort()
        for sock in self._sockets:
            sock.close()

    def _on_connection(self, key: str | None, sock: socket.socket, address: Any) -> None:
        self._tasks.spawn(self._accept(key, sock), "trunk")

    async def _accept(self, key: str | None, sock: socket.socket) -> None:
        nonce = secrets.token_hex(16)
        lowest, highest = VERSIONS
        hello = codec.fields(lowest=lowest, highest=highest, node=self._node, nonce=nonce)
        link = Link(self, self._context.batch, hello, self._context.outbox_bytes, self._context.rates)
        self._links[link] = key, nonce
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)

    # For metrics and for the application

    @property
    def links(self) -> int:
        """Open sockets; of strangers too."""
        return len(self._links)

    def all_links(self) -> list[Link]:
        return list(self._links)

    @property
    def sessions(self) -> int:
        """Connections; who waits to be let in is none yet."""
        return sum(link.accepted for link in self._links)

    @property
    def heard(self) -> int:
        """Messages that crossed a link once for all who follow."""
        return self._heard + sum(link.heard for link in self._links)

    @property
    def workers(self) -> list[str]:
        """Who is linked to this node."""
        return sorted(link.worker for link in self._links if link.worker)

    # Links

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        held_up = now_s - self._beat_s > PULSE_S + LATE_S
        self._beat_s = now_s
        for link in list(self._links):
            if held_up:
                link.seen = now_s  # what it has sent meanwhile has not been read yet
            elif now_s - link.seen > SILENT_S:
                log.warning("trunk.silent", worker=link.worker, sessions=len(link.sessions))
                link.abort()
            elif link.worker:
                self.on_up(link)
        self._timer = loop.call_later(PULSE_S, self._beat)

    def on_hello(self, link: Link, fields: dict[str, str]) -> bool:
        worker = fields.get("worker", "")
        try:
            theirs = int(fields["lowest"]), int(fields["highest"])
        except (KeyError, ValueError):
            return self._refuse(worker, "it does not say which versions it speaks")
        if not worker:
            return self._refuse(worker, "it does not say who it is")
        if codec.common_version(VERSIONS, theirs) is None:
            return self._refuse(worker, f"it speaks versions {theirs[0]} to {theirs[1]}")
        key, nonce = self._links[link]
        if key is not None and not _same(fields.get("proof", ""), proof(key, nonce, worker)):
            return self._refuse(worker, "it does not know trunk.key")
        log.info("trunk.opened", worker=worker)
        return True

    def _refuse(self, worker: str, error: str) -> bool:
        log.warning("trunk.refused", worker=worker[:100], error=error)
        return False

    def on_up(self, link: Link) -> None:
        link.pulse(self._broker.orders_heard)

    def on_session_lost(self, peer: Peer, why: str) -> None:
        peer.on_lost()
        self._context.metrics.moved_out(why)
        log.debug("connection.lost", conn=peer.session.connection, client=peer.session.client, why=why)
        self._moves.lose(peer.session)

    def on_lost(self, link: Link) -> None:
        del self._links[link]
        self._heard += link.heard
        if link.worker:
            log.info("trunk.closed", worker=link.worker)

    # Handshakes

    def on_open(self, session: LinkedTransport, head: bytes) -> None:
        self._tasks.spawn(self._open(session, head), "handshake")

    async def _open(self, transport: LinkedTransport, head: bytes) -> None:
        if transport.gone:
            return
        try:
            await self._shake_hands(transport, head)
        except Refused as error:
            self._answer_refusal(transport, error, head)
        except Exception as exc:
            log.error("handshake.failed", error=exc)
            self._answer_refusal(transport, InternalError("internal error"), head)

    async def _shake_hands(self, transport: LinkedTransport, head: bytes) -> None:
        context = self._context
        request = read_request(head)
        query = context.rules.check_request(request)
        async with context.admission.turn(lambda: transport.gone):
            _check_still_there(transport)
            offer = await context.rules.authenticate(request, query, None)
            async with context.admission.entry(lambda: transport.gone):
                _check_still_there(transport)
                await self._let_in(transport, request, offer)

    async def _let_in(self, transport: LinkedTransport, request: Request, offer: handshake.Offer) -> None:
        context = self._context
        connection = f"{self._node}-{next(context.numbers)}"
        session = await context.gateway.admit(offer.asked, offer.grant, connection, transport)
        if transport.gone:
            context.gateway.remove(session, confirmed=False)
            return
        context.metrics.opened()
        log.info("connection.opened", conn=connection, client=session.client)
        answer = handshake.switching_protocols(
            request.headers["Sec-WebSocket-Key"], offer.protocol, session.client, connection
        )
        peer = Peer(context.peers, session, transport)
        transport.accept(answer, peer)
        _keep(offer, transport)
        if session.ended:
            peer.on_closing()
            return
        context.gateway.welcome(session)
        transport.welcomed()

    # Moves

    def on_resume(self, session: LinkedTransport, payload: bytes) -> None:
        self._tasks.spawn(self._resume(session, payload), "resume")

    async def _resume(self, transport: LinkedTransport, payload: bytes) -> None:
        if transport.gone:
            return
        try:
            await self._take_up(transport, payload)
        except CannotResume as exc:
            log.info("connection.not_resumed", close_code=int(exc.code))
            transport.deny(exc.code, exc.code.reason)
        except Refused as error:
            transport.refuse(handshake.refusal(error))
        except Exception as exc:
            log.error("resume.failed", error=exc)
            transport.deny(CloseCode.RESTART, CloseCode.RESTART.reason)

    async def _take_up(self, transport: LinkedTransport, payload: bytes) -> None:
        context = self._context
        known, cursor, head = read_resume(payload)
        request = read_request(head)
        try:
            offer = await context.rules.check_again(request, known.get("token"))
        except (Unauthorized, NotAllowed):
            raise CannotResume(CloseCode.TOKEN_EXPIRED) from None
        except Refused:
            raise CannotResume(CloseCode.RESTART) from None  # what it asked for is not allowed any more
        client = offer.asked.client
        asked = Resumption(
            client=client,
            connection=known["connection"],
            term=int(known["term"]),
            cursor=cursor,
            device=offer.asked.device if offer.asked.last else None,
            orders=known["orders"],
        )
        before = context.gateway.session(client, asked.connection)
        if before is not None and isinstance(before.wire, LinkedTransport):
            before.wire.lose("resumed")  # its link is lost, and this node has not heard of it yet
        context.admission.moved()
        resumed = await self._moves.resume(asked, offer.grant, transport)
        if transport.gone:
            self._moves.lose(resumed.session)
            return
        context.metrics.moved_in()
        log.debug("connection.resumed", conn=asked.connection, client=client, term=asked.term)
        peer = Peer(context.peers, resumed.session, transport)
        transport.accept(b"", peer)
        _keep(offer, transport)
        if resumed.session.ended:
            peer.on_closing()
            return
        self._moves.go_on(resumed)
        transport.welcomed()

    def _answer_refusal(self, transport: LinkedTransport, error: Refused, head: bytes) -> None:
        context = self._context
        context.metrics.handshakes[error.code,] += 1
        who: tuple[str | None, str | None] = None, None
        with contextlib.suppress(BadRequest):
            who = context.rules.stranger(read_request(head), None)
        context.gateway.trace.refused(error, *who)
        log.debug("handshake.refused", code=error.code, error=error.message)
        transport.refuse(handshake.refusal(error))


def _check_still_there(transport: LinkedTransport) -> None:
    """Raises BadRequest."""
    if transport.gone:
        raise BadRequest("the peer has gone")


def _keep(offer: handshake.Offer, transport: LinkedTransport) -> None:
    """Its edge gets what the next node may go by, where the request alone does not say it."""
    if isinstance(offer.grant, Login):
        transport.keep_token(offer.grant.ticket)


def read_request(head: bytes) -> Request:
    """A request as its head says. Raises BadRequest."""
    try:
        line, headers = parse(head)
        return Request(cast(HTTPConnection, None), parse_request_start_line(line), headers)
    except HTTPInputError:
        raise BadRequest("not a request of HTTP/1.1") from None


def read_resume(payload: bytes) -> tuple[dict[str, str], Cursor, bytes]:
    """What the edge knows of a connection, where its client is, and the head of its request. Raises TrunkBroken."""
    size = codec.read_count(payload[:4])
    known = codec.read_fields(payload[4 : 4 + size])
    cursor, at = codec.read_cursor(payload, 4 + size)
    if not {"connection", "term", "orders"} <= known.keys() or not known["term"].isdecimal():
        raise codec.TrunkBroken("a connection without its name")
    return known, cursor, payload[at:]


def _same(theirs: str, ours: str) -> bool:
    return hmac.compare_digest(theirs.encode(), ours.encode())


def proof(key: str, nonce: str, worker: str) -> str:
    """What an edge says to show that it knows the key. SHA-1, for that is what Lua in nginx has: in an HMAC (RFC 2104)
    its collisions are of no use."""
    return hmac.new(key.encode(), f"{nonce} {worker}".encode(), "sha1").hexdigest()
