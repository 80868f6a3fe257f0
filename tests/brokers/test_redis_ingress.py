"""Push through Redis: each entry is journalled once, in the order of their ids, or rejected with its reason."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.brokers.contract import push
from tests.brokers.nodes import FAST, Node, shorter
from tests.brokers.server import RedisServer
from tests.support import Logs, eventually
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Position


def add(server: RedisServer, *fields: Any) -> str:
    return str(server.command("XADD", "tidegate:push", "*", *fields))


def rejected(server: RedisServer) -> list[dict[str, str]]:
    return [fields for _, fields in server.command("XRANGE", "tidegate:push:rejected", "-", "+")]


async def _heard(node: Node, count: int) -> None:
    await eventually(lambda: len(node.heard.events) == count)


async def _heard_last(node: Node, data: list[bytes]) -> None:
    await eventually(lambda: node.heard.data("group:a")[-len(data) :] == data)


async def test_an_entry_reaches_every_follower_on_every_node_once():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            for node in (one, two):
                for stream in ("group:news", "client:alice", "all"):
                    await node.broker.subscribe(stream)
            add(server, "group", "news", "data", '{"n":1}')
            add(server, "client", "alice", "data", '{"n": 2}')
            add(server, "all", "1", "data", "3", "key", "k")
            for node in (one, two):
                await _heard(node, 3)
                assert node.heard.data("group:news") == [b'{"n":1}']
                assert node.heard.data("client:alice") == [b'{"n": 2}']
                assert node.heard.data("all") == [b"3"]
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            assert server.command("XPENDING", "tidegate:push", "tidegate")["pending"] == 0


async def test_entries_that_came_while_no_node_ran_are_taken_in_order():
    with RedisServer() as server:
        pipeline = server.client.pipeline(transaction=False)
        for i in range(500):
            pipeline.xadd("tidegate:push", {"group": f"g{i % 7}", "data": i})
        pipeline.execute()
        async with Node(server, "n1") as node:
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            for group in range(7):
                page = await node.broker.history(f"group:g{group}", None, messages=1000, size=100_000)
                assert [int(message.data) for message in page.messages] == list(range(group, 500, 7))


async def test_an_entry_is_taken_at_once():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await node.up()
            await node.broker.subscribe("group:a")
            begun = asyncio.get_running_loop().time()
            for i in range(20):
                add(server, "group", "a", "data", str(i))
                await _heard(node, i + 1)
            assert asyncio.get_running_loop().time() - begun < 5


REJECTED: list[tuple[list[Any], str]] = [
    (["group", "a", "data", "{"], "bad JSON"),
    (["group", "a", "data", b"\xff"], "bad JSON"),
    (["group", "a", "data", "1" * 1001], "too_large"),
    (["group", "a", "data", "[" * 20 + "]" * 20], "too_deep"),
    (["group", "a", "client", "b", "data", "1"], "several addresses"),
    (["data", "1"], "no address"),
    (["group", "a"], "no data"),
    (["group", "", "data", "1"], "bad group"),
    (["client", "..", "data", "1"], "bad client"),
    (["all", "yes", "data", "1"], "all must be 1"),
    (["group", "a", "data", "1", "ttl", "5"], "unknown field"),
    (["group", "a", b"\xff", "1", "data", "1"], "unknown field"),
    (["group", "a", "data", "1", "data", "2"], "field given twice"),
    (["group", "a", "data", "1", "key", ""], "bad key"),
    (["group", "a", "data", "1", "key", "k" * 129], "bad key"),
    (["group", "a", "data", "1", "conflate", ""], "bad conflate"),
    (["group", "a", "data", "1", "conflate", b"\xff"], "bad conflate"),
    (["group", "a", "data", "1", "traceparent", "00-1-2-01"], "bad traceparent"),
    (["group", "a", "data", "1", "traceparent", b"\xff"], "bad traceparent"),
    ([str(i) for i in range(100)], "unknown field"),
]


async def test_what_cannot_be_taken_is_rejected_with_its_reason():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            ids = [add(server, *fields) for fields, _ in REJECTED]
            add(server, "group", "a", "data", "7")
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            found = rejected(server)
            assert [(entry["id"], entry["reason"]) for entry in found] == [
                (id, reason) for id, (_, reason) in zip(ids, REJECTED, strict=True)
            ]
            for entry, (fields, _) in zip(found, REJECTED, strict=True):
                data = fields[fields.index("data") + 1] if "data" in fields else ""
                assert int(entry["size"]) >= len(data)
                assert len(entry["data"]) <= 1024
                assert entry["address"] in ("group:a", "")
            told = await node.broker.rejected(1000)
            assert [(push.id, push.stream, push.reason) for push in reversed(told)] == [
                (entry["id"], entry["address"], entry["reason"]) for entry in found
            ]
            assert [push.reason for push in await node.broker.rejected(1)] == [REJECTED[-1][1]]
            assert await node.broker.rejected(0) == []
            page = await node.broker.history("group:a", None, messages=10, size=100)
            assert [message.data for message in page.messages] == [b"7"]


async def test_a_key_makes_an_entry_happen_once_and_another_body_is_rejected():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await push(node.broker, "group:a", b"1", key="k")
            add(server, "group", "a", "data", "1", "key", "k")
            add(server, "group", "a", "data", "2", "key", "k")
            add(server, "group", "a", "data", "3", "key", "l")
            add(server, "group", "a", "data", "3", "key", "l")
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            page = await node.broker.history("group:a", None, messages=10, size=100)
            assert [message.data for message in page.messages] == [b"1", b"3"]
            assert [entry["reason"] for entry in rejected(server)] == ["key_reused"]
            # What is remembered ends by itself.
            keys = server.command("KEYS", "tidegate:{group:a}:key:*")
            assert len(keys) == 2
            assert all(0 < server.command("PTTL", key) <= 300_000 for key in keys)
            assert server.command("KEYS", "tidegate:{group:a}:id:*") == []


async def test_entries_of_a_node_that_died_before_it_journalled_are_taken_over():
    with RedisServer() as server:
        async with Node(server, "n1") as one:
            await one.up()

            async def hang(*args: Any, **options: Any) -> Any:
                await asyncio.Event().wait()

            one.broker.streams.publish = hang  # type: ignore[method-assign]
            for i in range(5):
                add(server, "group", "a", "data", str(i))
            await eventually(lambda: server.command("XPENDING", "tidegate:push", "tidegate")["pending"] > 0)
            await one.die()
            async with Node(server, "n2") as two:
                await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
                page = await two.broker.history("group:a", None, messages=10, size=100)
                assert [message.data for message in page.messages] == [b"0", b"1", b"2", b"3", b"4"]


async def test_entries_of_a_node_that_died_after_it_journalled_are_journalled_once():
    with RedisServer() as server:
        async with Node(server, "n1") as one:
            await one.up()
            publish = one.broker.streams.publish

            async def publish_and_hang(*args: Any, **options: Any) -> Any:
                await publish(*args, **options)
                await asyncio.Event().wait()

            one.broker.streams.publish = publish_and_hang  # type: ignore[method-assign]
            add(server, "group", "a", "data", "1")
            add(server, "group", "a", "data", "2", "key", "k")
            await eventually(lambda: server.command("XLEN", one.broker.membership.keys.journal("group:a")) > 0)
            await one.die()
            async with Node(server, "n2") as two:
                await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
                page = await two.broker.history("group:a", None, messages=10, size=100)
                assert [message.data for message in page.messages] == [b"1", b"2"]


async def test_a_node_that_lost_its_lease_journals_nothing():
    with RedisServer() as server:
        async with Node(server, "n1") as one:
            await one.up()
            publish = one.broker.streams.publish
            go_on = asyncio.Event()
            answers: list[Any] = []

            async def publish_late(*args: Any, **options: Any) -> Any:
                await go_on.wait()
                answers.extend(await publish(*args, **options))
                return answers

            one.broker.streams.publish = publish_late  # type: ignore[method-assign]
            id = add(server, "group", "a", "data", "1")
            await eventually(lambda: server.command("XPENDING", "tidegate:push", "tidegate")["pending"] == 1)
            async with Node(server, "n2") as two:
                await eventually(lambda: server.command("XLEN", "tidegate:push") == 0, 10)
                server.command("DEL", two.broker.membership.keys.dedup_key("group:a", "id", id))
                go_on.set()
                await eventually(lambda: answers)
                assert not isinstance(answers[0], Position)
                page = await two.broker.history("group:a", None, messages=10, size=100)
                assert [message.data for message in page.messages] == [b"1"]


async def test_the_lease_of_a_node_that_has_died_is_nobodys():
    """However long it lasts: Redis' clock may have been set back."""
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await eventually(lambda: one.broker.ingress._token or two.broker.ingress._token)
            dead, other = (one, two) if one.broker.ingress._token else (two, one)
            await other.broker.subscribe("group:b")
            await dead.die()
            server.command("PEXPIRE", "tidegate:push:lease", 3_600_000)
            add(server, "group", "b", "data", "1")
            await _heard(other, 1)


async def test_one_node_at_a_time_reads():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await eventually(lambda: one.broker.ingress._token or two.broker.ingress._token)
            assert not (one.broker.ingress._token and two.broker.ingress._token)
            holder, other = (one, two) if one.broker.ingress._token else (two, one)
            await holder.broker.stop()
            await eventually(lambda: other.broker.ingress._token)


async def test_an_entry_that_fails_holds_up_its_stream_only_and_is_rejected_in_the_end(expected_logs: Logs):
    expected_logs.allow("redis.refused")
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await push(node.broker, "group:bad", b"0")
            server.command("SET", node.broker.membership.keys.journal("group:bad"), "spoilt")
            add(server, "group", "bad", "data", "1")
            add(server, "group", "bad", "data", "2")
            add(server, "group", "good", "data", "3")
            await eventually(lambda: server.command("XLEN", node.broker.membership.keys.journal("group:good")) == 1)
            await eventually(lambda: len(rejected(server)) == 2)
            assert [(entry["data"], entry["reason"]) for entry in rejected(server)] == [
                ("1", "failed 5 times"),
                ("2", "failed 5 times"),
            ]
            assert server.command("EXISTS", "tidegate:push:failures") == 0


async def test_a_failure_that_passes_stops_and_skips_nothing():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await node.up()
            for i in range(10):
                add(server, "group", "a", "data", str(i))
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            for i in range(10, 20):
                add(server, "group", "a", "data", str(i))
                if i == 12:
                    server.command("CONFIG", "SET", "maxmemory", "1")
                    server.command("CONFIG", "SET", "maxmemory", "0")
                if i == 15:
                    server.pause()
                    server.resume()
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            page = await node.broker.history("group:a", None, messages=100, size=1000)
            assert [int(message.data) for message in page.messages] == list(range(20))
            assert rejected(server) == []


async def test_entries_come_through_after_a_flush():
    with RedisServer() as server:
        async with Node(server, "n1", timing=FAST) as node:
            await node.up()
            server.command("FLUSHALL")
            server.command("XADD", "tidegate:push", "1-1", "group", "a", "data", "1")
            await eventually(lambda: server.command("XLEN", node.broker.membership.keys.journal("group:a")) == 1)


async def test_a_reader_whose_lease_is_gone_does_not_wait_for_it():
    with RedisServer() as server:
        async with Node(server, "n1", timing=shorter(lease_s=5)) as node:
            await node.up()
            await eventually(lambda: node.broker.ingress._token)
            server.command("DEL", "tidegate:push:lease")
            add(server, "group", "a", "data", "1")
            await eventually(lambda: server.command("XLEN", node.broker.membership.keys.journal("group:a")) == 1, 2.5)


@pytest.mark.parametrize("trouble", ["flushed", "restarted"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_comes_while_redis_is(trouble: str, when: str):
    """The reader holds an entry, before or after it journals it, and the answer of a Redis that is restarted is lost:
    what Redis has at the end is journalled once."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            for node in (one, two):
                await node.up()
                await node.broker.subscribe("group:a")
            reads = await eventually(lambda: next((node for node in (one, two) if node.broker.ingress._token), None))
            publish = reads.broker.streams.publish
            holds, go_on = asyncio.Event(), asyncio.Event()

            async def publish_held(publications: Any, **options: Any) -> Any:
                if not options.get("token"):
                    return await publish(publications, **options)
                if holds.is_set():  # only the first answer is lost: whoever reads next, this node too, gets its own
                    return await publish(publications, **options)
                answers = await publish(publications, **options) if when == "after" else []
                holds.set()
                await go_on.wait()
                if answers and trouble == "restarted":
                    return [BrokerDown("its answer was lost")] * len(answers)
                return answers or await publish(publications, **options)

            reads.broker.streams.publish = publish_held
            add(server, "group", "a", "data", "1", "key", "k")
            await holds.wait()
            with server.client.pipeline(transaction=True) as step:
                if trouble == "flushed":
                    step.flushall()
                for data in ("2", "3"):
                    step.xadd("tidegate:push", {"group": "a", "data": data})
                step.execute()
            if trouble == "restarted":
                await asyncio.to_thread(server.restart)
            go_on.set()
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0, 10)
            expected = [b"2", b"3"] if trouble == "flushed" else [b"1", b"2", b"3"]
            page = await two.broker.history("group:a", None, messages=10, size=1000)
            assert [message.data for message in page.messages] == expected
            assert rejected(server) == []
            for node in (one, two):
                await _heard_last(node, [b"2", b"3"])
                told = node.heard.data("group:a")
                assert told == [b"1", b"2", b"3"] or (told == expected and trouble == "flushed")
