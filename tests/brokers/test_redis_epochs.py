"""Streams without a message, in Redis: nothing is stored, and no push that comes to one is missed or taken for another.
Source: docs/decisions/0013."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers.contract import push
from tests.brokers.nodes import Node, change_common_epoch, now_ms, slow_beats
from tests.brokers.server import RedisServer
from tests.support import Logs, eventually
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Gap, Position, Publication, Retention


def written(server: RedisServer) -> int:
    return int(server.command("INFO", "persistence")["rdb_changes_since_last_save"])


async def test_a_read_writes_nothing_whatever_it_finds():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats(), retention=Retention(100, 0.3)) as node:
            broker = node.broker
            positions = await push(broker, "group:a", *[b"1"] * 30)
            server.command("HSET", broker.membership.keys.meta("group:a"), "g", "earlier")

            async def some_are_old() -> bool:
                return not (await broker.history("group:a", None, messages=9, size=9)).messages

            await eventually(some_are_old)

            async def reads_write_nothing() -> bool:
                before, keys = written(server), server.command("DBSIZE")
                for stream in ("group:a", "group:never"):
                    for since in (None, Position("other", 1), Position("earlier.0", 3), positions[0]):
                        await broker.history(stream, since, messages=100, size=10_000)
                    await broker.top(stream)
                return (written(server), server.command("DBSIZE")) == (before, keys)

            # The lease of the ingress is renewed now and then, and may be just in between.
            await eventually(reads_write_nothing)


async def test_reads_go_on_over_the_memory_limit_and_leave_nothing():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            server.command("CONFIG", "SET", "maxmemory", "1")
            keys = server.command("DBSIZE")
            for i in range(50):
                await node.broker.subscribe(f"group:{i}")
                await node.broker.unsubscribe(f"group:{i}")
            assert server.command("DBSIZE") == keys
            (answer,) = await node.broker.publish([Publication("group:1", b"1")])
            assert isinstance(answer, BrokerDown)
            server.command("CONFIG", "SET", "maxmemory", "0")


async def test_first_pushes_by_several_nodes_at_once_take_one_epoch_over():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two, Node(server, "n3") as three:
            told = [await one.broker.subscribe(f"group:{i}") for i in range(30)]
            await asyncio.gather(
                *(push(node.broker, f"group:{i}", b"1") for i in range(30) for node in (one, two, three))
            )
            await eventually(lambda: len(one.heard.events) >= 90)
            for i in range(30):
                assert one.heard.offsets(f"group:{i}") == [1, 2, 3]
                assert one.heard.gaps(f"group:{i}") == []
                assert await two.broker.top(f"group:{i}") == Position(told[i].epoch, 3)


async def test_a_first_push_through_redis_takes_it_over_too():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            told = await node.broker.subscribe("group:a")
            server.command("XADD", "tidegate:push", "*", "group", "a", "data", "1")
            await eventually(lambda: node.heard.data("group:a") == [b"1"])
            assert (await node.broker.top("group:a"), node.heard.gaps("group:a")) == (Position(told.epoch, 1), [])


async def test_a_push_that_comes_before_the_node_was_moved_is_heard_without_a_gap():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as one, Node(server, "n2") as two:
            told = await one.broker.subscribe("group:a")
            await change_common_epoch(server)
            first, _ = await push(two.broker, "group:a", b"1", b"2")
            assert first.epoch != told.epoch
            await eventually(lambda: one.heard.data("group:a") == [b"1", b"2"])
            assert one.heard.gaps("group:a") == []
            assert one.heard.moved == {"group:a": [Position(first.epoch, 0)]}


async def test_what_was_trimmed_behind_an_earlier_beginning_is_a_gap_there():
    with RedisServer() as server:
        async with Node(server, "n1", retention=Retention(2, 3600)) as node:
            told = await node.broker.top("group:a")
            await change_common_epoch(server)
            (*_, last) = await push(node.broker, "group:a", *[b"1"] * 5)
            page = await node.broker.history("group:a", told, messages=9, size=99)
            assert page.gap == Gap("group:a", last.epoch, 1, 3, "expired")


async def test_no_common_epoch_is_told_or_taken_over_when_its_time_is_over():
    """A jump of Redis' clock, between two beats."""
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            told = await node.broker.subscribe("group:a")
            for act in (node.broker.top, lambda stream: push(node.broker, stream, b"1")):
                server.command(
                    "HSET", "tidegate:life", "until", now_ms(server) - 1, "earlier_until", now_ms(server) - 1
                )
                await act("group:b")
            position = await node.broker.top("group:b")
            assert (position.offset, position.epoch == told.epoch) == (1, False)
            assert (await node.broker.history("group:a", told, messages=9, size=9)).gap is not None


async def test_a_stream_that_is_not_kept_long_enough_makes_an_epoch_of_its_own():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats(), meta_age_s=10_000) as long:
            async with Node(server, "n2", timing=slow_beats(), meta_age_s=1) as short:
                told = await short.broker.top("group:a")
                (position,) = await push(short.broker, "group:a", b"1")
                assert position.epoch != told.epoch
                assert await push(long.broker, "group:b", b"1") == [Position(told.epoch, 1)]
                # Nor does it cut short what another has promised.
                await push(short.broker, "group:b", b"2")
                assert server.command("PTTL", long.broker.membership.keys.meta("group:b")) > 9_000_000


async def test_a_node_with_other_settings_does_not_shorten_what_was_promised():
    with RedisServer() as server:
        async with Node(server, "n1", meta_age_s=1000) as one, Node(server, "n2", meta_age_s=10) as two:
            await push(one.broker, "group:a", b"1")
            meta = one.broker.membership.keys.meta("group:a")
            before_ms = server.command("PTTL", meta)
            two.broker.streams._retention = lambda stream: Retention(10, 5)
            await push(two.broker, "group:a", b"2")
            await two.broker.subscribe("group:a")
            assert server.command("PTTL", meta) > before_ms - 10_000


async def test_a_key_of_a_stream_that_was_lost_makes_no_push_a_repeat():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            (before,) = await push(node.broker, "group:a", b"1", key="k")
            keys = node.broker.membership.keys
            server.command("DEL", keys.meta("group:a"), keys.journal("group:a"))
            await change_common_epoch(server)
            (again,) = await push(node.broker, "group:a", b"1", key="k")
            assert (again.offset, again.epoch == before.epoch) == (1, False)
            page = await node.broker.history("group:a", None, messages=10, size=100)
            assert [message.data for message in page.messages] == [b"1"]


async def test_a_push_takes_what_is_too_old_out_of_redis():
    with RedisServer() as server:
        async with Node(server, "n1", retention=Retention(1000, 0.5)) as node:
            await push(node.broker, "group:a", *[b"old"] * 50)

            async def only_what_is_new() -> bool:
                await push(node.broker, "group:a", b"new")
                return server.command("XLEN", node.broker.membership.keys.journal("group:a")) < 50

            await eventually(only_what_is_new)


async def test_a_canary_goes_on_after_its_stream_was_forgotten():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await node.broker.canary()
            keys = node.broker.membership.keys
            for _ in range(2):
                server.command("DEL", keys.meta("node:n1"), keys.journal("node:n1"))
                assert await node.broker.canary() >= 0


@pytest.mark.parametrize("lost", ["flush", "crash"])
async def test_a_beginning_is_not_continued_when_redis_has_lost_what_may_have_followed_it(
    expected_logs: Logs, lost: str
):
    expected_logs.allow("redis.went_back")
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            followed, quiet = await one.broker.subscribe("group:a"), await two.broker.top("group:quiet")
            server.command("SAVE")
            await push(two.broker, "group:quiet", b"lost")
            if lost == "flush":
                server.command("FLUSHALL")
            else:
                server.restart()
            await one.up()
            await two.up()
            for stream, told in (("group:a", followed), ("group:quiet", quiet)):
                page = await two.broker.history(stream, told, messages=9, size=9)
                assert page.gap == Gap(stream, page.start.epoch, None, 0, "reset")
            await eventually(lambda: one.heard.gaps("group:a"))
            (position,) = await push(two.broker, "group:a", b"1")
            await eventually(lambda: one.heard.data("group:a") == [b"1"])
            assert [(gap.reason, gap.epoch, gap.last) for gap in one.heard.gaps("group:a")] == [
                ("reset", position.epoch, 0)
            ]


async def test_a_stream_that_slept_through_generations_is_continued_where_it_was(expected_logs: Logs):
    """Nothing is written to it when a generation ends, so two may end before its next push."""
    expected_logs.allow("redis.went_back")
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as node:
            told = [(await push(node.broker, "group:a", b"1", b"2"))[-1]]
            for _ in range(2):
                node.broker.membership._writes += 10  # it remembers more than Redis has
                server.command("HDEL", "tidegate:nodes", "n1")
                told.append(await node.broker.top("group:a"))
            assert len({position.epoch for position in told}) == 3
            for _ in range(2):  # before its next push, and after it
                for since in told[:2]:
                    page = await node.broker.history("group:a", since, messages=9, size=99)
                    assert page.gap == Gap("group:a", told[2].epoch, None, 2, "reset")
                await push(node.broker, "group:a", b"3")


async def test_devices_whose_record_has_ended_are_forgotten():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            keys = node.broker.membership.keys
            for i in range(100):
                await node.broker.claim("alice", f"d{i}", f"n1-{i}")
                if i < 99:
                    server.command("DEL", keys.record("alice", f"d{i}"))
            for _ in range(200):
                await node.broker.claim("alice", "d99", "n1-99")
            assert server.command("SMEMBERS", keys.devices("alice")) == {"d99"}
