"""The asyncio client and a real gateway in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.brokers.contract_words import SPAN
from tests.callee import answering, serving
from tests.service_fixture import running
from tests.support import eventually
from tidegate.app import App
from tidegate.core.model import Position as At
from tidegate.core.model import Publication
from tidegate_client import Client, CommandRefused, Message


def url_of(app: App) -> str:
    return f"ws://127.0.0.1:{app.public_port}/ws-notifications/"


async def push(app: App, stream: str, data: Any) -> At:
    (position,) = await app.gateway.push([Publication(stream, json.dumps(data).encode())])
    assert isinstance(position, At), position
    return position


async def test_messages_of_all_three_kinds_come_and_what_was_missed_comes_later() -> None:
    async with running() as app, Client(url_of(app), client="alice", backoff_s=(0.01, 0.05)) as client:
        told: dict[str, list[Any]] = {"direct": [], "all": [], "news": []}
        client.direct(lambda message: told["direct"].append(message.data))
        client.all(lambda message: told["all"].append(message.data))
        client.group("news", lambda message: told["news"].append((message.data, message.missed)))
        await client.ready()
        for stream in ("client:alice", "all", "group:news"):
            await push(app, stream, 1)
        await eventually(lambda: told == {"direct": [1], "all": [1], "news": [(1, False)]})
        await client.disconnect()
        await push(app, "group:news", 2)
        client.connect()
        await eventually(lambda: told["news"] == [(1, False), (2, True)])


async def test_a_publish_is_heard_and_history_and_presence_are_read() -> None:
    groups = {"chat": {"publish": "members", "presence": "members"}}
    async with running(GROUPS=groups) as app, Client(url_of(app), client="alice") as client:
        chat = client.group("chat")
        await client.ready()
        at = await chat.publish({"text": "hi"})
        message = await anext(chat)
        assert isinstance(message, Message)
        assert (message.offset, message.data, message.client) == (at.offset, {"text": "hi"}, "alice")
        assert [past.data for past in (await chat.history()).messages] == [{"text": "hi"}]
        assert (await chat.presence()).clients == ["alice"]


async def test_spans_go_with_a_call_and_a_publish() -> None:
    groups = {"chat": {"publish": "members"}}
    async with (
        serving(answering(b"1")) as application,
        running(GROUPS=groups, CALLS__URL=application.url) as app,
        Client(url_of(app), client="alice") as client,
    ):
        chat = client.group("chat")
        await client.ready()
        assert (await client.call("echo", 1, traceparent=SPAN)).data == 1
        assert application.requests[0].headers["traceparent"] == SPAN
        at = await chat.publish(1, traceparent=SPAN)
        kept = await app.broker.entry("group:chat", At(at.epoch, at.offset))
        assert kept is not None
        assert kept.traceparent == SPAN
        for wrong in (client.call("echo", 1, traceparent="00-1"), chat.publish(2, traceparent=SPAN.upper())):
            with pytest.raises(CommandRefused) as refused:
                await wrong
            assert refused.value.code == "bad_request"
    assert len(application.requests) == 1


async def test_a_node_that_restarts_is_a_gap_and_no_more() -> None:
    told: list[Any] = []
    async with running(SERVER__DRAIN_S=0) as app:
        client = Client(url_of(app), client="alice", backoff_s=(0.01, 0.05))
        port = app.public_port
        client.group("news", lambda message: told.append(message.data), on_gap=lambda gap: told.append(gap.reason))
        client.connect()
        await client.ready()
        await push(app, "group:news", 1)
        await eventually(lambda: told == [1])
    async with running(SERVER__PORT=port, SERVER__DRAIN_S=0) as app:
        client.wake()
        await client.ready()
        await push(app, "group:news", 2)
        await eventually(lambda: told[-1] == 2)
        assert told == [1, "reset", 2]
        await client.close()


class Table:
    """Rows that writers change and push at random, each its own: committed first, then pushed. ``snapshot`` is what a
    server gives to a page: the position that it read, and then the data; ``stale`` keeps an old one for a while, as a
    cache does."""

    def __init__(self, app: App, chance: random.Random) -> None:
        self.rows: dict[str, int] = {}
        self._app, self._chance = app, chance
        self._kept: dict[str, Any] | None = None

    async def write(self, writer: int, times: int) -> None:
        for _ in range(times):
            row, value = f"{writer}-{self._chance.randrange(5)}", self._chance.randrange(1_000_000)
            self.rows[row] = value
            await self._nap()
            await push(self._app, "group:rows", [row, value])
            await self._nap()

    async def snapshot(self, with_position: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if with_position:
            if self._kept is not None and self._chance.random() < 0.3:
                return self._kept
            page = await self._app.gateway.history("group:rows", None, 0)
            found["position"] = {"epoch": page.start.epoch, "offset": page.top}
        await self._nap()
        found["rows"] = dict(self.rows)
        await self._nap()
        if with_position and self._chance.random() < 0.3:
            self._kept = found
        return found

    async def _nap(self) -> None:
        await asyncio.sleep(self._chance.random() * 0.004 if self._chance.random() < 0.7 else 0)


class Page:
    """One load of a page: the rows that it shows."""

    def __init__(self, table: Table, client: Client, with_position: bool) -> None:
        self.rows: dict[str, int] | None = None
        self.loads = 0
        self._table, self._with_position = table, with_position
        self.subscription = client.group("rows", self._change, state=self._load, on_gap=lambda gap: None)

    async def _load(self) -> dict[str, Any]:
        self.loads += 1
        found = await self._table.snapshot(self._with_position)
        self.rows = dict(found["rows"])
        return found

    def _change(self, message: Message) -> None:
        assert self.rows is not None
        row, value = message.data
        self.rows[row] = value


@contextlib.asynccontextmanager
async def clients(app: App, count: int) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Client(url_of(app), client=f"c{n}", backoff_s=(0.005, 0.02), queue_limit=[4, 1000][n % 2])
            )
            for n in range(count)
        ]


async def loads(count: int, with_position: bool, seed: int) -> int:
    """Pages are loaded at random moments of rounds of writing, some are cut off meanwhile; after each round all of them
    show the data. Gives how often data was loaded."""
    chance = random.Random(seed)
    settings = {"GROUPS": {"rows": {"messages": 12}}}
    loaded = 0
    async with running(**settings) as app, clients(app, 10) as crowd:
        table = Table(app, chance)
        for _ in range(count // len(crowd)):
            pages: list[Page] = []

            async def visit(client: Client, pages: list[Page] = pages) -> None:
                await asyncio.sleep(chance.random() * 0.05)
                pages.append(Page(table, client, with_position))
                await asyncio.sleep(chance.random() * 0.02)
                if chance.random() < 0.3 and client._connection is not None and client._connection._socket is not None:
                    client._connection._socket.transport.abort()

            await asyncio.gather(*(table.write(n, 8) for n in range(3)), *(visit(client) for client in crowd))

            def are_equal(pages: list[Page] = pages) -> bool:
                return all(page.rows == table.rows for page in pages)

            await eventually(are_equal)
            for page in pages:
                loaded += page.loads
                page.subscription.leave()
    return loaded


@pytest.mark.parametrize("with_position", [False, True])
async def test_a_page_ends_equal_to_the_data(with_position: bool) -> None:
    assert await loads(60, with_position, seed=1) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("with_position", [False, True])
async def test_a_thousand_pages_end_equal_to_the_data(with_position: bool) -> None:
    assert await loads(1000, with_position, seed=2) >= 1000
