from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPInputError

from tests.handshakes import handshake
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually, scaled
from tidegate.app import App
from tidegate.core.model import Publication
from tidegate.tornado_seam import HttpServer, parse

# Pieces of requests, good and bad, in any order.
PIECES = st.sampled_from(
    [
        *("Host: localhost", "host:localhost", "X-A:1", "X-A: 2", "x-a:\t3 \t", "X-Empty:", "X-Empty:   ", "X: a b\tc"),
        *(
            "X: \x00",
            "X: \x7f",
            "X: \xe9",
            "X : a",
            ": a",
            "no colon",
            " folded",
            "\tfolded",
            "X: a\rb",
            "Ü: 1",
            "X: a:b",
        ),
        *("\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n\r\n", ""),
    ]
)


def tornados(data: bytes) -> Any:
    any_connection: Any = None  # it asks nothing of its object
    return HTTP1Connection._parse_headers(any_connection, data)


def read(parser: Any, data: bytes) -> Any:
    try:
        line, headers = parser(data)
    except HTTPInputError:
        return "refused"
    return line, list(headers.get_all()), dict(headers)


@given(st.lists(PIECES, max_size=12), st.sampled_from(["\r\n\r\n", "\n\n", "\n\r\n"]))
@example(["GET / HTTP/1.1", "\r\n", "Host: localhost"], "\r\n\r\n")
@example(["\r\n", "GET / HTTP/1.1"], "\r\n\r\n")
def test_headers_are_read_as_tornado_reads_them(pieces: list[str], end: str):
    data = ("".join(pieces) + end).encode("latin1")
    assert read(parse, data) == read(tornados, data)


@given(st.binary(max_size=60))
@example(b"!\t")
def test_any_bytes_are_read_as_tornado_reads_them(middle: bytes):
    data = b"GET / HTTP/1.1\r\nHost: localhost\r\nX:" + middle + b"\r\n\r\n"
    assert read(parse, data) == read(tornados, data)


@pytest.mark.parametrize("door", ["public", "internal"])
async def test_who_waits_too_long_with_a_request_is_cut_and_the_others_are_not(
    door: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tidegate.app.INTERNAL_IDLE_S", scaled(1))
    async with running(SERVER__HEADER_TIMEOUT_S=scaled(1)) as app:
        port = app.public_port if door == "public" else app.internal_port
        server = next(server for server in app._servers if port in {sock.getsockname()[1] for sock in sockets(server)})
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        gone, gone_writer = await asyncio.open_connection("127.0.0.1", port)
        gone_writer.close()
        busy, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(8):  # each in time, all together longer than one may wait
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await busy.readuntil(b"\r\n\r\n")
            await asyncio.sleep(scaled(0.2))  # this is what is tested
        for reader, end in idle:
            assert await asyncio.wait_for(reader.read(), scaled(0.1)) == b""
            end.close()
        await asyncio.wait_for(ended(busy), scaled(3))
        assert not await gone.read()
        await eventually(lambda: not server._idle and server._idle._timer is None)
        writer.close()


async def test_an_answer_that_is_not_taken_in_time_ends_its_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does one that is taken byte by byte hold its memory for longer; who takes many is not meant."""
    most_s = scaled(0.4)
    monkeypatch.setattr("tidegate.app.INTERNAL_IDLE_S", most_s)
    async with running() as app:
        await app.gateway.push([Publication("all", b'"' + b"x" * 65_000 + b'"') for _ in range(120)])
        ask = b"GET /api/all/history?offset=0&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        ask = ask.replace(b"offset=0", b"epoch=%b&offset=0" % (await epoch(app)).encode())
        for drip in (0, 1):
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(("127.0.0.1", app.internal_port))
                slow.setblocking(False)
                slow.sendall(ask * 40)  # more than the kernel takes for it
                await eventually(lambda: any(stream.writing() for stream, _ in app._internal_server._unread._due_s))

                def taken(slow: socket.socket = slow, drip: int = drip) -> bool:
                    with contextlib.suppress(BlockingIOError, ConnectionError):
                        slow.recv(drip)
                    return not app._internal_server.connections

                await eventually(taken, scaled(5))
        reader, writer = await asyncio.open_connection("127.0.0.1", app.internal_port)
        began = time.monotonic()
        while time.monotonic() - began < 1.5 * most_s:
            writer.write(ask * 20)
            await asyncio.sleep(most_s / 10)
            for _ in range(20):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))
        writer.close()


@pytest.mark.parametrize(
    ("head", "drop"), [(b"GET /api/nodes HTTP/1.1\r\n", b"X"), (b"POST /api/all/push HTTP/1.1\r\n%b\r\n", b" ")]
)
async def test_who_drips_a_request_to_the_api_is_cut(head: bytes, drop: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its headers and its body each have a time for the whole of them, whatever still comes."""
    monkeypatch.setattr("tidegate.app.INTERNAL_IDLE_S", scaled(0.3))
    async with running(SERVER__HEADER_TIMEOUT_S=scaled(0.3)) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.internal_port)
        fields = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n"
        writer.write(head % fields if b"%b" in head else head)
        sent = 0

        async def drip() -> bool:
            nonlocal sent
            writer.write(drop)
            sent += 1
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(1000), 0.01)
            return not app._internal_server.connections

        await eventually(drip, 5)
        assert sent > 5
        writer.close()


async def epoch(app: App) -> str:
    return (await app.gateway.history("all", None, 1)).start.epoch


@pytest.mark.parametrize("door", ["public", "internal"])
async def test_headers_that_are_too_large_are_answered_logged_and_counted(
    door: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with running() as app:
        port = app.public_port if door == "public" else app.internal_port
        for ask in (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, b"x" * 3_000_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ask)  # all of it, though the answer comes before its end
            head, _, body = (await asyncio.wait_for(reader.read(), scaled(5))).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert json.loads(body)["error"]["code"] == "headers_too_large"
            writer.close()
        tally = app.metrics.handshakes if door == "public" else app.metrics.refusals
        assert tally["headers_too_large",] == 2
    assert caplog.messages.count("request.refused") == 2


async def test_what_an_edge_lets_pass_is_not_too_large() -> None:
    headers = {f"X-{n}": "x" * 11_000 for n in range(4)}
    async with running() as app, Peer(app.public_port, client="alice", headers=headers) as alice:
        assert (await alice.event())["type"] == "welcome"


async def test_who_asked_while_the_process_was_held_up_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.process.deadlines.LATE_S", 0.1)
    async with running(SERVER__HEADER_TIMEOUT_S=0.1) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        await eventually(lambda: any(server._idle for server in app._servers))
        writer.write(handshake())
        time.sleep(0.4)  # noqa: ASYNC251 - this is what is tested
        assert await asyncio.wait_for(reader.readuntil(b"\r\n"), scaled(5)) == b"HTTP/1.1 101 Switching Protocols\r\n"
        writer.close()
        await eventually(lambda: not app.metrics.open_connections)


def sockets(server: HttpServer) -> list[Any]:
    return list(server._sockets.values())


async def ended(reader: asyncio.StreamReader) -> bool:
    """Reads to the end."""
    while await reader.read(65536):
        pass
    return True
