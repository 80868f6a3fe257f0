"""Readers that are slow and never pause: what kernels hold for them must not keep our pings from them.

Time is shortened by ``FASTER``: so are the timeouts, and the readers are faster by as much."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from tests.edges.edge import Settings, stand
from tests.peer import CLOSE, PING, PONG, frame
from tidegate.core.model import Position, encode_cursor

FASTER = 6
TIMEOUTS: Settings = {
    "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 30 / FASTER,
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 60 / FASTER,
    "HEARTBEAT__WRITE_TIMEOUT_S": 15 / FASTER,
}


class Reader:
    """A client that reads ``bytes_per_s`` and answers pings when it comes to them."""

    def __init__(self, sock: socket.socket, bytes_per_s: float) -> None:
        self._sock = sock  # read in small pieces: a transport's would let the kernel's buffer grow
        self._loop = asyncio.get_running_loop()
        self._bytes_per_s = bytes_per_s
        self._data = b""
        self.pings = 0
        self.close_code: int | None = None

    async def read(self, seconds: float) -> None:
        """Reads for so long, or to the end."""
        begun_s = time.monotonic()
        taken = 0
        while (now_s := time.monotonic()) < begun_s + seconds:
            due = int((now_s - begun_s) * self._bytes_per_s) - taken
            if due <= 0:
                await asyncio.sleep(0.005)  # the reader's own pace
                continue
            data = await self._loop.sock_recv(self._sock, min(due, 16384))
            if not data:
                return
            taken += len(data)
            self._data += data
            for opcode, payload in self._frames():
                if opcode == PING:
                    self.pings += 1
                    await self._loop.sock_sendall(self._sock, frame(PONG, payload))
                elif opcode == CLOSE:
                    self.close_code = int.from_bytes(payload[:2], "big")

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        data = self._data
        while len(data) >= 2:
            start = {126: 4, 127: 10}.get(data[1], 2)
            length = data[1] if start == 2 else int.from_bytes(data[2:start], "big")
            if len(data) < start + length:
                break
            yield data[0] & 0x0F, data[start : start + length]
            data = data[start + length :]
        self._data = data


async def shake_hands(sock: socket.socket, port: int, cursor: str) -> None:
    loop = asyncio.get_running_loop()
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEA==",
    }
    lines = [f"GET /ws-notifications/?client=alice&cursor={cursor} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, "\r\n".join([*lines, "", ""]).encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += await loop.sock_recv(sock, 1)
    assert b" 101 " in answer


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["direct", "plain", "njs", "openresty"])
async def test_sixty_kilobytes_a_second_without_a_pause_are_enough_to_stay(variant: str) -> None:
    bytes_per_s = 60_000 * FASTER
    seconds = 1.5 * 60 / FASTER
    async with stand(variant, **TIMEOUTS) as s:
        pushes = [{"client": "alice", "data": "x" * 16_000}] * 50
        for _ in range(20):  # 16 MB: more than is read and all kernels hold
            answer = await s.node.call("POST", "/api/push", {"pushes": pushes})
        position = Position(answer.json["results"][0]["epoch"], 0)
        cursor = encode_cursor({"client:alice": position})
        assert cursor is not None
        with socket.socket() as sock:
            sock.setblocking(False)
            await shake_hands(sock, s.port, cursor)
            reader = Reader(sock, bytes_per_s)
            await reader.read(seconds)
            assert not s.node.process.logged("connection.closed")
        assert reader.close_code is None
        assert reader.pings >= 2
        metrics = (await s.node.call("GET", "/metrics")).body.decode()
        assert "tidegate_heartbeat_seconds_count 0.0" not in metrics, "no pong came in time to be one"
