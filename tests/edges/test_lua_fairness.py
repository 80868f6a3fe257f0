"""Clients that flood the OpenResty edge, and what a neighbour of theirs feels of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edges.edge import Edge, Stand, ask, stand
from tests.edges.flood import KINDS
from tests.edges.lua import Service, calling, running
from tests.peer import PONG, TEXT, Peer, frame
from tests.scripted import never, server
from tests.support import Process, eventually, scaled

PAIRS = 5
SECONDS = 1.5

MANY = 3000


async def _pauses(edge: Edge, sender: str) -> int:
    metrics = (await ask(edge.internal, "GET", "/metrics")).body.decode()
    found = re.search(rf'^tidegate_edge_pauses_total{{from="{sender}"}} (\d+)$', metrics, re.M)
    return int(found[1]) if found else 0


@contextlib.asynccontextmanager
async def _neighbours() -> AsyncIterator[tuple[Service, Peer, Service, Peer, Edge]]:
    """Two clients on one worker; each has a service of its own."""
    first, second = Service(), Service()
    async with server(first.handle) as one, server(second.handle) as other, running(one, other) as edge:
        async with Peer(edge.port, client="a") as flooder, Peer(edge.port, client="b") as neighbour:
            if not first.requests[0].startswith(b"GET /ws-notifications/?client=a "):
                first, second = second, first
            yield first, flooder, second, neighbour, edge


@pytest.mark.parametrize("sent", [frame(TEXT, b"ping"), frame(PONG), frame(TEXT, fin=False) + frame(0)])
async def test_a_client_that_sends_without_pause_leaves_turns_to_others(sent: bytes) -> None:
    async with _neighbours() as (service, flooder, _, neighbour, edge):
        (worker,) = edge.workers()
        os.kill(worker, signal.SIGSTOP)  # so that all of it is there at once
        flooder.send_raw(sent * MANY + frame(TEXT, b"over"))
        await flooder.writer.drain()
        await asyncio.sleep(0.05)
        neighbour.send_text("ping")
        await asyncio.sleep(0.05)
        os.kill(worker, signal.SIGCONT)
        assert await neighbour.raw() == b"pong"
        over = (TEXT, True, b"over")
        assert over not in service.received
        await eventually(lambda: over in service.received)
        await eventually(lambda: _pauses(edge, "client"))


async def test_a_service_that_sends_without_pause_leaves_turns_to_others() -> None:
    async with _neighbours() as (service, client, _, neighbour, edge):
        (worker,) = edge.workers()
        os.kill(worker, signal.SIGSTOP)
        service.writer.write(frame(TEXT, b"x", mask=None) * MANY)
        await service.writer.drain()
        await asyncio.sleep(0.05)
        neighbour.send_text("ping")
        await asyncio.sleep(0.05)
        os.kill(worker, signal.SIGCONT)
        assert await neighbour.raw() == b"pong"
        assert client.pending() < MANY
        await eventually(lambda: client.pending() == MANY)
        await eventually(lambda: _pauses(edge, "service"))


def _send(sock: socket.socket, head: bytes, without_end: bytes) -> None:
    """Faster than a loop of Python's, so that there is always something to read."""
    sock.settimeout(10)
    with contextlib.suppress(OSError):
        sock.sendall(head)
        while True:
            sock.sendall(without_end)


@pytest.mark.parametrize(
    ("head", "without_end"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: x\r\n"),
    ],
)
async def test_an_application_that_answers_without_end_holds_nobody_up(head: bytes, without_end: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        with writer.get_extra_info("socket").dup() as sock:
            sock.setblocking(True)
            await asyncio.to_thread(_send, sock, head, without_end * 50_000)

    async with calling(answer) as (_, peer):
        peer.send(type="call", id=1, method="echo", data=1)
        turns = 0
        peer.send_text("ping")
        while await peer.raw() == b"pong":
            turns += 1
            peer.send_text("ping")
        assert turns > 400  # in the second until the call is given up; without shares, 70


@contextlib.asynccontextmanager
async def flooding(s: Stand, kind: str, count: int) -> AsyncIterator[Process]:
    folder = Path(tempfile.mkdtemp(prefix="flood-", dir=s.folder))
    process = Process(sys.executable, "-m", "tests.edges.flood", str(s.port), kind, str(count), folder=folder)
    try:
        await process.line("flooding")
        yield process
        assert process.exit_code is None, process
    finally:
        process.kill()


async def p99_ms(peer: Peer, text: str = "ping") -> float:
    """Of the time from a text to its answer, one in 10 ms."""
    loop = asyncio.get_running_loop()
    times = []
    end_s = loop.time() + SECONDS
    while (begun_s := loop.time()) < end_s:
        peer.send_text(text)
        await peer.raw(30)
        times.append(loop.time() - begun_s)
        await asyncio.sleep(0.01)
    return sorted(times)[int(len(times) * 0.99)] * 1000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_ten_that_flood_leave_a_neighbour_in_time(kind: str) -> None:
    """Medians of five pairs, with and without in turn."""
    alone, beside = [], []
    async with server(never) as port:
        for _ in range(PAIRS):
            settings = {"CALLS__URL": f"http://127.0.0.1:{port}", "CALLS__TIMEOUT_S": 300}
            async with stand("openresty", **settings) as s, s.peer("neighbour") as peer:
                await peer.event()
                alone.append(await p99_ms(peer))
                async with flooding(s, kind, 10):
                    beside.append(await p99_ms(peer))
                    metrics = (await ask(s.edge.internal, "GET", "/metrics")).body.decode()
                assert 'tidegate_edge_pauses_total{from="client"}' in metrics
    print(f"{kind}: p99 alone {statistics.median(alone):.1f} ms, beside ten {statistics.median(beside):.1f} ms")
    assert statistics.median(beside) < scaled(50)
