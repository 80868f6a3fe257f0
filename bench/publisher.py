"""HTTP over a kept connection, and what makes a server send to all its clients."""

from __future__ import annotations

import asyncio
from typing import Any, cast

MESSAGE_BYTES = 120  # of a message to the group, its envelope included


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
    """Makes a server send to all: a control port of a peer, Nchan's publisher, or the service's HTTP API."""

    def __init__(self, how: dict[str, Any]) -> None:
        self._how = how
        self._http: Http | None = None
        self._control: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        if self._how["kind"] == "control":
            _, self._control = await asyncio.open_connection("127.0.0.1", self._how["port"])
        else:
            self._http = await Http.open(self._how["port"])

    async def publish(self, offset: int, batch: int) -> None:
        """``batch`` messages, of which ``offset`` is the first one's. Raises LoadError."""
        if self._control is not None:
            for number in range(offset, offset + batch):
                text = message(number)
                self._control.write(len(text).to_bytes(4, "big") + text)
            return
        assert self._http is not None
        if self._how["kind"] == "post":
            request = post(self._how["path"], message(offset))
        elif batch == 1:
            # With the envelope that the service adds, as long as the others' messages.
            request = post(f"/api/groups/{self._how['group']}/push", b'{"data":"%b"}' % self._data(offset))
        else:
            push = b'{"group":"%b","data":"%b"}' % (self._how["group"].encode(), self._data(offset))
            request = post("/api/push", b'{"pushes":[%b]}' % b",".join([push] * batch))
        status, body = await self._http.send(request)
        if status not in (200, 201, 202) or b'"error"' in body:
            raise LoadError(f"publishing: HTTP {status} {body[:200]!r}")

    def _data(self, offset: int) -> bytes:
        envelope = len(
            f'{{"type":"message","stream":"group:{self._how["group"]}","epoch":"12345678",'
            f'"offset":{offset},"time":1792612345678,"data":""}}'
        )
        return b"x" * max(1, MESSAGE_BYTES - envelope)

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._http is not None:
            self._http.close()
