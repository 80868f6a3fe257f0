"""Slow clients on a trunk: the edge says SLOW, and the node sends what is newest when the edge has room for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service_fixture import running
from tests.support import eventually
from tests.trunk.worker import LinkedClient, Worker, linked
from tidegate.app import App
from tidegate.core.frames import PONG
from tidegate.core.model import Publication
from tidegate.core.protocol import Leave
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind

GROUPS = {"prices": {"slow": "latest"}, "log": {"slow": "replay"}}


@contextlib.asynccontextmanager
async def client_of(tmp_path: Path, group: str) -> AsyncIterator[tuple[App, Worker, LinkedClient]]:
    """A client in the group, welcomed, of which the edge has written everything."""
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path, GROUPS=GROUPS) as app, linked(path) as worker:
        client, _ = await worker.welcome(f"client=alice&groups={group}")
        await eventually(lambda: client.welcomed)
        client.written()
        yield app, worker, client


async def push(app: App, group: str, *words: str | None) -> None:
    await app.gateway.push([Publication(f"group:{group}", b"1", conflate=word) for word in words])


async def says_slow(worker: Worker, client: LinkedClient) -> None:
    """As an edge on which too much waits for the client."""
    worker.send(Kind.SLOW, client.number)
    await eventually(lambda: client.tracked)
    await eventually(lambda: client.data.endswith(bytes((0x80 | PONG, 0))))


def come(client: LinkedClient) -> list[Any]:
    return [event for event in client.take() if event != (PONG, b"")]


@pytest.mark.parametrize(
    ("group", "told"),
    [("prices", [("gap", 3), ("message", 4), ("message", 5)]), ("log", [("message", n) for n in range(3, 6)])],
)
async def test_nothing_is_read_for_a_slow_client_before_what_waits_for_it_is_written(
    tmp_path: Path, group: str, told: list[tuple[str, int]]
) -> None:
    async with client_of(tmp_path, group) as (app, worker, client):
        await push(app, group, "a", "b")
        await says_slow(worker, client)
        assert [event["offset"] for event in come(client)] == [1, 2]
        await push(app, group, "a", "b", "a")
        (session,) = app.hub.of_client("alice")
        assert not session.wire.has_room
        assert come(client) == [], "its edge has more than it can send"
        client.written()
        await eventually(lambda: not client.tracked)
        events = come(client)
        assert [(event["type"], event.get("to", event.get("offset"))) for event in events] == told
        await push(app, group, "c")
        await eventually(lambda: client.data)
        assert [event["offset"] for event in come(client)] == [6]


async def test_one_that_is_slow_again_and_again_is_never_closed(tmp_path: Path) -> None:
    async with client_of(tmp_path, "prices") as (app, worker, client):
        for _ in range(20):
            await says_slow(worker, client)
            await push(app, "prices", "a", "a")
            client.written()
            await eventually(lambda: not client.tracked)
        assert client.closed is None
        offsets = [event["offset"] for event in come(client) if event["type"] == "message"]
        assert offsets == [*range(2, 41, 2)]


async def test_who_leaves_while_it_is_slow_may_join_again_with_its_position(tmp_path: Path) -> None:
    async with client_of(tmp_path, "prices") as (app, worker, client):
        await push(app, "prices", "a")
        await says_slow(worker, client)
        epoch = app.hub.audiences["all"].position.epoch
        client.says({"type": "leave", "id": 1, "group": "prices"})
        client.says({"type": "join", "id": 2, "group": "prices", "epoch": epoch, "offset": 0})
        await eventually(lambda: client.done == 2)  # though the edge tells of no more, as nothing is tracked
        events = come(client)
        assert [event["type"] for event in events] == ["message", "reply", "reply", "message"]
        assert events[-1]["offset"] == 1


async def test_what_is_taken_from_a_client_whose_edge_writes_nothing_is_taken_at_once(tmp_path: Path) -> None:
    async with client_of(tmp_path, "log") as (app, _, client):
        (session,) = app.hub.of_client("alice")
        await app.gateway.push([Publication("group:log", b'"%s"' % (b"x" * 60_000)) for _ in range(4)])
        for number in (1, 2):
            client.says({"type": "history", "id": number, "group": "log"})
        await eventually(lambda: client.done == 1 and app.gateway.waiting(session) == 0)  # the other waits for room
        await app.gateway.remove_member("log", "alice")
        await push(app, "log", "a")
        await eventually(lambda: len(client.live) == 2)  # its own, and all
        client.written()
        await eventually(lambda: client.done == 2)
        events = come(client)
        assert [event["type"] for event in events] == [*["message"] * 4, "reply", "left", "error"]


async def test_who_sends_much_and_leaves_what_it_was_slow_for_is_read_again(tmp_path: Path) -> None:
    """Its edge does not tell that the pong is written, once no stream is tracked any more: that is too little."""
    async with client_of(tmp_path, "log") as (app, worker, client):
        for number in range(4000):
            client.says({"type": "ping", "id": number})
        await eventually(lambda: not client.reading)
        await says_slow(worker, client)
        worker.send(Kind.WRITTEN, client.number, codec.count(client.sent - 2))  # all but the pong
        (session,) = app.hub.of_client("alice")
        await eventually(lambda: session.wire.size == 2)
        assert not client.reading, "what its streams said still waits"
        app.gateway.submit(session, Leave("bye", "log"))
        await eventually(lambda: not client.tracked)
        await eventually(lambda: client.reading)
        assert session.wire.has_room
