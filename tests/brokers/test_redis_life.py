"""Redis goes back in time: nobody with an old position is told that all is well. Source: docs/decisions/0010."""

from __future__ import annotations

import pytest

from tests.brokers.contract import push
from tests.brokers.nodes import FAST, Node
from tests.brokers.server import RedisServer
from tests.support import Logs, eventually
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Position

WENT_BACK = "redis.went_back"


@pytest.fixture
def went_back(expected_logs: Logs) -> None:
    expected_logs.allow(WENT_BACK)


async def told_that_all_is_well(node: Node, stream: str, position: Position) -> bool:
    page = await node.broker.history(stream, position, messages=100, size=10_000)
    return page.gap is None


async def test_a_crash_that_lost_writes_changes_every_epoch(went_back):
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            await push(one.broker, "group:a", b"1", b"2")
            quiet = await push(two.broker, "client:quiet", b"1")
            server.command("SAVE")
            lost = await push(two.broker, "group:a", b"lost")
            alone = await push(two.broker, "group:nobody", b"lost")
            await eventually(lambda: len(one.heard.of("group:a")) == 3)
            server.restart()
            await two.up()
            # The offsets are used again before anybody who knew them is back.
            again = await push(two.broker, "group:a", b"other", b"more")
            nobody = await push(two.broker, "group:nobody", b"other", b"more")
            assert again[0].offset == lost[0].offset
            await one.up()
            for node in (one, two):
                assert not await told_that_all_is_well(node, "group:a", lost[0])
                assert not await told_that_all_is_well(node, "group:nobody", alone[0])
                assert not await told_that_all_is_well(node, "client:quiet", quiet[0])
                assert await told_that_all_is_well(node, "group:a", again[0])
                assert await told_that_all_is_well(node, "group:nobody", nobody[0])
            # Who followed is told, and hears what is new; what is still the same is not told again.
            await eventually(lambda: one.heard.data("group:a")[-1] == b"more")
            assert one.heard.data("group:a") == [b"1", b"2", b"lost", b"other", b"more"]
            (gap,) = one.heard.gaps("group:a")
            assert (gap.reason, gap.last, gap.epoch) == ("reset", 2, again[0].epoch)


async def test_after_a_reset_what_is_still_the_same_is_not_told_again(went_back):
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            known = await push(node.broker, "group:a", b"1", b"2", b"3")
            server.command("SAVE")
            await push(node.broker, "group:a", b"lost")
            server.restart()
            await node.up()
            await push(node.broker, "group:a", b"new")
            page = await node.broker.history("group:a", known[1], messages=100, size=10_000)
            assert page.gap is not None
            assert page.gap.reason == "reset"
            assert [message.data for message in page.messages] == [b"3", b"new"]


async def test_when_nobody_is_left_who_remembers_every_epoch_changes(went_back):
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one:
            positions = await push(one.broker, "group:a", b"1")
            await one.die()
            server.restart()
            async with Node(server, "n2", timing=FAST) as two:
                assert not await told_that_all_is_well(two, "group:a", positions[0])


async def test_a_node_that_came_and_died_with_what_redis_lost_is_remembered_by_the_others(went_back):
    with RedisServer() as server:
        async with Node(server, "n1") as one:
            await push(one.broker, "group:a", b"1")
            server.command("SAVE")
            async with Node(server, "n2") as two:
                position = await push(two.broker, "group:a", b"lost")
                await two.die()
                one.broker.membership._writes = 0  # n1 has heard nothing of what n2 wrote
                server.restart()
                await one.up()
                await push(one.broker, "group:a", b"other")
                assert not await told_that_all_is_well(one, "group:a", position[0])


async def test_a_dead_node_alone_does_not_change_epochs():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            position = await push(two.broker, "group:a", b"1")
            await two.die()
            await eventually(lambda: "n2" not in one.broker.membership.members, 10)
            server.restart()
            await one.up()
            assert await told_that_all_is_well(one, "group:a", position[0])


async def test_a_flush_changes_every_epoch():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            followed = await push(two.broker, "group:a", b"1", b"2")
            alone = await push(two.broker, "group:nobody", b"1")
            server.command("FLUSHALL")
            again = await push(two.broker, "group:a", b"other", b"more")
            await push(two.broker, "group:nobody", b"other")
            assert again == [Position(again[0].epoch, 1), Position(again[0].epoch, 2)]
            for node in (one, two):
                assert not await told_that_all_is_well(node, "group:a", followed[1])
                assert not await told_that_all_is_well(node, "group:nobody", alone[0])
            await eventually(lambda: one.heard.data("group:a") == [b"1", b"2", b"other", b"more"])
            assert [gap.reason for gap in one.heard.gaps("group:a")] == ["reset"]


@pytest.mark.parametrize("used", [True, False])
async def test_a_crash_right_after_a_flush_brings_nothing_back(went_back, used: bool):
    """``used``: a push came between the two. Redis has synced all of it."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            before = await push(two.broker, "group:a", b"1", b"2")
            server.command("FLUSHALL")
            between = [b"between"] if used else []
            await push(two.broker, "group:a", *between)
            server.restart()
            await one.up()
            await two.up()
            after = await push(two.broker, "group:a", b"after", b"more")
            assert not {position.epoch for position in after} & {position.epoch for position in before}
            for node in (one, two):
                assert not await told_that_all_is_well(node, "group:a", before[1])
                page = await node.broker.history("group:a", before[1], messages=100, size=10_000)
                assert [message.data for message in page.messages] == [*between, b"after", b"more"]
            await eventually(lambda: one.heard.data("group:a")[-2:] == [b"after", b"more"])
            told = one.heard.data("group:a")
            assert told == [b"1", b"2", *between, b"after", b"more"]


async def test_a_failover_to_a_replica_that_lags_changes_every_epoch(went_back):
    with RedisServer() as master:
        async with Node(master, "n1") as one, Node(master, "n2") as two:
            await one.broker.subscribe("group:a")
            with RedisServer(replicaof=f"127.0.0.1 {master.port}") as replica:
                await push(one.broker, "group:a", b"1")
                await eventually(
                    lambda: replica.command("XLEN", one.broker.membership.keys.journal("group:a")) == 1, 10
                )
                replica.command("REPLICAOF", "NO", "ONE")  # from here on it hears nothing
                lost = await push(two.broker, "group:a", b"lost")
                alone = await push(two.broker, "group:nobody", b"lost")
                await eventually(lambda: len(one.heard.of("group:a")) == 2)
                master.kill()
                replica.command("CONFIG", "SET", "port", str(master.port))
                await two.up()
                again = await push(two.broker, "group:a", b"other")
                await push(two.broker, "group:nobody", b"other")
                await one.up()
                assert again[0].offset == lost[0].offset
                for node in (one, two):
                    assert not await told_that_all_is_well(node, "group:a", lost[0])
                    assert not await told_that_all_is_well(node, "group:nobody", alone[0])
                await eventually(lambda: one.heard.data("group:a") == [b"1", b"lost", b"other"])


async def test_a_failover_to_a_replica_that_has_everything_changes_no_epoch():
    with RedisServer() as master:
        async with Node(master, "n1") as one, Node(master, "n2") as two:
            await one.broker.subscribe("group:a")
            with RedisServer(replicaof=f"127.0.0.1 {master.port}") as replica:
                await eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", 10)
                (position,) = await push(two.broker, "group:a", b"1")
                await eventually(
                    lambda: replica.command("XLEN", one.broker.membership.keys.journal("group:a")) == 1, 10
                )
                master.kill()
                replica.command("CONFIG", "SET", "port", str(master.port))
                replica.command("REPLICAOF", "NO", "ONE")
                await one.up()
                await two.up()
                await push(two.broker, "group:a", b"2")
                assert await told_that_all_is_well(two, "group:a", position)
                await eventually(lambda: one.heard.data("group:a") == [b"1", b"2"])


async def test_older_data_in_the_same_server_changes_every_epoch(went_back):
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            (position,) = await push(node.broker, "group:a", b"1")
            server.command("HSET", "tidegate:life", "writes", "0")
            server.command("HDEL", "tidegate:nodes", "n1")
            await push(node.broker, "group:a", b"2")
            assert not await told_that_all_is_well(node, "group:a", position)


async def test_a_node_that_was_away_too_long_does_not_vouch(went_back):
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as node:
            (position,) = await push(node.broker, "group:a", b"1")
            node.broker.membership._beaten_s -= FAST.sure_s + 1  # as after a pause of the process
            server.kill()
            await eventually(lambda: not node.broker.membership.up.is_set())
            server.start()
            await node.up()
            assert not await told_that_all_is_well(node, "group:a", position)


async def test_a_long_outage_that_was_seen_from_its_beginning_changes_no_epoch():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as node:
            (position,) = await push(node.broker, "group:a", b"1")
            server.kill()
            await eventually(lambda: node.broker.membership._vouches)
            node.broker.membership._beaten_s -= 100  # a long time passes
            server.start()
            await node.up()
            assert await told_that_all_is_well(node, "group:a", position)


async def test_a_node_takes_over_the_generation_that_redis_has():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            server.command("HSET", "tidegate:life", "generation", "another")
            (position,) = await push(node.broker, "group:a", b"1")
            assert position.epoch.startswith("another.")


async def test_a_node_that_joins_waits_until_the_others_know_it():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2"):
            assert "n2" in one.broker.membership.members


async def test_a_node_does_not_wait_for_the_dead():
    with RedisServer() as server:
        async with Node(server, "n1") as one:
            await one.die()
            async with Node(server, "n2") as two:
                await push(two.broker, "group:a", b"1")


async def test_broker_down_is_said_while_a_vote_is_open():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await two.die()
            server.restart()
            with pytest.raises(BrokerDown):
                await one.broker.top("group:a")
