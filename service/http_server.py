"""Tornado's HTTP server with a shorter way to a request's headers.

Tornado checks each header by itself, by expressions that weigh alternatives for each character, and each wait for a
request has a future and a timer of its own: together a fifth of what a handshake cost (decision 0040). Here one
expression checks the headers as a block and another takes them apart; a block that the first does not match is left to
Tornado's parser, which refuses it or knows a leniency that this one does not. And since all waits are equally long,
those that wait stand in a queue, whose oldest alone is watched.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

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

from service.listener import Listener

# Field lines of RFC 9112, 5, without what is obsolete: folding, ends of lines without CR, bytes above 127. Possessive,
# so that a block that does not match costs no more than one that does.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = r"(?:[!-~]++(?:[ \t]++[!-~]++)*+)?+"
_request = re.compile(rf"([^\r\n]++)\r\n((?:{_NAME}:[ \t]*+{_VALUE}[ \t]*+\r\n)*+)\r\n")
_absolute = re.compile(r"(?i:https?)://([^/?#]*)([^#]*)")
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


class Server(HTTPServer):
    """Serves as Tornado's does. ``idle_connection_timeout``: seconds until a request's headers must be there;
    ``listener``: who accepts."""

    def initialize(self, *args: Any, **options: Any) -> None:
        self._listener: Listener = options.pop("listener")
        super().initialize(*args, **options)
        assert self.conn_params.header_timeout is not None
        self._idle_s: float = self.conn_params.header_timeout
        self.conn_params.header_timeout = None  # Tornado would watch by a timer for each request
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[object, float] = {}  # connection -> until when it may wait; the oldest first
        self._watch: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many are open, without those that were handed over."""
        return len(self._connections)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        for sock in sockets:
            self._sockets[sock.fileno()] = sock
            self._handlers[sock.fileno()] = self._listener.add(sock, self._handle_connection)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        connection = cast(HTTP1Connection, request_conn)
        self._waiting[server_conn] = self._loop.time() + self._idle_s
        if self._watch is None:
            self._watch = self._loop.call_later(self._idle_s, self._end_the_idle)
        # There is no public seam for either (Tornado 6.6).
        connection._parse_headers = partial(self._read, server_conn)  # type: ignore[method-assign]
        return super().start_request(server_conn, request_conn)

    def _read(self, server_conn: object, data: bytes) -> tuple[str, HTTPHeaders]:
        self._waiting.pop(server_conn, None)
        return parse(data)

    def on_close(self, server_conn: object) -> None:
        self._waiting.pop(server_conn, None)
        super().on_close(server_conn)

    def _end_the_idle(self) -> None:
        now_s = self._loop.time()
        for server_conn, until_s in list(self._waiting.items()):
            if until_s > now_s:
                self._watch = self._loop.call_at(until_s, self._end_the_idle)
                return
            del self._waiting[server_conn]
            cast(HTTP1ServerConnection, server_conn).stream.close()
        self._watch = None


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
        if name in headers:
            headers.add(name, value)
        else:
            headers[name] = value
    return request[1], headers
