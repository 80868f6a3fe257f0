"""A gateway that does what a scenario says, and nothing by itself but answer pings: frame by frame, and nasty where it
is told to be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import struct
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support import eventually

PATH = "/ws-notifications/"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}


def decode_cursor(text: str) -> dict[str, list[Any]]:
    """A cursor's positions. Raises ValueError for one that a gateway would refuse."""
    if len(text) > 4096 or "=" in text:
        raise ValueError(f"no cursor: {len(text)} characters")
    positions = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(positions, dict):
        raise ValueError(f"no cursor: {positions}")
    return positions


class Connection:
    """One that has come: its request has been read, and nothing was answered yet.

    ``commands`` are those that came and were not taken, ``raw`` what each has behind ``"data":``, as it was sent;
    ``pings`` counts the JSON pings, ``texts`` holds what is no JSON. ``close_code`` is what the client closed it with,
    None where it did not; ``gone`` is set at its end of file."""

    def __init__(self, number: int, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.came_s = time.monotonic()
        first, *fields = head.decode("latin-1").strip().split("\r\n")
        self.target = first.split(" ")[1]
        self.headers = {
            name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        pairs = parse_qsl(urlsplit(self.target).query, keep_blank_values=True)
        self.query = dict(pairs)
        if len(pairs) != len(self.query):
            raise ValueError(f"a repeated key: {self.target}")
        self.positions = decode_cursor(self.query["cursor"]) if self.query.get("cursor", "last") != "last" else {}
        self.streams: dict[str, list[Any]] = dict(self.positions)  # that it has, as far as the gateway said so
        self.groups = [group for group in self.query.get("groups", "").split(",") if group]
        self.commands: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.texts: list[str] = []
        self.pings = 0
        self.answers_pings = True
        self.close_code: int | None = None
        self.gone = asyncio.Event()
        self.accepted = False
        self._reader = reader
        self._writer = writer
        self._ended = False

    @property
    def tokens(self) -> list[str]:
        """In all three places."""
        offered = [word.strip() for word in self.headers.get("sec-websocket-protocol", "").split(",")]
        found = [word.removeprefix("bearer.") for word in offered if word.startswith("bearer.")]
        if "authorization" in self.headers:
            found.append(self.headers["authorization"].removeprefix("Bearer "))
        if "token" in self.query:
            found.append(self.query["token"])
        return found

    def accept(self) -> None:
        """Answers 101."""
        self.accepted = True
        digest = hashlib.sha1(self.headers["sec-websocket-key"].encode() + _GUID, usedforsecurity=False).digest()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}",
        ]
        if "tidegate.v1" in self.headers.get("sec-websocket-protocol", ""):
            lines.append("Sec-WebSocket-Protocol: tidegate.v1")
        self._write("\r\n".join([*lines, "", ""]).encode())

    def refuse(self, status: int, code: str, retry_after: int | None) -> None:
        body = json.dumps({"error": {"code": code, "message": "said by the scenario"}}).encode()
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Refused')}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        if retry_after is not None:
            lines.append(f"Retry-After: {retry_after}")
        self._write("\r\n".join([*lines, "", ""]).encode() + body)
        self.end()

    def say(self, event: dict[str, Any]) -> None:
        self.say_text(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    def say_text(self, text: str) -> None:
        self._write(frame(TEXT, text.encode(), mask=None))

    def say_bytes(self, data: bytes) -> None:
        self._write(frame(BINARY, data, mask=None))

    def say_half(self, event: dict[str, Any]) -> None:
        """The first half of a frame."""
        whole = frame(TEXT, json.dumps(event).encode(), mask=None)
        self._write(whole[: len(whole) // 2])

    def ping(self) -> None:
        self._write(frame(PING, b"1", mask=None))

    def close(self, code: int | None, reason: str = "") -> None:
        """A close frame; the connection ends when it is answered."""
        self._ended = True
        self._write(frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode(), mask=None))

    def end(self) -> None:
        """FIN, whatever was said before."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def reset(self) -> None:
        """RST."""
        sock = self._writer.get_extra_info("socket")
        if sock is not None and not self._writer.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    async def serve(self) -> None:
        """Takes what the client sends, until it has ended."""
        try:
            while True:
                opcode, payload = await self._frame()
                if opcode == TEXT:
                    self._take(payload.decode())
                elif opcode == PING:
                    self._write(frame(PONG, payload, mask=None))
                elif opcode == CLOSE:
                    if not self._ended:
                        self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
                        self._write(frame(CLOSE, payload[:2], mask=None))
                    self.end()
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()

    def _take(self, text: str) -> None:
        try:
            command = json.loads(text)
        except ValueError:
            self.texts.append(text)
            return
        if command.get("type") == "ping":
            self.pings += 1
            if self.answers_pings:
                self.say({"type": "pong", "id": command["id"], "cursor": None})
        else:
            self.commands.append(command)
            self.raw.append(text.partition('"data":')[2])

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        assert second & 0x80, "a client must mask"
        assert first & 0x80, "a fragment"
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(await self._reader.readexactly(2 if length == 126 else 8), "big")
        mask = await self._reader.readexactly(4)
        payload = await self._reader.readexactly(length)
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        return first & 0x0F, (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


class Gateway:
    """``async with Gateway() as gateway``: clients find it at ``url``, and are in ``connections`` as they came."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.wrong: list[str] = []  # requests that no client should make
        self._port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}{PATH}"

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
        for connection in self.connections:
            connection.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self) -> None:
        """On the port that it had, if it had one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Who comes now is refused by the kernel; who is there stays."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            connection = Connection(len(self.connections) + 1, head, reader, writer)
            self.connections.append(connection)
            await connection.serve()
        except ValueError as exc:
            self.wrong.append(str(exc))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # it came and went, or all is over: Python 3.11 logs an error for a handler that ends cancelled
        finally:
            self._tasks.discard(task)
            writer.close()

    async def connection(self, number: int, within_s: float) -> Connection:
        """Returns when it has come."""
        await eventually(lambda: len(self.connections) >= number or self.wrong, within_s)
        assert not self.wrong, self.wrong
        return self.connections[number - 1]
