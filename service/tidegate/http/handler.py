"""One request to the internal port: who may make it, its body, its answer. What it is for is ``api``'s.

A request is looked at when its headers are there, in this order: host, origin, path, method, key, query, type, length.
A refusal is answered once the body has been read and thrown away: whoever closes while its peer still sends resets the
connection, and the peer never sees the answer. Source: docs/protocol.md, HTTP API.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast
from urllib.parse import unquote_to_bytes

import msgspec
from tornado.escape import parse_qs_bytes
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
    format_timestamp,
)
from tornado.web import Application, HTTPError, stream_request_body

from tidegate import log
from tidegate.auth.api_keys import ANYBODY, ApiKeys, Right
from tidegate.auth.hosts import Hosts
from tidegate.auth.origins import Origins
from tidegate.config.settings import Config
from tidegate.core.errors import (
    BadRequest,
    HostNotAllowed,
    InternalError,
    MethodNotAllowed,
    NotAllowed,
    NotFound,
    OriginNotAllowed,
    Refused,
    TooDeep,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
)
from tidegate.core.model import group_stream, is_id
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.readiness import Readiness
from tidegate.gateway.tracing import Tracing
from tidegate.metrics import Metrics
from tidegate.tornado_seam import AnswerHandler, Request, bytes_received

_T = TypeVar("_T")

PROBES = ("/healthz", "/readyz", "/metrics")

SHOWN = 300  # characters of a path, in the log

_JSON = "application/json"
_SAME_HOST = Origins(())
_THROWN_AWAY_BYTES = 16 * 1024 * 1024  # of a refused body; one that is longer gets its answer at once, and a reset


class ApiContext(msgspec.Struct):
    """What every request needs; one per node. ``public_port`` is where the console finds the WebSocket."""

    gateway: Gateway
    config: Config
    keys: ApiKeys
    hosts: Hosts
    metrics: Metrics
    readiness: Readiness
    tracing: Tracing
    public_port: int


class Response(NamedTuple):
    """``headers`` go beside the usual ones, or in their place."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Endpoint(NamedTuple):
    """What one method of a path does. ``run`` takes the handler, and the path's names by keyword; ``right``: what its
    API key must be allowed, None where it needs none; ``query`` are the keys of the query, None lets any pass;
    ``body``: it takes one; ``by_item``: it looks itself at the streams that a key is for."""

    run: Callable[..., Awaitable[Response]]
    right: Right | None = None
    query: frozenset[str] | None = None
    body: bool = False
    by_item: bool = False


class Route(NamedTuple):
    """What the methods of a path do; ``path`` matches all of it, its groups are the names in it."""

    path: re.Pattern[str]
    endpoints: Mapping[str, Endpoint]


class InternalApplication(Application):
    """The internal port. The first route that matches has the request, the last matches all."""

    def __init__(self, api: ApiContext, routes: Sequence[Route]) -> None:
        super().__init__()
        self.api = api
        self.routes = routes

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        stream = cast(HTTP1Connection, request_conn).stream
        if stream.set_nodelay is not _leave_it:
            # An answer is one write, so that Nagle's algorithm has nothing to wait for; Tornado would switch it on and
            # off for each.
            stream.set_nodelay(True)
            stream.set_nodelay = _leave_it  # type: ignore[method-assign]
        return _RequestDelegate(self, request_conn)


def _leave_it(value: bool) -> None:
    """In place of a stream's ``set_nodelay``."""


class _RequestDelegate(HTTPMessageDelegate):
    """One request, as Tornado's HTTP server tells it. It is routed here: Tornado's routing is a fifteenth of a push."""

    def __init__(self, application: InternalApplication, connection: HTTPConnection) -> None:
        self._application = application
        self._connection = connection
        self._handler: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        request = Request(self._connection, start_line, headers)
        for route in self._application.routes:
            match = route.path.fullmatch(request.path)
            if match is not None:
                break
        assert match is not None
        names = {name: unquote_to_bytes(text) for name, text in match.groupdict().items()}
        options = {"api": self._application.api, "endpoints": route.endpoints}
        self._handler = self._application.get_handler_delegate(request, ApiHandler, options, None, names)
        return self._handler.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        assert self._handler is not None
        return self._handler.data_received(chunk)

    def finish(self) -> None:
        assert self._handler is not None
        self._handler.finish()

    def on_connection_close(self) -> None:
        if self._handler is not None:
            self._handler.on_connection_close()


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body where none is asked for: some clients send ``{}``."""


_nothing = msgspec.json.Decoder(_Nothing)


@stream_request_body  # headers first, so that nobody fills memory before he is known; measured to cost 2 %
class ApiHandler(AnswerHandler):
    """``endpoints`` are by the methods of the path that was asked for; none: there is no such path."""

    def initialize(self, api: ApiContext, endpoints: Mapping[str, Endpoint]) -> None:
        self.api = api
        self._endpoints = endpoints
        self._endpoint = Endpoint(_preflight)
        self._refusal: Refused | None = None
        self._cross_origin = False  # a page of a configured origin asks
        self._length = 0  # of the body, as the headers say
        self._chunks: list[bytes] = []
        self._bytes = 0  # received
        self._late: asyncio.TimerHandle | None = None  # when a body must be whole that was not at once
        self._query: dict[str, list[bytes]] = {}
        self.caller = ANYBODY
        self.pushes: int | None = None  # of a batch, once it is read
        self.not_allowed = 0  # of these

    def first_headers(self) -> HTTPHeaders:
        """As Tornado's, but JSON, without a Server header, and with a date that is written once a second."""
        headers = HTTPHeaders()
        headers["Content-Type"] = _JSON
        headers["Date"] = _date(int(time.time()))
        return headers

    def compute_etag(self) -> None:
        """None: answers differ each time, and the console's files bring their own."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        return value.decode(errors="replace")  # by a character that is in no id

    # The headers are there

    def prepare(self) -> None:
        connection = cast(HTTP1Connection, self.request.connection)
        connection.set_max_body_size(sys.maxsize)  # counted here: over a limit of Tornado's the answer is a bare 400
        length = self.request.headers.get("Content-Length", "")
        self._length = int(length[:19]) if length.isdecimal() else 0  # what is malformed Tornado is about to refuse
        if self._length > bytes_received(connection.stream) or "Transfer-Encoding" in self.request.headers:
            seconds = self.api.config.server.header_timeout_s
            self._late = asyncio.get_running_loop().call_later(seconds, self._end_the_late)  # costs a push 4 %
        try:
            self._admit()
        except Refused as exc:
            self._refusal = exc
            waits = "Expect" in self.request.headers  # for our 100; without it no body comes
            if waits or self._length > _THROWN_AWAY_BYTES:
                self._refuse_and_close(exc)

    def _admit(self) -> None:
        """Raises Refused for all that can be known without the body."""
        request = self.request
        headers = request.headers
        self._check_host(headers.get("Host"))
        if request.path.startswith("/api/"):
            self._check_origin()
        if not self._endpoints:
            raise NotFound("there is no such path; /api/openapi.json describes all there are")
        method = request.method or ""
        if method == "OPTIONS" and self._cross_origin:
            return
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            raise self._method_not_allowed()
        self._endpoint = endpoint
        if endpoint.right is not None:
            self.caller = self.api.keys.check(headers.get("Authorization"))
            self.caller.require(endpoint.right)
        if endpoint.query is not None:
            self._check_query(endpoint.query)
            if endpoint.body or self._length or "Transfer-Encoding" in headers:
                self._check_type()
        if self._length > self.api.config.limits.body_bytes:
            raise self._too_large()

    def _check_host(self, host: str | None) -> None:
        """Raises HostNotAllowed or BadRequest."""
        try:
            self.api.hosts.check(host)
        except HostNotAllowed as exc:
            if self.request.path not in PROBES:
                raise
            if not self.api.config.internal.probes_by_address:
                raise HostNotAllowed(
                    f"{exc.message}; for probes by a pod's address: internal.probes_by_address"
                ) from exc
            if not Hosts.is_address(host or ""):
                raise

    def _check_origin(self) -> None:
        """Raises OriginNotAllowed for the pages of others. Where there is no key, this is what keeps them out."""
        headers = self.request.headers
        allowed = self.api.config.internal.cors_origins
        if allowed:
            self.set_header("Vary", "Origin")
        if "Origin" in headers:
            origin = headers["Origin"]
            if origin in allowed:
                self._cross_origin = True
                self.set_header("Access-Control-Allow-Origin", origin)
                self.set_header("Access-Control-Expose-Headers", "Retry-After")
                return
            _SAME_HOST.check(origin, headers["Host"])
        if "Sec-Fetch-Site" in headers and "cross-site" in headers["Sec-Fetch-Site"]:
            raise OriginNotAllowed("pages of other sites may not call this")

    def _check_query(self, known: frozenset[str]) -> None:
        if not self.request.query:
            return
        self._query = parse_qs_bytes(self.request.query, keep_blank_values=True)
        for name, values in self._query.items():
            if name not in known:
                raise BadRequest(f"unknown query key; known here: {', '.join(sorted(known)) or 'none'}")
            if len(values) > 1:
                raise BadRequest(f"{name} is given more than once")

    def _check_type(self) -> None:
        given = self.request.headers.get("Content-Type", "")
        if given != _JSON and given.partition(";")[0].strip().lower() != _JSON:
            raise UnsupportedMediaType(f"Content-Type must be {_JSON}")
        if self.request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise UnsupportedMediaType("Content-Encoding is not known here: send the body as it is")

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is longer than {self.api.config.limits.body_bytes} bytes")

    def _method_not_allowed(self) -> MethodNotAllowed:
        return MethodNotAllowed(f"this path knows {self.allow()}", allow=self.allow())

    def allow(self) -> str:
        """The methods that this path knows, as the header Allow has them."""
        return ", ".join(self._endpoints)

    # The body

    def data_received(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._refusal is None:
            if self._bytes <= self.api.config.limits.body_bytes:
                self._chunks.append(chunk)
                return
            self._chunks.clear()
            self._refusal = self._too_large()
        if self._bytes > _THROWN_AWAY_BYTES:
            self._refuse_and_close(self._refusal)

    def _end_the_late(self) -> None:
        self._late = None
        self._refuse_and_close(self._refusal or TooSlow("the request's body did not come in time"))

    def _hurry_no_more(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def on_connection_close(self) -> None:
        self._hurry_no_more()
        super().on_connection_close()

    def decode(self, decoder: msgspec.json.Decoder[_T]) -> _T:
        """The body. Raises BadRequest or TooDeep."""
        return decode(decoder, b"".join(self._chunks), "the body")

    def query(self, name: str) -> str | None:
        """A value of the query; None where the key is not there."""
        values = self._query.get(name)
        return values[0].decode(errors="replace") if values else None

    # The answer

    async def _serve(self, **names: str) -> None:
        self._hurry_no_more()
        try:
            if self._refusal is not None:
                raise self._refusal
            for name, text in names.items():
                if not is_id(text):
                    raise BadRequest(f"{name}: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
            if self._endpoint.right is not None and not self._endpoint.by_item:
                self.caller.require_stream(group_stream(names["group"]) if "group" in names else None)
            if self._bytes and not self._endpoint.body:
                self.decode(_nothing)
            answer = await self._endpoint.run(self, **names)
        except Refused as exc:
            self._refuse(exc)
            return
        self._note(answer.status)
        self.set_status(answer.status)
        for header, value in answer.headers.items():
            self.set_header(header, value)
        if "Etag" in answer.headers and self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(answer.body or None)

    get = head = post = put = delete = patch = options = _serve

    def _refuse(self, error: Refused) -> None:
        self.api.metrics.refusals[error.code,] += 1
        self._note(error.status, error.code)
        self.set_status(error.status)
        for header, value in error.headers.items():
            self.set_header(header, value)
        self.finish(error.body)

    def _note(self, status: int, code: str | None = None) -> None:
        """A line in the log for what a key changed, or tried to, and for what was refused to one, or for want of it."""
        right, internal = self._endpoint.right, self.api.config.internal
        if not self.api.keys.required or right is None:
            return
        if self.not_allowed:
            code = code or NotAllowed.code
        elif status not in (401, 403) and (right == "read" or (right == "push" and not internal.audit_pushes)):
            return
        log.info(
            "api.refused" if code else "api.used",
            who=self.caller.name or None,
            what=f"{self.request.method} {self.request.path[:SHOWN]}",
            address=self._peer(),
            status=status,
            **({"code": code} if code else {}),
            **({} if self.pushes is None else {"pushes": self.pushes}),
            **({"not_allowed": self.not_allowed} if self.not_allowed else {}),
        )

    def _peer(self) -> str:
        with contextlib.suppress(OSError, AttributeError):  # it has gone
            return str(cast(HTTP1Connection, self.request.connection).stream.socket.getpeername()[0])
        return ""

    def _refuse_and_close(self, error: Refused) -> None:
        self._hurry_no_more()
        self.set_header("Connection", "close")  # Tornado closes, because the body is unread, but does not say so
        self._refuse(error)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """For Tornado: a method that it does not know, or an exception."""
        if status_code >= 500:
            self._refuse(InternalError("internal error"))
        elif self._endpoints:
            self._refuse(self._method_not_allowed())
        else:
            self._refuse(NotFound("there is no such path"))

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if not isinstance(value, HTTPError):
            log.error("request.failed", method=self.request.method, path=self.request.path, error=value)


@lru_cache(maxsize=1)
def _date(now_s: int) -> str:
    return format_timestamp(now_s)


async def _preflight(handler: ApiHandler, **names: str) -> Response:
    """A page of a configured origin asks what it may send (Fetch standard, CORS-preflight request)."""
    headers = {
        "Access-Control-Allow-Methods": handler.allow(),
        "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key",
        "Access-Control-Max-Age": "600",
    }
    return Response(204, b"", headers)


def decode(decoder: msgspec.json.Decoder[_T], text: bytes, what: str) -> _T:
    """Raises BadRequest or TooDeep, which say of ``what`` is wrong."""
    try:
        if not text.isascii():
            text.decode()  # msgspec does not look at the UTF-8 of what it keeps raw
        return decoder.decode(text)
    except UnicodeDecodeError:
        raise BadRequest(f"{what} is not UTF-8") from None
    except msgspec.ValidationError as exc:
        raise BadRequest(f"{what}: {exc}") from None
    except msgspec.DecodeError:
        raise BadRequest(f"{what} is not JSON") from None
    except RecursionError:
        raise TooDeep(f"{what} is nested too deeply") from None
