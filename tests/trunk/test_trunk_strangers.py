"""What a node makes of those who open a trunk and don't keep to it."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service_fixture import running
from tests.support import Logs, eventually, free_port
from tests.trunk.worker import HANDSHAKE, Worker, linked
from tidegate.app import App
from tidegate.core.model import Position
from tidegate.tasks import Tasks
from tidegate.trunk import codec
from tidegate.trunk import server as server_module
from tidegate.trunk.codec import Kind
from tidegate.trunk.server import proof

KEY = "the-key-of-these-tests"
HELLO = codec.frame(Kind.HELLO, 0, codec.fields(lowest=1, highest=1, worker="w1"))


def opening(number: int, client: str) -> bytes:
    return codec.frame(Kind.OPEN, number, HANDSHAKE.format(query=f"client={client}", headers="").encode())


def gone(number: int) -> bytes:
    return codec.frame(Kind.GONE, number, struct.pack("<HB", 1006, False))


@contextlib.asynccontextmanager
async def raw(path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ends(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await asyncio.wait_for(reader.read(65536), 5):
            pass


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"proof": ""},
        {"proof": "0" * 40},
        {"proof": "é" * 20},
        {"proof": KEY},
        {"proof": proof(KEY, "0" * 32, "w1")},  # of a link that was before this one
    ],
)
async def test_who_does_not_know_the_key_has_no_trunk(lines: dict[str, str], expected_logs: Logs) -> None:
    expected_logs.expect("trunk.refused")
    port = free_port()
    async with running(TRUNK__PORT=port, TRUNK__KEY=KEY) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        hello = codec.fields(lowest=1, highest=1, worker="w1", **lines)
        # What comes behind it in the same breath counts for nothing either.
        good = codec.frame(Kind.HELLO, 0, codec.fields(lowest=1, highest=1, worker="w2"))
        writer.write(codec.frame(Kind.HELLO, 0, hello) + good + opening(1, "alice"))
        await ends(reader)
        writer.close()
        assert len(expected_logs.seen("trunk.refused")) == 1
        assert not app.metrics.open_connections


@pytest.mark.parametrize("from_file", [False, True])
async def test_who_knows_the_key_has_one(expected_logs: Logs, tmp_path: Path, from_file: bool) -> None:
    port = free_port()
    (tmp_path / "key").write_text(f"{KEY}\n")
    key: dict[str, Any] = {"TRUNK__KEY_FILE": str(tmp_path / "key")} if from_file else {"TRUNK__KEY": KEY}
    async with running(TRUNK__PORT=port, **key):
        _, worker = await asyncio.get_running_loop().create_connection(lambda: Worker(KEY), "127.0.0.1", port)
        await eventually(lambda: worker.up)
        worker.transport.abort()


async def test_a_hello_that_never_ends_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: Logs
) -> None:
    expected_logs.expect("trunk.silent")
    monkeypatch.setattr(server_module, "SILENT_S", 0.3)
    monkeypatch.setattr(server_module, "PULSE_S", 0.1)
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path), raw(path) as (reader, writer):

        async def drip() -> None:
            for byte in codec.frame(Kind.HELLO, 0, b"x" * 1000):
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

        tasks = Tasks()
        tasks.spawn(drip(), "drip")
        try:
            await ends(reader)
        finally:
            await tasks.cancel_all()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\xff" * 64,
        codec.frame(Kind.OPEN, 1, b""),
        struct.pack("<IBI", 0, 1, 0),
        struct.pack("<IBI", codec.MOST_BYTES + 1, 1, 0),
        struct.pack("<IBI", 600_000, 1, 0) + b"x" * 5000,  # a HELLO of more than it may have
        HELLO + struct.pack("<IBI", 0xFFFFFFFF, 7, 1),
        HELLO + opening(1, "alice") + codec.frame(Kind.WRITTEN, 1, b"123"),
        HELLO + opening(1, "alice") + codec.frame(Kind.GONE, 1, b""),
        HELLO + opening(2, "alice") + opening(2, "bob"),  # a session's number again
        HELLO + opening(2, "alice") + opening(1, "bob"),
        HELLO + opening(0, "alice"),
        HELLO + opening(2, "alice") + gone(2) + opening(2, "bob"),
    ],
)
async def test_what_is_no_trunk_ends_it_and_nothing_else(data: bytes, tmp_path: Path, expected_logs: Logs) -> None:
    expected_logs.expect("trunk.broken")
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, linked(path) as worker, raw(path) as (reader, writer):
        client, _ = await worker.welcome("client=carol&groups=news")
        writer.write(data)
        await ends(reader)
        await eventually(lambda: app.metrics.open_connections == 1)
        client.says("ping")
        assert await worker.next_event(client) == "pong"
        assert list(app.hub.clients) == ["carol"]


async def quiet(app: App) -> None:
    """Whatever the node has begun is over."""
    await asyncio.sleep(0)
    await eventually(lambda: not [task for task in app.tasks._running if task.get_name() in ("handshake", "resume")])


async def test_a_client_that_goes_while_its_handshake_waits_is_no_ghost(tmp_path: Path) -> None:
    """The node was held up: it reads both at once."""
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, raw(path) as (_reader, writer):
        writer.write(HELLO + b"".join(opening(n, f"c{n}") + gone(n) for n in range(1, 4)))
        writer.write(opening(4, "alice"))
        await eventually(lambda: "alice" in app.hub.clients)
        await quiet(app)
        assert list(app.hub.clients) == ["alice"]
        assert app.metrics.open_connections == 1


async def test_a_trunk_that_goes_while_handshakes_wait_leaves_no_ghosts(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app:
        async with raw(path) as (_reader, writer):
            writer.write(HELLO)
            await eventually(lambda: len(app._trunks.workers))
            writer.write(b"".join(opening(n, f"c{n}") for n in range(1, 4)))
        await eventually(lambda: not app._trunks.workers)
        await quiet(app)
        await eventually(lambda: not app.hub.clients)
        assert not app.metrics.open_connections


def resumption(connection: str, term: object, client: str = "alice", cursor: bytes | None = None) -> bytes:
    known = codec.fields(connection=connection, term=term, orders="0-0")
    streams = {f"client:{client}": Position("e", 1), "all": Position("e", 1)}
    head = HANDSHAKE.format(query=f"client={client}", headers="").encode()
    return codec.count(len(known)) + known + (codec.cursor(streams) if cursor is None else cursor) + head


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 40,
        resumption("n1-1", "x"),
        resumption("n1-1", "9" * 5000),
        resumption("n1-1", 1, cursor=b"\xff\xff"),
        resumption("n1-1", 1, client="a/b"),
    ],
)
async def test_a_resumption_that_cannot_be_is_answered(payload: bytes, tmp_path: Path, expected_logs: Logs) -> None:
    expected_logs.allow("resume.failed")
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, linked(path) as worker:
        client = worker.open("client=bob")
        await client.gets("welcome")
        worker._numbers += 1
        from tests.trunk.worker import LinkedClient

        made_up = worker.clients[worker._numbers] = LinkedClient(worker, worker._numbers)
        worker.send(Kind.RESUME, made_up.number, payload)
        await eventually(lambda: made_up.closed or made_up.answer)
        assert made_up.closed is None or made_up.closed[0] == 1012
        await quiet(app)
        assert list(app.hub.clients) == ["bob"]
        assert app.metrics.open_connections == 1


async def test_who_was_sent_more_than_a_count_holds_has_room(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, linked(path) as worker:
        client, _ = await worker.welcome("client=alice")
        (link,) = app._trunks._links
        transport = link.sessions[client.number]
        transport.sent += 2**32
        client.written()
        client.says("ping")
        assert await worker.next_event(client) == "pong"
        assert transport.size < 100


async def test_strangers_count_among_the_open_files(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path) as app, contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(raw(path))
        await eventually(lambda: app._trunks.links == 3)
        app.files = app.files._replace(sockets=3)
        assert not app._has_files()
