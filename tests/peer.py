"""A WebSocket client that does what a test says, frame by frame, and nothing by itself but read."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from tests.support import scaled

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Refusal(Exception):
    """The handshake was answered with something else than 101."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        super().__init__(f"{status} {body!r}")

    @property
    def code(self) -> str:
        code: str = json.loads(self.body)["error"]["code"]
        return code


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    mask: bytes | None = b"\x01\x02\x03\x04",
    rsv: int = 0,
    form: int = 0,
) -> bytes:
    """One frame; ``mask`` None sends it unmasked, as a client must not; ``form`` (126, 127) is how the length is
    written at least."""
    first = (0x80 if fin else 0) | rsv | opcode
    bit = 0 if mask is None else 0x80
    length = len(payload)
    if length < 126 and not form:
        head = struct.pack("!BB", first, bit | length)
    elif length < 65536 and form != 127:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    if mask is None:
        return head + payload
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if length < 4096 else _mask(payload, mask)
    return head + mask + masked


def _mask(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


class Peer:
    """``async with Peer(port, client="alice") as alice``; ``query`` is the handshake's, ``headers`` are added. In place
    of a port of 127.0.0.1 there may be the path of a Unix socket.

    Pings are answered only while ``pong`` is True. ``close_code`` is set when a close frame came, ``gone`` at end of
    file.
    """

    def __init__(
        self,
        port: int | str,
        *,
        path: str = "/ws-notifications/",
        headers: dict[str, str] | None = None,
        pong: bool = True,
        rcvbuf: int | None = None,
        raw_query: str | None = None,
        answer_close: bool = True,
        **query: str,
    ) -> None:
        self.port = port
        self.path = path
        self.headers = headers or {}
        self.query = urlencode(query) if raw_query is None else raw_query
        self.pong = pong
        self.rcvbuf = rcvbuf
        self.answer_close = answer_close
        self.answer_headers: dict[str, str] = {}
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.gone = asyncio.Event()
        self.seen: list[dict[str, Any]] = []  # every event ever taken
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.reading = asyncio.Event()
        self.reading.set()

    async def __aenter__(self) -> Peer:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cut()

    async def connect(self) -> None:
        """Raises Refusal."""
        import socket

        over_unix = isinstance(self.port, str)
        address: Any = self.port if over_unix else ("127.0.0.1", self.port)
        sock = socket.socket(socket.AF_UNIX if over_unix else socket.AF_INET)
        if self.rcvbuf is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.rcvbuf)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        limit = self.rcvbuf or 2**16
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=limit)
        headers = {
            "Host": "localhost" if over_unix else f"127.0.0.1:{self.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **self.headers,
        }
        target = self.path + ("?" + self.query if self.query else "")
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        try:
            head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), scaled(10))).decode("latin-1")
        except BaseException:
            self.writer.transport.abort()
            raise
        status_line, *fields = head.strip().split("\r\n")
        answered = {
            name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        self.answer_headers = answered
        if not status_line.startswith("HTTP/1.1 101"):
            body = await self.reader.readexactly(int(answered.get("content-length", "0")))
            self.writer.close()
            raise Refusal(int(status_line.split()[1]), answered, body)
        self._task = asyncio.create_task(self._read())  # noqa: TID251

    async def _read(self) -> None:
        try:
            while True:
                await self.reading.wait()
                opcode, payload = await self._frame()
                if opcode == PING:
                    self.pings.append(payload)
                    if self.pong:
                        self.writer.write(frame(PONG, payload))
                elif opcode == PONG:
                    self.pongs.append(payload)
                elif opcode == CLOSE:
                    self.close_code = int.from_bytes(payload[:2], "big") if payload else 1005
                    self.close_reason = payload[2:].decode()
                    if self.answer_close:
                        self.writer.write(frame(CLOSE, payload[:2]))
                else:
                    self._queue.put_nowait((opcode, payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            self._queue.put_nowait(None)

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        assert not second & 0x80, "a server must not mask"
        assert first & 0x80, "the service does not fragment"
        length = second
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    # Sending

    def send(self, **command: Any) -> None:
        self.send_text(json.dumps(command, ensure_ascii=False).encode())

    def send_text(self, payload: bytes | str) -> None:
        self.send_raw(frame(TEXT, payload.encode() if isinstance(payload, str) else payload))

    def send_raw(self, data: bytes) -> None:
        self.writer.write(data)

    def close(self, code: int = 1000) -> None:
        self.send_raw(frame(CLOSE, code.to_bytes(2, "big")))

    async def cut(self) -> None:
        """The connection breaks without a close frame."""
        self.writer.transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # Receiving

    async def raw(self, timeout_s: float = 5) -> bytes:
        """The next text message. Raises AssertionError if the connection ends or nothing comes."""
        try:
            item = await asyncio.wait_for(self._queue.get(), scaled(timeout_s))
        except TimeoutError:
            raise AssertionError(f"nothing came; seen so far: {self.seen[-5:]}") from None
        assert item is not None, f"closed with {self.close_code} {self.close_reason}; seen so far: {self.seen[-5:]}"
        assert item[0] == TEXT
        return item[1]

    async def event(self, timeout_s: float = 5) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.raw(timeout_s))
        self.seen.append(event)
        return event

    async def events(self, count: int) -> list[dict[str, Any]]:
        return [await self.event() for _ in range(count)]

    async def until(self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float = 5) -> dict[str, Any]:
        """The next event that is ``wanted``; those before it are in ``seen``."""
        while True:
            event = await self.event(timeout_s)
            if wanted(event):
                return event

    async def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and gives its answer; what comes before it is in ``seen``."""
        self.send(**command)
        return await self.until(lambda event: event.get("id") == command["id"])

    async def ended(self, timeout_s: float = 5) -> int | None:
        """The close code with which it ended, None for a cut."""
        await asyncio.wait_for(self.gone.wait(), scaled(timeout_s))
        return self.close_code

    def pending(self) -> int:
        return self._queue.qsize()
