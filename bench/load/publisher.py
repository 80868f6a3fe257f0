"""HTTP over a kept connection, and what makes a server send to all its clients."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

MESSAGE_BYTES = 120  # of a message to the group, its envelope included
CONFIRM_S = 30.0

_ENVELOPE = '{"type":"message","stream":"group:","epoch":"12345678","offset":,"time":1792612345678,"data":""}'


class LoadError(Exception):
    """The load could not be made, or what came back was wrong."""


def message(offset: int) -> bytes:
    """A message to the group as peers send it, which have no envelope of their own."""
    text = b'{"type":"message","offset":%d,"data":"' % offset
    return text + b"x" * (MESSAGE_BYTES - len(text) - 2) + b'"}'


class Http(asyncio.Protocol):
    """One kept connection; one request at a time."""

    def __init__(self) -> None:
        self._data = b""
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport

    @classmethod
    async def open(cls, port: int) -> Http:
        _, http = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return http

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LoadError("the server closed a kept HTTP connection"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found or self._waiter is None:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) >= length:
            self._data = b""
            self._waiter.set_result((int(head[9:12]), body))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """The answer: status and body."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        self._transport.close()


def post(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


class Publisher:
    """Makes servers send to all: a control port of a peer, Nchan's publisher, or the HTTP API of the service.
    Each of several is told. Waits for nothing but the answer."""

    def __init__(self, how: dict[str, Any]) -> None:
        self._how = how
        self._socks = [socket.create_connection(("127.0.0.1", port)) for port in how["ports"]]
        for sock in self._socks:
            sock.settimeout(CONFIRM_S)

    def publish(self, offset: int, batch: int) -> None:
        """``batch`` messages, of which ``offset`` is the first one's. ``confirm`` comes next."""
        request = self._request(offset, batch)
        for sock in self._socks:
            sock.sendall(request)

    def _request(self, offset: int, batch: int) -> bytes:
        match self._how["kind"]:
            case "control":
                texts = [message(number) for number in range(offset, offset + batch)]
                return b"".join(len(text).to_bytes(4, "big") + text for text in texts)
            case "post":
                return post(self._how["path"], message(offset))
        if self._how["kind"] == "groups":
            return self._to_each(offset)
        group = self._how["group"]
        data = b"x" * (MESSAGE_BYTES - len(_ENVELOPE) - len(group) - len(str(offset)))
        if batch == 1:
            return post(f"/api/groups/{group}/push", b'{"data":"%b"}' % data)
        push = b'{"group":"%b","data":"%b"}' % (group.encode(), data)
        return post("/api/push", b'{"pushes":[%b]}' % b",".join([push] * batch))

    def _to_each(self, offset: int) -> bytes:
        """The same to each of ``groups``, in one request."""
        size = MESSAGE_BYTES - len(_ENVELOPE) - len(str(offset))
        pushes = [
            b'{"group":"%b","data":"%b"}' % (each.encode(), b"x" * (size - len(each))) for each in self._how["groups"]
        ]
        return post("/api/push", b'{"pushes":[%b]}' % b",".join(pushes))

    def confirm(self) -> None:
        """Raises LoadError unless the server took it."""
        if self._how["kind"] == "control":
            return
        for sock in self._socks:
            answer = b""
            while not _is_whole(answer):
                part = sock.recv(65536)
                if not part:
                    raise LoadError("the server closed the publisher's connection")
                answer += part
            if not answer.startswith((b"HTTP/1.1 20", b"HTTP/1.0 20")) or b'"error"' in answer:
                raise LoadError(f"publishing: {answer[:300]!r}")


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    return bool(found) and len(body) >= (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
