"""The OpenResty edge before a service that only stands for one, and does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.edges.edge import Edge
from tests.peer import Peer, frame
from tests.scripted import Handler, server
from tests.support import eventually


class Service:
    """Stands for the service: ``received`` are the frames of its one session, as (opcode, fin, payload)."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.received: list[tuple[int, bool, bytes]] = []
        self.writer: asyncio.StreamWriter
        self.gone = asyncio.Event()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        self.writer = writer
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\nTidegate-Client: alice\r\nTidegate-Connection: n-1\r\n\r\n"
        )
        try:
            while True:
                first, second = await reader.readexactly(2)
                assert second & 0x80, "a client must mask"
                size = second & 0x7F
                if size > 125:
                    size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
                mask = await reader.readexactly(4)
                masked = await reader.readexactly(size)
                payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
                self.received.append((first & 0x0F, bool(first & 0x80), payload))
        finally:
            self.gone.set()

    def say(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.writer.write(frame(opcode, payload, fin=fin, mask=None))


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tidegate-lua-"))
    folder.chmod(0o755)  # workers of nginx run as another user where tests run as root
    return folder


async def _change(edge: Edge, lua: Mapping[str, float]) -> None:
    file = edge.folder / "conf.d/openresty_settings.inc"
    text = file.read_text()
    for name, value in lua.items():
        text, count = re.subn(rf'(\["{name}"\])=[0-9.]+', rf"\1={value}", text)
        assert count == 1, name
    file.write_text(text)
    await _take_over(edge)


async def rewrite(edge: Edge, files: Mapping[str, Mapping[str, str]]) -> None:
    """What was rendered: file -> what stands there once -> what stands there then. Returns when only a new worker is
    there."""
    for name, replaced in files.items():
        file = edge.folder / name
        text = file.read_text()
        for old, new in replaced.items():
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        file.write_text(text)
    await _take_over(edge)


async def _take_over(edge: Edge) -> None:
    await eventually(edge.workers)  # before, nginx may lose the signal
    await edge.reload()
    await eventually(lambda: len(edge.workers()) == 1)


@contextlib.asynccontextmanager
async def running(*nodes: int, lua: Mapping[str, float] | None = None, **settings: Any) -> AsyncIterator[Edge]:
    """``lua`` are settings of the code that config.yaml does not have, or not as small."""
    folder = _folder()
    upstreams = {"EDGE__UPSTREAMS": [f"127.0.0.1:{port}" for port in nodes]} if nodes else {}
    it = Edge("openresty", folder, {"EDGE__SHUTDOWN_TIMEOUT_S": 2, **upstreams, **settings})
    it.start()
    try:
        await it.ready()
        if lua:
            await _change(it, lua)
        yield it
        assert it.complaints() == []
    finally:
        it.process.kill()
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def session(**settings: Any) -> AsyncIterator[tuple[Service, Peer, Edge]]:
    service = Service()
    async with (
        server(service.handle) as port,
        running(port, **settings) as edge,
        Peer(edge.port, client="liar", headers={"X-Client-Id": "liar", "Cookie": "a=b"}, rcvbuf=16384) as peer,
    ):
        yield service, peer, edge


@contextlib.asynccontextmanager
async def calling(handler: Handler, **settings: Any) -> AsyncIterator[tuple[Service, Peer]]:
    async with (
        server(handler) as port,
        session(CALLS__URL=f"http://127.0.0.1:{port}/base", CALLS__TIMEOUT_S=1, **settings) as (service, peer, _),
    ):
        yield service, peer
