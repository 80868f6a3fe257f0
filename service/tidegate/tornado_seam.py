"""What is needed of Tornado beyond its public names: each private one is used here and nowhere else, and
``tests/test_tornado_seam.py`` has the list. For the most part it is an HTTP server with a shorter way to a request's
headers.

Tornado checks each header by itself, by expressions that weigh alternatives for each character, and each wait for a
request has a future and a timer of its own: together a fifth of what a handshake cost (decision 0040). Here one
expression checks the headers as a block and another takes them apart; a block that the first does not match is left to
Tornado's parser, which refuses it or knows a leniency that this one does not. And since all waits are equally long,
the oldest alone is watched (``process.deadlines``).

And nobody is cut without an answer who has asked something, however badly: an edge could not tell that from a node
that dies, and would pass it over for everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterable
from functools import partial
from http.client import responses
from typing import Any, cast

from tornado.concurrent import Future
from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, UnsatisfiableReadError
from tornado.util import _websocket_mask
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler, WebSocketProtocol

from tidegate import log
from tidegate.core.errors import BadRequest, HeadersTooLarge, Refused, TooSlow
from tidegate.process.deadlines import Deadlines
from tidegate.process.listener import Listener

# mask(key of four bytes, data): RFC 6455, 5.3; in C where Tornado has it.
mask = _websocket_mask

# Field lines of RFC 9112, 5, without what is obsolete: folding, ends of lines without CR, bytes above 127. Possessive,
# so that a block that does not match costs no more than one that does.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = r"(?:[!-~]++(?:[ \t]++[!-~]++)*+)?+"
_request = re.compile(rf"([^\r\n]++)\r\n((?:{_NAME}:[ \t]*+{_VALUE}[ \t]*+\r\n)*+)\r\n")
_absolute = re.compile(r"(?i:https?)://([^/?#]*+)([^#]*+)")
_field = re.compile(rf"({_NAME}):[ \t]*+({_VALUE})[ \t]*+\r\n")


class Request(HTTPServerRequest):
    """What was asked, as its headers say. Tornado's own would check the host and take the query apart, twice; who
    answers does both by stricter rules."""

    def __init__(
        self, connection: HTTPConnection, line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        asked = cast(RequestStartLine, line)
        self.connection = connection
        self.method = asked.method
        self.version = asked.version
        self.headers = headers
        target = asked.path
        if not target.startswith("/"):
            target = self._take_host(target)
        self.path, _, self.query = target.partition("?")

    def _take_host(self, target: str) -> str:
        """Path and query of a target in absolute form. Its host takes the place of the Host header, which HTTP/1.1
        demands all the same (RFC 9112, 3.2 and 3.2.2). Another form is given back as it is."""
        found = _absolute.fullmatch(target)
        if found is None:
            return target
        given = self.headers.get("Host")
        if (self.version == "HTTP/1.0") if given is None else ("," not in given):  # there are not two of them
            self.headers["Host"] = found[1]
        return found[2] if found[2].startswith("/") else f"/{found[2]}"


LINGER_S = 2.0  # how long a peer that was refused may go on sending: closed before, it would not see why

_MALFORMED = b"HTTP/1.1 400 Bad Request\r\n\r\n"  # what Tornado answers, and closes


class Stream(IOStream):
    """Tornado's, but what Tornado refuses by itself is answered as all refusals are."""

    server: HttpServer
    _last = False  # the answer is out, and nothing may follow

    def refuse(self, error: Refused) -> None:
        """Says so, then hears no more."""
        if self._last or self.closed():
            return
        self._last = True
        self.server.refused(error)
        head = (
            f"HTTP/1.1 {error.status} {responses[error.status]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(error.body)}\r\nConnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # it is gone, or we have no descriptor left
            self.socket.send(head.encode("ascii") + error.body)
            Lingering(self.socket.dup(), self.server.lingering)
        self.close()

    def write(self, data: bytes | memoryview) -> Future[None]:
        if data == _MALFORMED:
            self.refuse(BadRequest("not a request of HTTP/1.1, or one that is too long"))
        if self._last:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        written = super().write(data)
        if not written.done():
            self.server.note_unsent(self, written)
        return written

    def close(self, exc_info: Any = False) -> None:
        if isinstance(exc_info, UnsatisfiableReadError):
            self.refuse(HeadersTooLarge("the request's line and headers together are too large"))
        super().close(exc_info)


class Lingering:
    """A socket on which all has been said: read to its end, or for a while. One that is closed with unread bytes is
    reset, and the peer would not see the answer."""

    def __init__(self, sock: socket.socket, others: set[Lingering]) -> None:
        """It is among ``others`` until it ends."""
        self._others = others
        others.add(self)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the peer has gone, as reading will find
            sock.shutdown(socket.SHUT_WR)
        self._loop.add_reader(sock, self._drain)
        self._timer = self._loop.call_later(LINGER_S, self.end)

    def _drain(self) -> None:
        try:
            if self._sock.recv(65536):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self.end()

    def end(self) -> None:
        self._others.discard(self)
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()


class HttpServer(HTTPServer):
    """Serves as Tornado's does. ``idle_connection_timeout``: seconds until a request's headers must be there, and in
    which an answer must be taken; ``listener``: who accepts. ``on_refusal`` is told of each request that is refused
    before it is understood."""

    def initialize(self, *args: Any, **options: Any) -> None:
        self._listener: Listener = options.pop("listener")
        self._on_refusal: Callable[[Refused], None] = options.pop("on_refusal")
        super().initialize(*args, **options)
        assert self.conn_params.header_timeout is not None
        self._idle_s: float = self.conn_params.header_timeout
        self.conn_params.header_timeout = None  # Tornado would watch by a timer for each request
        self._idle: Deadlines[object] = Deadlines(self._idle_s, self._end_the_idle)
        self._unread: Deadlines[tuple[Stream, Future[None]]] = Deadlines(self._idle_s, self._end_the_unread)
        self.lingering: set[Lingering] = set()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        """No public seam gives a server streams of another class (Tornado 6.6)."""
        stream = Stream(connection, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size)
        stream.server = self
        self.handle_stream(stream, address)

    def refused(self, error: Refused) -> None:
        self._on_refusal(error)
        log.info("request.refused", code=error.code, error=error.message)

    def note_unsent(self, stream: Stream, written: Future[None]) -> None:
        """Its peer has not taken all of an answer at once. Tornado would wait for ever, with the answer in memory."""
        answer = stream, written
        self._unread.begin(answer)
        written.add_done_callback(lambda _: self._unread.end(answer))

    def _end_the_unread(self, answer: tuple[Stream, Future[None]]) -> None:
        log.info("request.unread", seconds=self._idle_s)
        answer[0].close()

    async def close_all_connections(self) -> None:
        self._idle.stop()
        self._unread.stop()
        for one in list(self.lingering):
            one.end()
        await super().close_all_connections()

    @property
    def connections(self) -> int:
        """How many are open, without those that were handed over."""
        return len(self._connections) + len(self.lingering)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        for sock in sockets:
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = self._listener.add(sock, self._handle_connection)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        connection = cast(HTTP1Connection, request_conn)
        self._idle.begin(server_conn)
        # There is no public seam for either (Tornado 6.6).
        connection._parse_headers = partial(self._read, server_conn)  # type: ignore[method-assign]
        return super().start_request(server_conn, request_conn)

    def _read(self, server_conn: object, data: bytes) -> tuple[str, HTTPHeaders]:
        self._idle.end(server_conn)
        return parse(data)

    def on_close(self, server_conn: object) -> None:
        self._idle.end(server_conn)
        super().on_close(server_conn)

    def _end_the_idle(self, server_conn: object) -> None:
        stream = cast(Stream, cast(HTTP1ServerConnection, server_conn).stream)
        if stream._read_buffer_size:  # it has begun to ask
            stream.refuse(TooSlow("the request's headers did not come in time"))
        stream.close()


def parse(data: bytes) -> tuple[str, HTTPHeaders]:
    """The request line, unchecked, and the headers. ``data`` ends with the empty line behind them. Raises
    tornado.httputil.HTTPInputError."""
    text = data.decode("latin1").lstrip("\r\n")  # empty lines before a request are ignored (RFC 9112, 2.2)
    request = _request.fullmatch(text)
    if request is None:
        line, _, block = text.partition("\n")
        return line.rstrip("\r"), HTTPHeaders.parse(block)
    headers = HTTPHeaders()
    for name, value in _field.findall(request[2]):
        if value and value[-1] in " \t":  # Python before 3.11.5 lets a possessive group keep what it had to give back
            value = value.rstrip(" \t")
        if name in headers:
            headers.add(name, value)
        else:
            headers[name] = value
    return request[1], headers


# Requests and answers


def bytes_received(stream: IOStream) -> int:
    """How much of what the peer sent has been read from the socket and not been asked for."""
    return len(stream._read_buffer)


def close_when_answered(connection: HTTP1Connection) -> None:
    """Ends a connection of HTTP/1.1 after this answer, which must say so."""
    connection._disconnect_on_finish = True


def take_over(stream: IOStream) -> bytes:
    """Ends Tornado's interest in the socket without closing it; what it had read beyond the headers."""
    stream.io_loop.remove_handler(stream.fileno())
    early = bytes(stream._read_buffer)
    stream.socket = None  # type: ignore[assignment]
    return early


class AnswerHandler(RequestHandler):
    """Tornado's, but an answer begins with the headers that ``first_headers`` gives, and no line is logged for it."""

    def first_headers(self) -> HTTPHeaders:
        raise NotImplementedError

    def clear(self) -> None:
        """As Tornado's, but that sets its own headers one by one."""
        self._headers = self.first_headers()
        self._write_buffer = []
        self._status_code = 200
        self._reason = responses[200]

    def _log(self) -> None:
        """No line for each request: metrics count them."""


class NoProtocol(WebSocketProtocol):
    """Tornado's protocol object, whose work others do once the handshake has been answered.

    Tornado's own class since 6.5 would cut websocket_ping_timeout down to the interval.
    """

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    async def accept_connection(self, handler: WebSocketHandler) -> None:
        raise NotImplementedError

    def write_message(self, message: str | bytes | dict[str, Any], binary: bool = False) -> Any:
        raise NotImplementedError

    @property
    def selected_subprotocol(self) -> str | None:
        return None

    def write_ping(self, data: bytes) -> None:
        raise NotImplementedError

    def _process_server_headers(self, key: str | bytes, headers: HTTPHeaders) -> None:
        raise NotImplementedError

    def start_pinging(self) -> None:
        pass

    async def _receive_frame_loop(self) -> None:
        pass

    def set_nodelay(self, x: bool) -> None:
        pass
