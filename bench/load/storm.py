"""Connecting: tokens, addresses, and handshakes at the lowest cost to the client."""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import jwt

from bench.load.publisher import LoadError

AT_ONCE = 50  # handshakes under way
WAIT_S = 30.0  # for an answer, before it counts as lost

_KEY = base64.b64encode(b"sixteen bytes...").decode()


def accept(key: str) -> bytes:
    """What answers a Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())


ACCEPT = accept(_KEY)


def make_tokens(key: str | None, count: int, salt: int = 0, prefix: str = "c", *, publish: bool = False) -> list[str]:
    """For clients c0, c1, …: they may join any group, and publish to it; the same ones for the same ``salt``."""
    if key is None:
        return []
    expires = (int(time.time()) // 86400 + 30) * 86400
    claims: dict[str, Any] = {"exp": expires, "groups": ["*"]}
    if publish:
        claims["publish"] = ["*"]
    if salt:
        claims["jti"] = str(salt)
    return [jwt.encode({"sub": f"{prefix}{number}", **claims}, key, algorithm="HS256") for number in range(count)]


def split(url: str) -> tuple[str, int, str]:
    host, _, rest = url.removeprefix("ws://").partition(":")
    port, slash, path = rest.partition("/")
    return host, int(port), slash + path


def request_of(host: str, port: int, path: str, token: str | None) -> bytes:
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n{bearer}\r\n"
    ).encode()


def _source(number: int) -> str:
    """An address of this machine to connect from: one has 28,232 ports by default, and closed ones wait a minute."""
    return f"127.0.{1 + number % 8}.{1 + time.monotonic_ns() % 200}"


def bound(number: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect
    sock.bind((_source(number), 0))
    return sock


def socket_factory(number: int) -> Callable[[Any], socket.socket]:
    def make(url: Any) -> socket.socket:
        sock = bound(number)
        sock.setblocking(False)
        return sock

    return make


def shake_hands(requests: list[tuple[tuple[str, int], bytes]], greeting: bytes) -> list[socket.socket]:
    """Each request to its address; the sockets when all are answered and have had a message with ``greeting``. Plain
    sockets are the cheapest that Python has: a client with more to it would be what is measured. Raises LoadError."""
    poller, begun = select.epoll(), 0
    open_socks: dict[int, socket.socket] = {}
    answers: dict[int, bytes] = {}
    socks: list[socket.socket] = []
    while len(socks) < len(requests):
        while begun < len(requests) and len(open_socks) < AT_ONCE:
            sock = bound(begun)
            address, request = requests[begun]
            sock.connect(address)
            sock.send(request)
            poller.register(sock, select.EPOLLIN)
            open_socks[sock.fileno()] = sock
            begun += 1
        ready = poller.poll(WAIT_S)
        if not ready:
            raise LoadError(f"{len(open_socks)} handshakes were not answered")
        for fd, _ in ready:
            answer = answers.get(fd, b"") + open_socks[fd].recv(4096)
            head, found, rest = answer.partition(b"\r\n\r\n")
            if not found or (greeting and greeting not in rest):
                if answer == answers.get(fd, b""):
                    raise LoadError(f"a handshake ended with {answer[:200]!r}")
                answers[fd] = answer
                continue
            if not head.startswith(b"HTTP/1.1 101") or ACCEPT not in head:
                raise LoadError(f"a handshake was answered with {head[:200]!r}")
            poller.unregister(fd)
            answers.pop(fd, None)
            socks.append(open_socks.pop(fd))
    poller.close()
    return socks
