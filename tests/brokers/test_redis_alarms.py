"""What is no reason to change every epoch, and what is one all the same. Source: docs/decisions/0018."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.brokers.contract import push
from tests.brokers.nodes import FAST, NEVER, Node, now_ms, shorter, slow_beats
from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.support import Logs, eventually
from tidegate.brokers.redis.membership import Timing
from tidegate.core.model import Position

KEEPS: dict[str, Any] = {"appendonly": "yes", "appendfsync": "everysec"}
SYNCS: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}
LASTING = shorter(gone_s=NEVER, dead_s=NEVER, vote_s=0.5)  # who has died is asked for a vote ever after
QUICK = shorter(beat_s=0.1, gone_s=0.4, sure_s=0.8, silent_s=1.0, dead_s=1.3, operation_s=10.0)


def roster(server: RedisServer) -> set[str]:
    return set(server.command("HKEYS", "tidegate:nodes"))


def joins(server: RedisServer) -> int:
    """How often a node has joined the roster."""
    return int(server.command("HGET", "tidegate:life", "roster"))


def quiet_s(server: RedisServer, node: str) -> float:
    """Since its last beat."""
    beat = server.command("HGET", "tidegate:nodes", node).split(" ")[0]
    return (now_ms(server) - int(beat)) / 1000


async def goes_on(node: Node, position: Position) -> bool:
    """Whether a client may go on from there."""
    return (await node.broker.history("group:a", position, messages=10, size=1000)).gap is None


# Who has died is off the roster before its lease ends


async def test_redis_may_restart_soon_after_a_node_has_died():
    with RedisServer(**KEEPS) as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            (position,) = await push(two.broker, "group:a", b"1")
            await two.die()
            await eventually(lambda: "n2" not in one.broker.membership.members, FAST.dead_s - 0.5)
            server.stop()
            server.start()
            await one.up()
            assert await goes_on(one, position)


async def test_what_a_dead_node_wrote_last_is_missed_by_those_who_took_it_off(expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            server.command("SAVE")
            (position,) = await push(two.broker, "group:a", b"lost")
            await two.die()
            await eventually(lambda: "n2" not in one.broker.membership.members, FAST.dead_s)
            server.restart()
            await one.up()
            await push(one.broker, "group:a", b"other")
            assert not await goes_on(one, position)


async def test_a_beat_that_is_late_alone_takes_nobody_off():
    with RedisServer() as server:
        async with Node(server, "n1"), Node(server, "late", timing=slow_beats()):
            await eventually(lambda: quiet_s(server, "late") > FAST.gone_s + 3 * FAST.beat_s)
            assert roster(server) == {"n1", "late"}


async def test_a_pubsub_connection_that_is_cut_alone_takes_nobody_off():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            joined = joins(server)
            server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: all(n.broker.wakeups.made == 2 and n.broker.wakeups.hearing for n in (one, two)))
            assert joins(server) == joined


async def test_who_joins_waits_while_a_node_that_was_taken_off_would_vouch_if_it_lived():
    with RedisServer() as server:
        async with Node(server, "n1", timing=QUICK), Node(server, "n2", timing=QUICK) as two:
            await two.die()
            await eventually(lambda: roster(server) == {"n1"})
            async with Node(server, "n3", timing=QUICK) as three:
                assert three.broker.membership.up_since_s - two.broker.membership._beaten_s > QUICK.sure_s


async def test_who_leaves_is_forgotten_at_once_and_does_not_come_back():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as one:
            async with Node(server, "n2"):
                assert "n2" in one.broker.membership.members
            await eventually(lambda: "n2" not in one.broker.membership.members)
            assert roster(server) == {"n1"}


# A server that syncs before it answers


async def restart_beside_a_dead_node(server: RedisServer) -> bool:
    """Redis is killed just when a node is. Whether clients may go on."""
    async with Node(server, "n1", timing=LASTING) as one, Node(server, "n2", timing=LASTING) as two:
        (position,) = await push(two.broker, "group:a", b"1")
        await two.die()
        server.restart()
        await one.up()
        return await goes_on(one, position)


async def test_a_dead_node_is_not_missed_where_redis_syncs_before_it_answers():
    with RedisServer(**SYNCS) as server:
        assert await restart_beside_a_dead_node(server)


@pytest.mark.parametrize(
    "options",
    [
        KEEPS,
        {**SYNCS, "no-appendfsync-on-rewrite": "yes"},
        {**SYNCS, "rename-command": "CONFIG none"},
    ],
)
async def test_it_is_missed_where_redis_may_not(options: dict[str, Any], expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer(**options) as server:
        assert not await restart_beside_a_dead_node(server)
    (record,) = expected_logs.seen("redis.went_back")
    assert vars(record)["fields"]["why"] == "no word of n2"


UNSURE = shorter(beat_s=0.1, gone_s=0.3, sure_s=0.4, silent_s=0.6, synced_s=NEVER)


@pytest.mark.parametrize("timing", [UNSURE, QUICK])
async def test_a_redis_that_syncs_may_hang_before_it_is_killed(timing: Timing, expected_logs: Logs):
    """For so long that a node could have come without being seen."""
    with RedisServer(**SYNCS) as server:
        async with Node(server, "n1", timing=timing) as one:
            (position,) = await push(one.broker, "group:a", b"1")
            await eventually(lambda: one.broker.membership._synced_beats is not None)
            server.pause()
            now_s = asyncio.get_running_loop().time
            await eventually(lambda: now_s() - one.broker.membership._beaten_s > timing.sure_s + 0.1)
            server.restart()
            await one.up()
            assert await goes_on(one, position) == (timing is UNSURE)
    if timing is not UNSURE:
        expected_logs.expect("redis.went_back")


async def test_who_was_away_does_not_believe_a_replica_that_came_meanwhile(expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer(**SYNCS) as server:
        async with Node(server, "n1", timing=UNSURE) as one:
            membership = one.broker.membership
            (position,) = await push(one.broker, "group:a", b"1")
            await eventually(lambda: membership._synced_beats is not None)
            membership._leaves.set()  # no more beats
            with RedisServer(replicaof=f"127.0.0.1 {server.port}") as replica:
                await eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", 10)
                replica.command("REPLICAOF", "NO", "ONE")
                await eventually(lambda: not membership._beaten_within(UNSURE.sure_s))
                server.kill()
                replica.command("CONFIG", "SET", "port", str(server.port))
                membership._leaves.clear()
                await one.up()
                assert not await goes_on(one, position)


async def test_it_is_missed_where_a_replica_could_have_taken_over(expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer(**SYNCS) as server, RedisServer(replicaof=f"127.0.0.1 {server.port}") as replica:
        await eventually(lambda: replica.client.info("replication")["master_link_status"] == "up", 10)
        assert not await restart_beside_a_dead_node(server)


async def test_an_older_log_of_a_server_that_syncs_is_none(expected_logs: Logs):
    """Somebody puts a copy in its place, that lacks what only a dead node knew of."""
    expected_logs.expect("redis.went_back")
    with RedisServer(**SYNCS) as server:
        async with Node(server, "n1", timing=LASTING) as one, Node(server, "n2", timing=LASTING) as two:
            server.copy()
            beats = one.broker.membership._synced_beats or 0
            await eventually(lambda: (one.broker.membership._synced_beats or 0) > beats + 2)
            (position,) = await push(two.broker, "group:a", b"1")
            await two.die()
            one.broker.membership._writes = 0  # n1 has heard nothing of what n2 wrote
            server.kill()
            server.restore()
            server.start()
            await one.up()
            await push(one.broker, "group:a", b"other")
            assert not await goes_on(one, position)


async def test_nor_for_a_node_that_is_not_sure(expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer(**SYNCS) as server:
        async with Node(server, "n1", timing=UNSURE) as one:
            membership = one.broker.membership
            (position,) = await push(one.broker, "group:a", b"1")
            server.copy()
            beats = membership._synced_beats or 0
            await eventually(lambda: (membership._synced_beats or 0) > beats + 2)
            server.pause()
            await eventually(lambda: not membership._beaten_within(UNSURE.sure_s))
            server.kill()
            server.restore()
            server.start()
            await one.up()
            assert not await goes_on(one, position)


# Silence that says nothing


async def test_after_an_outage_nobody_is_taken_off_for_it():
    with RedisServer() as server:
        async with Node(server, "n1", timing=QUICK) as one, Node(server, "n2", timing=QUICK) as two:
            joined, beats = joins(server), int(server.command("HGET", "tidegate:life", "beats"))
            server.pause()
            membership = one.broker.membership
            now_s = asyncio.get_running_loop().time
            await eventually(lambda: now_s() - membership._beaten_s > QUICK.dead_s + 0.5)
            server.resume()
            await one.up()
            await two.up()
            await eventually(lambda: int(server.command("HGET", "tidegate:life", "beats")) > beats + 10)
            assert joins(server) == joined


async def test_a_vote_ends_although_the_clock_went_back(expected_logs: Logs):
    expected_logs.expect("redis.went_back")
    with RedisServer(**KEEPS) as server:
        async with Node(server, "n1", timing=LASTING) as one, Node(server, "n2", timing=LASTING) as two:
            await two.die()
            server.restart()
            (votes,) = await eventually(lambda: server.command("KEYS", "tidegate:votes:*"))
            server.command("HSET", votes, ":since", now_ms(server) + 3_600_000)
            await eventually(one.broker.membership.up.is_set)


async def test_a_dead_node_is_taken_off_although_the_clock_went_back():
    with RedisServer() as server:
        async with Node(server, "n1", timing=QUICK), Node(server, "n2", timing=slow_beats()) as two:
            await two.die()
            server.command("HSET", "tidegate:nodes", "n2", f"{now_ms(server) + 3_600_000} {joins(server)}")
            await eventually(lambda: roster(server) == {"n1"})
            async with Node(server, "n3", timing=QUICK):
                pass


# Who cannot know


async def test_who_was_cut_off_does_not_vouch_for_what_came_after(expected_logs: Logs):
    """Its connection was broken, and no new one refused: Redis went on without it."""
    expected_logs.expect("redis.went_back")
    with RedisServer() as server:
        async with Proxy(server.port) as proxy, Node(proxy.url, "n1", timing=QUICK) as one:
            await push(one.broker, "group:a", b"1")
            server.command("SAVE")
            proxy.cut()
            proxy.shut()
            await eventually(lambda: not one.broker.membership.up.is_set())
            async with Node(server, "n2", timing=QUICK) as two:
                (position,) = await push(two.broker, "group:a", b"lost")
                await two.die()
            server.restart()
            proxy.heal()
            await one.up()
            await push(one.broker, "group:a", b"other")
            assert not await goes_on(one, position)


async def test_a_proxy_that_reaches_nobody_says_that_redis_has_ended():
    with RedisServer(**KEEPS) as server:
        async with Proxy(server.port) as proxy, Node(proxy.url, "n1", timing=QUICK) as one:
            (position,) = await push(one.broker, "group:a", b"1")
            server.stop()
            await eventually(lambda: one.broker.membership._vouches)
            one.broker.membership._beaten_s -= 100  # a long time passes
            server.start()
            await one.up()
            assert await goes_on(one, position)
