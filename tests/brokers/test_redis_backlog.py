"""What waits to be pushed through Redis has a most; what is beyond it is rejected, and what came before it is taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.brokers.contract import push
from tests.brokers.nodes import Node
from tests.brokers.server import RedisServer
from tests.brokers.test_redis_ingress import rejected
from tests.support import Logs, eventually
from tidegate.brokers.redis import backlog
from tidegate.brokers.redis.ingress import Ingress
from tidegate.core.model import Retention
from tidegate.core.push import PushLimits
from tidegate.metrics import Metrics


@pytest.fixture
def full(expected_logs: Logs) -> None:
    expected_logs.expect("ingress.full")


def fill(server: RedisServer, count: int, data: str = "", group: str = "a") -> None:
    pipeline = server.client.pipeline(transaction=False)
    for number in range(count):
        pipeline.xadd("tidegate:push", {"group": group, "data": f'"{number}{data}"'})
    pipeline.execute()


async def taken(node: Node, server: RedisServer) -> list[int]:
    """The numbers that were journalled, once nothing waits any more."""
    await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
    page = await node.broker.history("group:a", None, messages=10_000, size=10_000_000)
    return [int(message.data.strip(b'"x')) for message in page.messages]


async def test_the_newest_entries_beyond_the_most_are_rejected(full: None):
    with RedisServer() as server:
        fill(server, 2500)
        observed: list[tuple[str, str]] = []
        async with Node(
            server,
            "n1",
            ingress_entries=1000,
            retention=Retention(10_000, 3600),
            observe=lambda *what: observed.append(what),
        ) as node:
            assert await taken(node, server) == list(range(1000))
            assert len(rejected(server)) == 1500
            entry = rejected(server)[0]
            assert {**entry, "id": ""} == {
                "id": "",
                "address": "group:a",
                "size": "6",
                "reason": "backlog_full",
                "data": '"2499"',
            }
            assert observed.count(("group:a", "rejected")) == 1500
            assert node.broker.backlog._rejects["backlog_full",] == 1500
            assert (await push(node.broker, "group:b", b"1"))[0].offset == 1


async def test_those_that_are_rejected_are_counted_where_they_were_for(full: None):
    with RedisServer() as server:
        fill(server, 10)
        for fields in ("client alice", "all 1", "group b", "client ../x"):
            server.command("XADD", "tidegate:push", "*", *fields.split(), "data", "1")
        observed: list[tuple[str, str]] = []
        async with Node(server, "n1", ingress_entries=10, observe=lambda *what: observed.append(what)) as node:
            assert await taken(node, server) == list(range(10))
        rejects = [stream for stream, what in observed if what == "rejected"]
        assert sorted(rejects) == ["", "all", "client:alice", "group:b"]


async def test_bytes_are_bounded_too(full: None):
    with RedisServer() as server:
        fill(server, 3000, "x" * 900)
        async with Node(server, "n1", ingress_bytes=1 << 20, retention=Retention(10_000, 3600)) as node:
            numbers = await taken(node, server)
            assert 500 < len(numbers) < 1500
            assert numbers == list(range(len(numbers)))
            assert len(numbers) + len(rejected(server)) == 3000


async def test_what_waits_is_told_by_who_reads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backlog, "LOOK_S", 0.0)
    monkeypatch.setattr(Ingress, "_journal", nothing_goes_on)
    with RedisServer() as server:
        fill(server, 300)
        async with Node(server, "n1") as node, Node(server, "n2") as other:
            told = {}
            for each in (node, other):
                told[each.name] = Metrics()
                each.broker.register(told[each.name])
            await eventually(lambda: node.broker.backlog.entries + other.broker.backlog.entries)
            texts = [metrics.text() for metrics in told.values()]
            assert sorted(b"tidegate_ingress_entries 300.0" in text for text in texts) == [False, True]
            assert sorted(b"tidegate_ingress_bytes 0.0" in text for text in texts) == [False, True]
            assert sorted(b"tidegate_ingress_reading 1.0" in text for text in texts) == [False, True]
            reader = node if node.broker.backlog.entries else other
            await eventually(lambda: 0 < reader.broker.backlog.oldest_s < 60)


async def nothing_goes_on(ingress: Ingress, entries: list[Any]) -> tuple[list[Any], list[Any]]:
    await asyncio.sleep(0.01)
    return [], []


async def test_a_flood_of_entries_leaves_pushes_by_others_alone(full: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backlog, "LOOK_S", 0.0)
    with RedisServer() as server:
        async with Node(server, "n1", ingress_entries=1000) as node:
            await node.up()
            await node.broker.subscribe("group:mine")
            for number in range(5):
                fill(server, 1500, group="flood")
                await push(node.broker, "group:mine", b"%d" % number)
            await eventually(lambda: node.heard.data("group:mine") == [b"0", b"1", b"2", b"3", b"4"])
            await eventually(lambda: server.command("XLEN", "tidegate:push") <= 1000)


async def test_what_has_been_taken_is_not_rejected_as_well(expected_logs: Logs):
    """A few entries may be more than all may cost. Who reads has them already, and journals them."""
    expected_logs.allow("ingress.full")
    with RedisServer() as server:
        fill(server, 500, "x" * 30_000)
        limits = PushLimits(data_bytes=65536, json_depth=8)
        async with Node(server, "n1", ingress_bytes=1 << 20, retention=Retention(10_000, 3600), limits=limits) as node:
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            page = await node.broker.history("group:a", None, messages=10_000, size=100_000_000)
            numbers = [int(message.data.strip(b'"x')) for message in page.messages]
            refused = [int(entry["data"].strip('"x')) for entry in rejected(server)]
            assert sorted(numbers + refused) == list(range(500))
            assert numbers == list(range(len(numbers)))
