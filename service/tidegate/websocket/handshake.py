"""What a client's handshake asks for, read from its headers and its query (RFC 6455, 4.2), and the answer to it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import time
from collections.abc import Callable
from http.client import responses
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec
from tornado.httputil import HTTPHeaders

from tidegate.auth.callback import PASSED_ON, Callback, Login, question
from tidegate.auth.grants import Grant, unrestricted
from tidegate.auth.hosts import Hosts, Networks
from tidegate.auth.origins import Origins
from tidegate.auth.tokens import TOKEN_BYTES, Verifier
from tidegate.core.errors import BadRequest, MethodNotAllowed, NotFound, Refused, Unauthorized, UpgradeRequired
from tidegate.core.model import decode_cursor, is_id
from tidegate.core.protocol import SUBPROTOCOL, check_group
from tidegate.gateway.requests import HandshakeRequest
from tidegate.tornado_seam import Request

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_BEARER = "bearer."


class Offer(NamedTuple):
    """A handshake that was found right: what it asks of the gateway, what it may, the subprotocol that is chosen."""

    asked: HandshakeRequest
    grant: Grant | Login
    protocol: str | None


class Rules(msgspec.Struct):
    """What a handshake must be before the gateway is asked. ``verifier``: for auth.mode jwt; ``callback``: for
    callback; neither: none. ``edges``: addresses of peers that may say where a client is. ``check_room`` raises Refused
    where this node takes nobody, so that the application is not asked in vain."""

    path: str
    hosts: Hosts
    origins: Origins
    verifier: Verifier | None = None
    callback: Callback | None = None
    edges: Networks = Networks(())
    check_room: Callable[[], None] | None = None

    def check_request(self, request: Request) -> dict[str, str]:
        """Its query. Raises Refused for all that can be said without knowing who asks, which costs next to nothing; the
        order is host, path, method, upgrade, origin, query. ``authenticate`` comes next."""
        headers = request.headers
        self.hosts.check(headers.get("Host"))
        if request.path != self.path:
            raise NotFound("nothing here; WebSockets are served under the configured path")
        if request.method != "GET":
            raise MethodNotAllowed("GET only", allow="GET")
        check_upgrade(headers, request.version)
        if "Origin" in headers or "Sec-Fetch-Site" in headers:
            self.origins.check(headers.get("Origin"), headers["Host"], headers.get("Sec-Fetch-Site"))
        return read_query(request.query)

    async def authenticate(self, request: Request, query: dict[str, str], peer: str | None) -> Offer:
        """Who it is, and what it asks for. Raises Refused. ``peer``: the address that the request came from, None where
        only an edge comes from there."""
        headers = request.headers
        if self.callback is None:
            grant: Grant | Login = self._verify(headers, query, None)
            return Offer(asked(grant.client, query), grant, subprotocol(headers))
        wanted = asked("", query)  # the application is not asked for what is malformed
        if self.check_room is not None:
            self.check_room()
        address = self._address(headers, peer)
        login = await self.callback.login(_question(headers, query, address), address=address)
        wanted.client = login.client
        return Offer(wanted, login, subprotocol(headers))

    async def check_again(self, request: Request, token: str | None) -> Offer:
        """Both for one that was let in by another node, and comes over a trunk. ``token``: the newest that its edge
        was given to keep, in place of the request's; of a callback the ticket. Raises Refused."""
        headers, query = request.headers, self.check_request(request)
        if self.callback is None:
            grant: Grant | Login = self._verify(headers, query, token)
        else:
            address = self._address(headers, None)
            grant = await self.callback.move(_question(headers, query, address), token or "", address=address)
        return Offer(asked(grant.client, query), grant, subprotocol(headers))

    def _verify(self, headers: HTTPHeaders, query: dict[str, str], token: str | None) -> Grant:
        """Raises Unauthorized or BadRequest."""
        if self.verifier is None:
            return unrestricted(client_in(query))
        return self.verifier.verify(token or token_in(headers, query), time.time())

    def stranger(self, request: Request, peer: str | None) -> tuple[str | None, str | None]:
        """Who a refused handshake said to be, which proves nothing, and from where it came; None where it said neither.
        Never raises."""
        client = None
        with contextlib.suppress(Refused, ValueError, RecursionError):
            query = read_query(request.query)
            client = client_in(query) if "client" in query else claimed(tokens_in(request.headers, query)[:1])
        return client, self._address(request.headers, peer) or None

    def _address(self, headers: HTTPHeaders, peer: str | None) -> str:
        """The client's, as its edge says; without an edge the peer's."""
        said = headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        if said and (peer is None or peer in self.edges):
            return said
        return peer or ""


def _question(headers: HTTPHeaders, query: dict[str, str], address: str) -> bytes:
    """What the application is asked of this client. A token goes where programs have it, wherever a page had to put it.
    Raises BadRequest where there are several."""
    passed = {name: "; ".join(headers.get_list(name)) for name in PASSED_ON if name in headers}
    found = tokens_in(headers, query)
    if found and "token" not in query:
        passed["authorization"] = f"Bearer {found[0]}"
    # As the client has sent them: Tornado reads headers as Latin-1.
    return question(
        {name: text.encode("latin-1").decode(errors="replace") for name, text in passed.items()}, query, address
    )


def check_upgrade(headers: HTTPHeaders, version: str) -> None:
    """``version``: of HTTP. Raises UpgradeRequired or BadRequest (RFC 6455, 4.2.1)."""
    if version == "HTTP/1.0":  # which has no upgrade (RFC 9110, 7.8)
        raise UpgradeRequired("this is a WebSocket endpoint, and a handshake is HTTP/1.1")
    if "websocket" not in _words(headers, "Upgrade") or "upgrade" not in _words(headers, "Connection"):
        raise UpgradeRequired("this is a WebSocket endpoint")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise UpgradeRequired("Sec-WebSocket-Version must be 13")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    if "Transfer-Encoding" in headers or ("Content-Length" in headers and headers["Content-Length"] != "0"):
        raise BadRequest("a handshake has no body")


def _words(headers: HTTPHeaders, name: str) -> list[str]:
    return [word.strip() for word in headers.get(name, "").lower().split(",")]


def read_query(text: str) -> dict[str, str]:
    """Each key once. Raises BadRequest."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise BadRequest("the query is not UTF-8, or has too many fields") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise BadRequest("a query key is repeated")
    return query


def subprotocol(headers: HTTPHeaders) -> str | None:
    """Ours, if it is offered."""
    return SUBPROTOCOL if SUBPROTOCOL in _offered(headers) else None


def _offered(headers: HTTPHeaders) -> list[str]:
    if "Sec-WebSocket-Protocol" not in headers:
        return []
    return [name.strip() for name in headers["Sec-WebSocket-Protocol"].split(",")]


def token_in(headers: HTTPHeaders, query: dict[str, str]) -> str:
    """The one token. Raises Unauthorized where there is none, BadRequest where there are several, or the client is
    named beside it."""
    if "client" in query:
        raise BadRequest("the token says who the client is; leave out client")
    tokens = tokens_in(headers, query)
    if not tokens:
        raise Unauthorized("a token is required")
    return tokens[0]


def tokens_in(headers: HTTPHeaders, query: dict[str, str]) -> list[str]:
    """Of header, query and subprotocol: one or none. Raises BadRequest where there are several."""
    tokens = [name[len(_BEARER) :] for name in _offered(headers) if name.startswith(_BEARER)]
    authorization = headers.get("Authorization", "")
    if authorization[:7].lower() == "bearer ":
        tokens.append(authorization[7:].strip())
    if "token" in query:
        tokens.append(query["token"])
    if len(tokens) > 1:
        raise BadRequest("the token is given in more than one place")
    return tokens


class _Claimed(msgspec.Struct):
    sub: str = ""


def claimed(tokens: list[str]) -> str | None:
    """The client that a token names, whoever made it. Raises ValueError."""
    for token in tokens:
        part = token.split(".")[1] if token.count(".") >= 2 and len(token) <= TOKEN_BYTES else ""
        sub = msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=_Claimed).sub
        return sub if is_id(sub) else None
    return None


def client_in(query: dict[str, str]) -> str:
    """The client that names itself (auth.mode none). Raises BadRequest."""
    client = query.get("client")
    if client is None or not is_id(client):
        raise BadRequest("client: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
    return client


def asked(client: str, query: dict[str, str]) -> HandshakeRequest:
    """Raises BadRequest."""
    groups = [check_group(group) for group in query["groups"].split(",")] if query.get("groups") else []
    device = query.get("device", "")
    if device and not is_id(device):
        raise BadRequest("device: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
    token = query.get("cursor")
    if token == "last":
        return HandshakeRequest(client, groups, None, True, device)
    try:
        return HandshakeRequest(client, groups, None if token is None else decode_cursor(token))
    except ValueError as exc:
        raise BadRequest(str(exc)) from None


def switching_protocols(key: str, chosen: str | None, client: str, connection: str) -> bytes:
    """The 101 to a handshake with ``key``; ``chosen`` is the subprotocol (RFC 6455, 4.2.2)."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    protocol = f"Sec-WebSocket-Protocol: {chosen}\r\n" if chosen else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{protocol}"
        f"Tidegate-Client: {client}\r\nTidegate-Connection: {connection}\r\n\r\n"
    ).encode("ascii")


def refusal(error: Refused) -> bytes:
    """An HTTP answer with the contract's error object."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(error.body)), **error.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {error.status} {responses[error.status]}\r\n{lines}\r\n".encode("ascii") + error.body
