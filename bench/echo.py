"""A plain echo: every text and binary message comes back, on any path, with the service's limits.

It is built on the service's own wire, so that conformance and cost can be looked at without a gateway; ``--tornado``
puts Tornado's protocol class there instead, to compare.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from typing import Any

import uvloop
from tornado.httpserver import HTTPServer
from tornado.web import Application
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from tidegate.config import load as config
from tidegate.config.settings import LimitsSettings
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.tasks import Tasks
from tidegate.turn import WriteBatch
from tidegate.websocket.wire import Wire

CLOSE_S = 5.0
HEAD_BYTES = 16 * 1024
BACKLOG = 4096


def add_command(commands: Any) -> None:
    parser = commands.add_parser("echo", help="echo every message; the limits are those of the environment's settings")
    parser.add_argument("--port", type=int, default=9001, help="on 127.0.0.1; 0 picks one (default: %(default)s)")
    parser.add_argument("--tornado", action="store_true", help="Tornado's protocol class instead of the service's wire")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is killed; says on stdout where. 1 where the settings are refused."""
    try:
        limits = config.load(None, os.environ).limits
    except config.ConfigError as exc:
        print(exc, file=sys.stderr)
        return 1
    listener = socket.create_server(("127.0.0.1", args.port), backlog=BACKLOG)
    listener.setblocking(False)
    print(f"echo on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run((_serve_tornado if args.tornado else _serve)(listener, limits))
    return 0


class Echo:
    """The peer of one wire."""

    def __init__(self, wire: Wire, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = wire
        self._loop = loop

    def on_text(self, payload: bytes) -> None:
        self._wire.put(frames.text(payload))

    def on_binary(self, payload: bytes) -> None:
        self._wire.put(frames.header(frames.BINARY, len(payload)) + payload)

    def on_pong(self, payload: bytes) -> None:
        pass

    def on_paced(self, what: str) -> None:
        """There is no limit here."""

    def on_share_used(self) -> None:
        pass

    def on_slow(self) -> None:
        self._wire.close(CloseCode.SLOW_CONSUMER)

    def on_closing(self, code: int | None) -> None:
        self._loop.call_later(CLOSE_S, self._wire.abort)

    def on_closed(self, code: int, answered: bool) -> None:
        pass


async def _serve(listener: socket.socket, limits: LimitsSettings) -> None:
    loop = asyncio.get_running_loop()
    turn, handshakes = WriteBatch(loop.call_soon), Tasks()
    while True:
        sock, _ = await loop.sock_accept(listener)
        handshakes.spawn(_shake_hands(sock, turn, limits), "handshake")


async def _shake_hands(sock: socket.socket, turn: WriteBatch, limits: LimitsSettings) -> None:
    """The least that a client needs: whatever asks with a key gets its 101."""
    loop = asyncio.get_running_loop()
    head, end = b"", -1
    try:
        while (end := head.find(b"\r\n\r\n")) < 0:
            part = await loop.sock_recv(sock, HEAD_BYTES)
            if not part or len(head) > HEAD_BYTES:
                sock.close()
                return
            head += part
        await loop.sock_sendall(sock, _answer(head[:end].decode("latin-1")))
    except OSError:
        sock.close()
        return
    wire = Wire(sock, loop, turn, message_bytes=limits.message_bytes, outbox_bytes=limits.outbox_bytes, binary=True)
    wire.start(Echo(wire, loop), head[end + 4 :])


def _answer(head: str) -> bytes:
    fields = (line.partition(":") for line in head.split("\r\n"))
    key = next((value.strip() for name, _, value in fields if name.lower() == "sec-websocket-key"), "")
    accept = WebSocketProtocol13.compute_accept_value(key)
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode("ascii")


class TornadoEcho(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


async def _serve_tornado(listener: socket.socket, limits: LimitsSettings) -> None:
    application = Application(
        [(".*", TornadoEcho)],
        websocket_max_message_size=limits.message_bytes,
        log_function=lambda handler: None,
    )
    HTTPServer(application).add_socket(listener)
    await asyncio.Event().wait()
