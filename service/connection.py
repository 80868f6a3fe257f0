"""The door for clients: Tornado's WebSocketHandler checks and answers the handshake, then the connection owns its
socket.

``get_websocket_protocol`` is Tornado's seam: instead of its own protocol class it gets ``Handover``, which writes
the 101 answer and gives the socket to a ``Wire``. From there on no object of the request is referred to.

Order of checks: method, host, upgrade, origin, query, token, then what the gateway says (limits, groups, broker).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import socket
import time
from typing import Any, cast
from urllib.parse import parse_qsl

import msgspec
from tornado import httputil, iostream
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from service import log
from service.auth import Grant, Hosts, Origins, Verifier, unrestricted
from service.errors import (
    BadRequest,
    Draining,
    Internal,
    MethodNotAllowed,
    NotFound,
    Refused,
    Unauthorized,
    UpgradeRequired,
)
from service.gateway import Asked, Gateway
from service.metrics import Metrics
from service.model import decode_cursor, is_id
from service.peer import Peer, Shared
from service.protocol import SUBPROTOCOL, check_group
from service.session import Session
from service.wire import Turn, Wire

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_BEARER = "bearer."


class Door(msgspec.Struct):
    """What every handshake needs; one per node. ``verifier`` None: auth.mode none."""

    gateway: Gateway
    metrics: Metrics
    hosts: Hosts
    origins: Origins
    verifier: Verifier | None
    turn: Turn
    peers: Shared
    message_bytes: int
    outbox_bytes: int
    numbers: itertools.count[int]


class JsonErrors(RequestHandler):
    """Every refusal as the contract's error object, and never a traceback to the peer."""

    def set_default_headers(self) -> None:
        self.clear_header("Server")

    def refuse(self, error: Refused) -> None:
        self.clear()
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json")
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(error.retry_after_s))
        if isinstance(error, UpgradeRequired):
            self.set_header("Connection", "Upgrade")  # demanded where Upgrade is sent (RFC 9110, 7.8)
            self.set_header("Upgrade", "websocket")
            self.set_header("Sec-WebSocket-Version", "13")
        if isinstance(error, Unauthorized):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", "GET")
        self.finish(error.body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = Internal("internal error") if status_code >= 500 else BadRequest("bad request")
        self.refuse(MethodNotAllowed("GET only") if status_code == 405 else error)


class Elsewhere(JsonErrors):
    """Any other path of the public port."""

    def initialize(self, hosts: Hosts) -> None:
        self.hosts = hosts

    def prepare(self) -> None:
        try:
            self.hosts.check(self.request.headers.get("Host"))
        except Refused as error:
            self.refuse(error)
            return
        self.refuse(NotFound("nothing here; WebSockets are served under the configured path"))


class Connection(WebSocketHandler, JsonErrors):
    """One handshake. ``door`` is the node's."""

    def initialize(self, door: Door) -> None:
        self.door = door

    async def get(self, *args: str, **kwargs: str) -> None:
        try:
            await self._shake_hands()
        except Refused as error:
            self.door.metrics.handshakes.labels(error.code).inc()
            log.debug("handshake.refused", code=error.code, error=error.message)
            if not self._finished:
                self.refuse(error)

    async def _shake_hands(self) -> None:
        door, headers = self.door, self.request.headers
        door.hosts.check(headers.get("Host"))
        _check_upgrade(headers)
        door.origins.check(headers.get("Origin"), headers.get("Host"))
        query = _query(self.request.query)
        offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
        grant = self._authenticate(query, offered)
        asked = _asked(grant.client, query)
        protocol = self.get_websocket_protocol()
        protocol.subprotocol = SUBPROTOCOL if SUBPROTOCOL in offered else None
        connection = f"{door.gateway.node}-{next(door.numbers)}"
        session = await door.gateway.admit(asked, grant, connection, protocol.wire, protocol.wire.outbox)
        try:
            protocol.session = session
            await protocol.accept_connection(self)
        except BaseException:
            door.gateway.drop(session, confirmed=False)
            raise

    def _authenticate(self, query: dict[str, str], offered: list[str]) -> Grant:
        """Raises Unauthorized or BadRequest."""
        verifier = self.door.verifier
        if verifier is None:
            client = query.get("client")
            if client is None or not is_id(client):
                raise BadRequest("client: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
            return unrestricted(client)
        if "client" in query:
            raise BadRequest("the token says who the client is; leave out client")
        tokens = [name[len(_BEARER) :] for name in offered if name.startswith(_BEARER)]
        authorization = self.request.headers.get("Authorization", "")
        if authorization[:7].lower() == "bearer ":
            tokens.append(authorization[7:].strip())
        if "token" in query:
            tokens.append(query["token"])
        if len(tokens) > 1:
            raise BadRequest("the token is given in more than one place")
        if not tokens:
            raise Unauthorized("a token is required")
        return verifier.verify(tokens[0], time.time())

    def get_websocket_protocol(self) -> Handover:
        return Handover(self, self.door)


def _check_upgrade(headers: httputil.HTTPHeaders) -> None:
    """Raises UpgradeRequired or BadRequest (RFC 6455, 4.2.1)."""
    upgrades = [token.strip().lower() for token in headers.get("Upgrade", "").split(",")]
    connection = [token.strip().lower() for token in headers.get("Connection", "").split(",")]
    if "websocket" not in upgrades or "upgrade" not in connection:
        raise UpgradeRequired("this is a WebSocket endpoint")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise UpgradeRequired("Sec-WebSocket-Version must be 13")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")


def _query(text: str) -> dict[str, str]:
    """Each key once. Raises BadRequest."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise BadRequest("the query is not UTF-8, or has too many fields") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise BadRequest("a query key is repeated")
    return query


def _asked(client: str, query: dict[str, str]) -> Asked:
    groups = [check_group(group) for group in query["groups"].split(",")] if query.get("groups") else []
    device = query.get("device", "")
    if device and not is_id(device):
        raise BadRequest("device: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
    token = query.get("cursor")
    if token == "last":
        return Asked(client, groups, None, True, device)
    try:
        return Asked(client, groups, None if token is None else decode_cursor(token))
    except ValueError as exc:
        raise BadRequest(str(exc)) from None


class Handover(WebSocketProtocol):
    """Tornado's protocol object for one handshake: answers it and hands the socket over to ``wire``.

    Tornado's own class since 6.5 would cut websocket_ping_timeout down to the interval; here both
    settings are the heartbeat's.
    """

    def __init__(self, handler: Connection, door: Door) -> None:
        super().__init__(handler)
        self._door = door
        self._socket = _socket_of(handler)
        self.session: Session | None = None
        self.subprotocol: str | None = None
        self.wire = Wire(
            self._socket,
            door.peers.loop,
            door.turn,
            message_bytes=door.message_bytes,
            outbox_bytes=door.outbox_bytes,
        )

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        """Raises Refused if the session ended or the peer went while it was admitted."""
        session = self.session
        assert session is not None
        if session.ended:
            raise Draining("closed while it was connecting")
        answer = self._answer(handler.request.headers["Sec-WebSocket-Key"], session)
        stream = handler.request.connection.stream if handler.request.connection else None  # type: ignore[attr-defined]
        if stream is None or stream.closed():
            raise BadRequest("the peer has gone")
        early = _take_over(cast(RequestHandler, handler).detach())
        door = self._door
        self.wire.outbox.put(answer)  # it leaves together with the welcome, in one write
        door.metrics.opened()
        log.info("connection.opened", conn=session.connection, client=session.client)
        peer = Peer(door.peers, session, self.wire)
        door.gateway.welcome(session)
        self.wire.start(peer, early)

    def _answer(self, key: str, session: Session) -> bytes:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        chosen = f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n" if self.subprotocol else ""
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{chosen}"
            f"Tidegate-Client: {session.client}\r\nTidegate-Connection: {session.connection}\r\n\r\n"
        ).encode("ascii")

    # The rest of Tornado's interface has no work here: the wire and the heartbeat do it.

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write_message(self, message: str | bytes | dict[str, Any], binary: bool = False) -> Any:
        raise NotImplementedError

    @property
    def selected_subprotocol(self) -> str | None:
        return self.subprotocol

    def write_ping(self, data: bytes) -> None:
        raise NotImplementedError

    def _process_server_headers(self, key: str | bytes, headers: httputil.HTTPHeaders) -> None:
        raise NotImplementedError

    def start_pinging(self) -> None:
        pass

    async def _receive_frame_loop(self) -> None:
        pass

    def set_nodelay(self, x: bool) -> None:
        pass


def _socket_of(handler: RequestHandler) -> socket.socket:
    return cast(socket.socket, handler.request.connection.stream.socket)  # type: ignore[union-attr]


def _take_over(stream: iostream.IOStream) -> bytes:
    """Ends Tornado's interest in the socket without closing it; what it had read beyond the headers."""
    stream.io_loop.remove_handler(stream.fileno())
    early = bytes(stream._read_buffer)  # no public way gives it without waiting (Tornado 6.6)
    stream.socket = None  # type: ignore[assignment]
    return early
