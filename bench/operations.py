"""The hot operations on fixed inputs, for callgrind to count their instructions: ``guard`` runs this under valgrind.

A node with 100 clients lives in this process. What is not the operation itself (a client's own work, draining its
socket) is outside of what is counted; the kernel's work is never in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import gc
import socket
import sys
import time
from collections.abc import Awaitable, Callable

import jwt
import uvloop

from bench.load.publisher import post
from bench.load.system import built
from tidegate import app, log
from tidegate.app import App
from tidegate.brokers.memory.broker import MemoryBroker
from tidegate.config import load as config
from tidegate.core import frames, protocol
from tidegate.core.model import Message, Publication, group_stream
from tidegate.tornado_seam import mask
from tidegate.websocket import lag

CLIENTS = 100
GROUP = "bench"
KEY = "a secret of the benchmark, which is not one"
TURNS_MOST = 1000

_SETTINGS = {
    "TIDEGATE_SERVER__PORT": "0",
    "TIDEGATE_INTERNAL__PORT": "0",
    "TIDEGATE_AUTH__MODE": "jwt",
    "TIDEGATE_AUTH__KEY": KEY,
    "TIDEGATE_LOG__LEVEL": "warning",
    # Nothing may fall due by itself while an operation is counted, and valgrind makes minutes of seconds.
    "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL": "1800",
    "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "3600",
    "TIDEGATE_HEARTBEAT__WRITE_TIMEOUT_S": "600",
    "TIDEGATE_EDGE__READ_TIMEOUT_S": "3601",
    "TIDEGATE_EDGE__SEND_TIMEOUT_S": "3601",
    "TIDEGATE_SERVER__HEADER_TIMEOUT_S": "300",
    "TIDEGATE_HISTORY__AGE_S": "31536000",
}
_SELDOM_S = 3600.0
_DATA = b'"xxxxxxxxxx"'


class Counter:
    """Counts the instructions of its ``with`` blocks; ``dump`` gives their sum a name and begins anew."""

    def __init__(self) -> None:
        self._marks = ctypes.CDLL(str(built("peers/marks.c")))

    def __enter__(self) -> None:
        self._marks.begin()

    def __exit__(self, *exc: object) -> None:
        self._marks.end()

    def dump(self, name: str) -> None:
        self._marks.dump(name.encode())


class World:
    """The node and its clients, whose ends of the sockets are here too."""

    def __init__(self) -> None:
        app.PROBE_S = MemoryBroker.sweep_s = lag.BEAT_S = _SELDOM_S
        self.app = App(config.load(None, _SETTINGS), "bench")
        self.clients: list[socket.socket] = []
        self.now_s = time.monotonic()  # the heartbeat's, which runs ahead

    async def start(self) -> None:
        await self.app.start()
        for number in range(CLIENTS):
            self.clients.append(self.knock(number))
        await self.turns(lambda: self.app.metrics.open_connections == CLIENTS)
        self.api = socket.create_connection(("127.0.0.1", self.app.internal_port))
        self.drain()

    async def turns(self, done: Callable[[], bool]) -> None:
        for _ in range(TURNS_MOST):
            if done():
                return
            await asyncio.sleep(0)
        raise AssertionError("it does not happen")

    def knock(self, number: int) -> socket.socket:
        """A client whose request for a handshake is under way."""
        token = jwt.encode({"sub": f"c{number}", "exp": 4_000_000_000, "groups": ["*"]}, KEY, algorithm="HS256")
        sock = socket.create_connection(("127.0.0.1", self.app.public_port))
        key = base64.b64encode(b"sixteen bytes...").decode()
        sock.send(
            f"GET /ws-notifications/?groups={GROUP} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        return sock

    def drain(self) -> int:
        """Reads what clients were sent; its bytes."""
        count = 0
        for sock in self.clients:
            with contextlib.suppress(BlockingIOError):
                while data := sock.recv(65536, socket.MSG_DONTWAIT):
                    count += len(data)
        return count


async def _fan_out(world: World, counter: Counter, repeats: int, batch: int = 1) -> int:
    publications = [Publication(group_stream(GROUP), _DATA, None)] * batch
    before = world.app.hub.deliveries
    for _ in range(repeats):
        with counter:
            await world.app.gateway.push(publications)
            await asyncio.sleep(0)  # the turn's end, in which it is written
        assert world.drain()
    return world.app.hub.deliveries - before


async def _batch(world: World, counter: Counter, repeats: int) -> int:
    return await _fan_out(world, counter, repeats, batch=20)


async def _ping(world: World, counter: Counter, repeats: int) -> int:
    text, key = b'{"type":"ping","id":12345}', b"\x01\x02\x03\x04"
    frame = bytes((0x81, 0x80 | len(text))) + key + mask(key, text)
    commands = world.app.metrics.commands
    for _ in range(repeats):
        for sock in world.clients:
            sock.send(frame)
        wanted = commands["ping",] + CLIENTS
        with counter:
            while commands["ping",] < wanted:  # noqa: ASYNC110 - the turns are what is counted
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert world.drain()
    return repeats * CLIENTS


async def _handshake(world: World, counter: Counter, repeats: int) -> int:
    metrics = world.app.metrics
    for _ in range(repeats):
        socks = [world.knock(number) for number in range(10)]
        with counter:
            while metrics.open_connections < CLIENTS + len(socks):  # noqa: ASYNC110
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        for sock in socks:
            assert sock.recv(100).startswith(b"HTTP/1.1 101")
            sock.close()
        await world.turns(lambda: metrics.open_connections == CLIENTS)
        await asyncio.sleep(0)
    return repeats * 10


async def _push(world: World, counter: Counter, repeats: int, batch: int = 0) -> int:
    request = post("/api/clients/c7/push", b'{"data":%b}' % _DATA)
    if batch:
        items = [b'{"client":"c%d","data":%b}' % (number, _DATA) for number in range(batch)]
        request = post("/api/push", b'{"pushes":[%b]}' % b",".join(items))
    before = world.app.hub.deliveries
    for _ in range(repeats):
        world.api.send(request)
        with counter:
            for _ in range(10):  # enough for the answer to be written
                await asyncio.sleep(0)
        assert b'"offset"' in world.api.recv(1 << 20, socket.MSG_DONTWAIT)
    world.drain()
    assert world.app.hub.deliveries == before + repeats * max(1, batch)
    return repeats * max(1, batch)


async def _push_batch(world: World, counter: Counter, repeats: int) -> int:
    return await _push(world, counter, repeats, batch=100)


async def _heartbeat(world: World, counter: Counter, repeats: int) -> int:
    peers = [session.wire.peer for session in world.app.hub.sessions()]  # type: ignore[attr-defined]
    for _ in range(repeats):
        world.now_s += world.app.heartbeat.interval_s
        for peer in peers:
            peer.wire.seen = world.now_s
        with counter:
            for peer in peers:
                peer.on_due(world.now_s)
            await asyncio.sleep(0)
        assert world.drain()
    return repeats * len(peers)


async def _encode(world: World, counter: Counter, repeats: int) -> int:
    messages = [
        Message(group_stream(GROUP), "12345678", 1000 + number, 1_792_612_345_678, _DATA, None) for number in range(100)
    ]
    for _ in range(repeats):
        with counter:
            for message in messages:
                frames.text(protocol.encode_message(message))
    return repeats * len(messages)


async def _decode(world: World, counter: Counter, repeats: int) -> int:
    texts = [b'{"type":"ping","id":%d}' % (1000 + number) for number in range(100)]
    for _ in range(repeats):
        with counter:
            for text in texts:
                protocol.decode_command(text, depth=64)
    return repeats * len(texts)


Operation = Callable[[World, Counter, int], Awaitable[int]]

OPERATIONS: dict[str, tuple[Operation, int]] = {
    "a delivery, of one message to 100": (_fan_out, 10),
    "a delivery, of 20 messages in a batch to 100": (_batch, 5),
    "a ping, parsed and answered": (_ping, 5),
    "a handshake, its token seen before": (_handshake, 3),
    "a push to one client by HTTP": (_push, 20),
    "a push in a batch of 100": (_push_batch, 3),
    "a heartbeat's ping": (_heartbeat, 5),
    "a message encoded": (_encode, 5),
    "a command decoded": (_decode, 5),
}


async def _run() -> None:
    log.setup("warning", "bench")
    world, counter = World(), Counter()
    await world.start()
    for operation, repeats in OPERATIONS.values():  # to warm up: caches, specialised bytecode, arenas
        await operation(world, _Nothing(), repeats)  # type: ignore[arg-type]
    gc.collect()
    gc.freeze()
    for name, (operation, repeats) in OPERATIONS.items():
        gc.collect()  # each begins with the collector's counters at zero, and pays for what it leaves behind
        count = await operation(world, counter, repeats)
        counter.dump(f"{name}={count}")
    sys.stdout.flush()
    world.app.gateway.drain()
    for sock in (*world.clients, world.api):
        sock.close()
    await world.app.stop()


class _Nothing(contextlib.nullcontext[None]):
    """In place of a counter."""


if __name__ == "__main__":
    uvloop.run(_run())
