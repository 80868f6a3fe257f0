"""The Redis broker keeps the contract of a broker, and what only many nodes and a real Redis can put to the test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.brokers.contract import WIDE, Contract, Heard, connection, info, push
from tests.brokers.contract_limits import LimitsContract
from tests.brokers.contract_words import Words
from tests.brokers.nodes import Node, change_common_epoch, end_earlier_epoch, make, shorter, slow_beats
from tests.brokers.server import RedisServer
from tests.support import Logs, eventually, free_port
from tidegate.brokers.contract import Broker, CloseOrder
from tidegate.brokers.redis.broker import RedisBroker
from tidegate.brokers.redis.scripts import Script
from tidegate.core.errors import BrokerDown, InternalError, NotTried
from tidegate.core.model import Gap, Message, Position, Publication, Retention

_prefixes = itertools.count(1)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


class TestContract(LimitsContract, Contract, Words):
    @pytest.fixture(autouse=True)
    def own_keys(self, shared_server: RedisServer) -> None:
        self.server = shared_server
        self.prefix = f"t{next(_prefixes)}"

    def make(self, node: str, *, retention: Retention = WIDE, meta_age_s: float = 1000, **options: Any) -> RedisBroker:
        return make(self.server, node, self.prefix, retention=retention, meta_age_s=meta_age_s, **options)

    def cost(self, broker: Broker) -> int:
        sizes = [self.server.command("MEMORY", "USAGE", key) for key in self.stored(broker) if "{" in key]
        return sum(size for size in sizes if size is not None)  # else it has ended meanwhile

    def records_of(self, broker: Broker, client: str) -> int:
        return len(self.server.command("KEYS", f"{self.prefix}:{{client:{client}}}:record:*"))

    def stored(self, broker: Broker) -> Any:
        return {key for key in self.server.command("KEYS", f"{self.prefix}:*") if "{node:" not in key}

    async def age(self, broker: Broker) -> None:
        await change_common_epoch(self.server, self.prefix)

    async def outlast(self, broker: Broker) -> None:
        end_earlier_epoch(self.server, self.prefix)

    async def expire(self, broker: Broker, stream: str) -> None:
        assert isinstance(broker, RedisBroker)
        self.server.command("DEL", broker.membership.keys.meta(stream), broker.membership.keys.journal(stream))

    async def lapse(self, broker: Broker, seconds: float) -> None:
        for key in self.stored(broker):
            left_ms = self.server.command("PTTL", key)
            if "{" in key and left_ms >= 0:
                self.server.command("PEXPIRE", key, left_ms - int(seconds * 1000))  # at once where it is over


# Many nodes


async def test_every_node_hears_every_message_of_a_stream_that_it_follows():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two, Node(server, "n3") as three:
            for node in (one, two):
                await node.broker.subscribe("group:a")
            await asyncio.gather(*(push(node.broker, "group:a", b"1") for node in (one, two, three) for _ in range(50)))
            for node in (one, two):
                await _heard(node, "group:a", 150)
                assert node.heard.offsets("group:a") == list(range(1, 151))
            assert three.heard.events == []


async def test_a_node_is_woken_only_for_streams_that_it_follows():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            channel = one.broker.membership.keys.channel("group:a")
            assert server.command("PUBSUB", "NUMSUB", channel) == [channel, 1]
            await one.broker.unsubscribe("group:a")
            await eventually(lambda: server.command("PUBSUB", "NUMSUB", channel) == [channel, 0])
            assert two.heard.events == []


async def test_a_push_is_one_command_and_pushes_of_one_turn_share_a_round_trip():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await push(node.broker, "group:a", b"0")
            await eventually(lambda: node.broker.backlog.is_read)  # and has looked
            reads, calls = reads_and_calls(server)
            await asyncio.gather(*(push(node.broker, f"group:{i}", b"1") for i in range(100)))
            reads_then, calls_then = reads_and_calls(server)
            assert calls_then - calls == 100
            assert reads_then - reads < 20, "some are the questions' own, some the beats'"


def reads_and_calls(server: RedisServer) -> tuple[int, int]:
    """How often Redis has read from a connection, and how many scripts it has run."""
    stats, commands = server.command("INFO", "stats"), server.command("INFO", "commandstats")
    return stats["total_reads_processed"], commands["cmdstat_evalsha"]["calls"]


async def test_a_storm_is_answered_from_the_tail_of_the_node():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await node.up()
            position = await node.broker.subscribe("group:a")
            await push(node.broker, "group:a", *[b"%d" % i for i in range(50)])
            await eventually(lambda: len(node.heard.of("group:a")) == 50)
            read = node.broker.streams.read
            since = Position(position.epoch, 20)
            pages = await asyncio.gather(
                *(node.broker.history("group:a", since, messages=100, size=10_000) for _ in range(500))
            )
            assert node.broker.streams.read == read
            assert all([m.offset for m in page.messages] == list(range(21, 51)) for page in pages)


async def test_readers_of_the_same_page_share_one_read():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            (position,) = await push(node.broker, "group:a", b"1")
            read = node.broker.streams.read
            since = Position(position.epoch, 0)
            pages = await asyncio.gather(
                *(node.broker.history("group:a", since, messages=100, size=10_000) for _ in range(100))
            )
            assert node.broker.streams.read == read + 1
            assert all(len(page.messages) == 1 for page in pages)


async def test_tails_together_stay_below_their_limit():
    with RedisServer() as server:
        async with Node(server, "n1", tail_bytes=5000) as node:
            for i in range(20):
                await node.broker.subscribe(f"group:{i}")
                await push(node.broker, f"group:{i}", b'"%s"' % (b"x" * 500))
            await eventually(lambda: len(node.heard.events) == 20)
            assert 0 < node.broker.streams.tail_bytes <= 5000


# Wake-ups are not trusted


async def test_nothing_is_missed_when_the_pubsub_connection_is_killed():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            for i in range(100):
                await push(two.broker, "group:a", b"%d" % i)
                if i % 20 == 10:
                    server.command("CLIENT", "KILL", "TYPE", "pubsub")
            await eventually(lambda: len(one.heard.of("group:a")) >= 100, 10)
            assert one.heard.offsets("group:a") == list(range(1, 101))


async def test_a_hole_is_read_from_the_journal_before_what_follows_it():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            deaf = _deafen(one, lambda number: number % 3 == 1)
            await push(two.broker, "group:a", *[b"%d" % i for i in range(99)])
            await eventually(lambda: len(one.heard.of("group:a")) == 99)
            assert one.heard.offsets("group:a") == list(range(1, 100))
            assert deaf


async def test_what_no_wake_up_announces_is_found_by_looking_at_the_tops():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            for i in range(10):
                await one.broker.subscribe(f"group:{i}")
            _deafen(one, lambda number: True)
            for i in range(10):
                await push(two.broker, f"group:{i}", b"1", b"2")
            for i in range(10):
                await _heard(one, f"group:{i}", 2)


async def test_one_script_asks_for_the_tops_of_many_streams_and_keeps_them(monkeypatch: pytest.MonkeyPatch):
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as one, Node(server, "n2", timing=slow_beats()) as two:
            for i in range(90):
                if i in (9, 10):
                    await push(two.broker, f"group:{i}", b"0")
                await one.broker.subscribe(f"group:{i}")
            keys, streams = one.broker.membership.keys, one.broker.streams
            deaf = _deafen(one, lambda number: True)
            await push(two.broker, "group:7", b"1")
            await push(two.broker, "group:8", b"1")
            await eventually(lambda: len(deaf) == 2)
            server.command("DEL", keys.meta("group:9"))
            server.command("PEXPIRE", keys.meta("group:10"), 60_000)
            scripts: list[str] = []
            run = one.broker.membership.run

            async def noted(script: Script, *args: Any) -> Any:
                if script.name not in ("ingress", "waiting"):
                    scripts.append(script.name)
                return await run(script, *args)

            monkeypatch.setattr(one.broker.membership, "run", noted)
            streams.look_at_all()
            await _heard(one, "group:7", 1)
            await _heard(one, "group:8", 1)
            await eventually(lambda: one.heard.of("group:9"))
            assert [type(event) for event in one.heard.of("group:9")] == [Gap]
            assert scripts == ["tops", "read", "read", "read"], "one for all, and one for each that had to be read"
            assert server.command("PTTL", keys.meta("group:10")) > 60_000


async def test_a_connection_that_has_gone_silent_is_made_anew():
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats(beat_s=0.1, pulse_s=0.5)) as one, Node(server, "n2") as two:
            await one.up()
            await one.broker.subscribe("group:a")
            made = one.broker.wakeups.made
            one.broker.wakeups._connection._on_reply = lambda reply: None  # type: ignore[union-attr]
            await push(two.broker, "group:a", b"1")
            await eventually(lambda: one.heard.offsets("group:a") == [1])
            assert one.broker.wakeups.made > made


async def _heard(node: Node, stream: str, count: int) -> None:
    await eventually(lambda: len(node.heard.offsets(stream)) == count, 10)
    assert node.heard.offsets(stream) == list(range(1, count + 1))


def _deafen(node: Node, lost: Any) -> list[bytes]:
    """Wake-ups for which ``lost(number)`` are not heard; they are in the list."""
    gone: list[bytes] = []
    numbers = itertools.count()
    hear = node.broker.streams.heard

    def heard(channel: bytes, payload: bytes) -> None:
        if lost(next(numbers)):
            gone.append(payload)
        else:
            hear(channel, payload)

    node.broker.streams.heard = heard  # type: ignore[method-assign]
    return gone


# Trouble


async def test_a_push_while_redis_is_paused_is_refused_in_time_and_journalled_once():
    with RedisServer() as server:
        async with Node(server, "n1", timing=shorter(operation_s=1.0, wait_s=0.5)) as node:
            await node.broker.subscribe("group:a")
            server.pause()
            begun = asyncio.get_running_loop().time()
            (answer,) = await node.broker.publish([Publication("group:a", b"1", "k")])
            assert isinstance(answer, BrokerDown)
            assert asyncio.get_running_loop().time() - begun < 5
            with pytest.raises(BrokerDown):
                await node.broker.canary()
            server.resume()
            await node.up()
            await push(node.broker, "group:a", b"1", key="k")
            await push(node.broker, "group:a", b"2")
            await eventually(lambda: node.heard.data("group:a") == [b"1", b"2"])
            assert await node.broker.canary() >= 0


async def test_a_cut_loses_nothing_that_redis_holds_and_repeats_nothing():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            epoch = (await one.broker.top("group:a")).epoch
            for round in range(3):
                await push(two.broker, "group:a", b"%d" % round)
                server.restart()
                await one.up()
                await two.up()
            await push(two.broker, "group:a", b"3")
            await eventually(lambda: len(one.heard.of("group:a")) == 4)
            assert one.heard.data("group:a") == [b"0", b"1", b"2", b"3"]
            assert await one.broker.top("group:a") == Position(epoch, 4)


async def test_a_batch_tries_nothing_of_a_stream_after_a_failure():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            server.kill()
            answers = await node.broker.publish([Publication("group:a", b"1"), Publication("group:a", b"2")])
            assert [type(answer) for answer in answers] == [BrokerDown, NotTried]


async def test_out_of_memory_refuses_pushes_and_lets_history_be_read():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await push(node.broker, "group:a", b"1")
            server.command("CONFIG", "SET", "maxmemory", "1")
            (answer,) = await node.broker.publish([Publication("group:a", b"2")])
            assert isinstance(answer, BrokerDown)
            assert len((await node.broker.history("group:a", None, messages=9, size=99)).messages) == 1
            server.command("CONFIG", "SET", "maxmemory", "0")
            await push(node.broker, "group:a", b"3")


async def test_scripts_that_redis_has_forgotten_are_loaded_again():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            server.command("SCRIPT", "FLUSH")
            assert await node.broker.canary() >= 0


async def test_a_read_only_redis_is_left(expected_logs: Logs):
    expected_logs.allow("redis.went_back")
    with RedisServer() as server, RedisServer() as other:
        async with Node(server, "n1") as node:
            await push(node.broker, "group:a", b"1")
            server.command("REPLICAOF", "127.0.0.1", str(other.port))
            (answer,) = await node.broker.publish([Publication("group:a", b"2")])
            assert isinstance(answer, BrokerDown)
            server.command("REPLICAOF", "NO", "ONE")
            await node.up()

            async def accepted() -> bool:
                return isinstance((await node.broker.publish([Publication("group:a", b"3")]))[0], Position)

            await eventually(accepted, 15)


async def test_an_evicting_redis_is_refused_at_start():
    with RedisServer(maxmemory_policy="allkeys-lru") as server:
        with pytest.raises(ValueError, match="maxmemory-policy allkeys-lru"):
            await make(server, "n1").start(Heard(), info("n1"))


async def test_a_redis_that_is_not_there_is_down_at_start():
    with pytest.raises(BrokerDown):
        await make(f"redis://127.0.0.1:{free_port()}/0", "n1", timing=shorter(start_s=0.5)).start(Heard(), info("n1"))


async def test_a_redis_with_a_password_and_another_database_is_used():
    with RedisServer(requirepass="secret-word") as server:
        async with Node(f"redis://:secret-word@127.0.0.1:{server.port}/3", "n1") as node:
            await push(node.broker, "group:a", b"1")
            await eventually(node.broker.canary)


@pytest.mark.parametrize("url", ["redis://127.0.0.1/0?nonsense=1", "redis+sentinel://a:b:c/x?db=y", "http://x"])
def test_a_url_that_cannot_be_used_is_refused(url):
    with pytest.raises(ValueError, match=r"broker\.url|scheme"):
        make(url, "n1")


# Presence, orders, events


async def test_the_connections_of_a_dead_node_vanish_and_its_record_is_taken_over():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.presence_join(connection("n1-1", "alice", "a"))
            await one.broker.claim("alice", "", "n1-1")
            await one.broker.save("alice", "", "n1-1", {"all": Position("e", 3)})
            assert await two.broker.present("a") == [("alice", "n1-1")]
            await one.die()

            async def gone() -> bool:
                return await two.broker.present("a") == [] and await two.broker.connections("alice") == []

            await eventually(gone, 10)
            assert await two.broker.nodes() == [info("n2")]
            claim = await two.broker.claim("alice", "", "n2-1")
            assert (claim.record, claim.previous) == ({"all": Position("e", 3)}, "n1-1")


async def test_presence_is_written_again_after_redis_lost_it():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await node.broker.presence_join(connection("n1-1", "alice", "a"))
            await node.broker.presence_join(connection("n1-2", "bob", "a"))
            server.command("FLUSHALL")
            await node.broker.presence_leave(connection("n1-2", "bob", "a"))

            async def back() -> bool:
                return await node.broker.present("a") == [("alice", "n1-1")]

            await eventually(back)


async def test_a_departure_that_redis_did_not_hear_of_is_made_good():
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Node(server, "n1") as node:
            await node.broker.presence_join(connection("n1-1", "alice", "a"))
            server.kill()
            with pytest.raises(BrokerDown):
                await node.broker.presence_leave(connection("n1-1", "alice", "a"))
            server.start()

            async def gone() -> bool:
                try:
                    return await node.broker.present("a") == []
                except BrokerDown:
                    return False

            await eventually(gone, 10)


async def test_orders_reach_a_node_that_was_cut_off_and_not_one_that_comes_later():
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            _blind(two, True)
            orders = [CloseOrder("alice", None, 4501), CloseOrder("bob", None, 4501)]
            for order in orders:
                await one.broker.order(order)
            await eventually(lambda: one.heard.orders == orders)
            assert two.heard.orders == []
            _blind(two, False)
            await eventually(lambda: two.heard.orders == orders)
            async with Node(server, "n3") as three:
                await one.broker.order(orders[0])
                await eventually(lambda: three.heard.orders == orders[:1])


def _blind(node: Node, cut: bool) -> None:
    """As if Redis could not be reached: its commands fail before they are sent."""
    if cut:
        node.broker.membership.up.clear()
    else:
        node.broker.membership.up.set()


async def test_a_node_that_missed_orders_for_good_makes_its_clients_come_back(expected_logs: Logs):
    expected_logs.expect("orders.lost")
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await two.broker.presence_join(connection("n2-1", "alice"))
            await one.broker.order(CloseOrder("bob", None, 4501))
            await eventually(lambda: len(two.heard.orders) == 1)
            _blind(two, True)
            for _ in range(5):
                await one.broker.order(CloseOrder("alice", None, 4501))
            server.command("XTRIM", "tidegate:orders", "MAXLEN", "2")
            _blind(two, False)
            await eventually(lambda: CloseOrder("alice", None, 1012) in two.heard.orders)


async def test_a_stream_whose_keys_were_spoilt_fails_alone(expected_logs: Logs):
    expected_logs.expect("redis.refused")
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await push(node.broker, "group:b", b"0")
            server.command("SET", node.broker.membership.keys.meta("group:a"), "spoilt")
            server.command("SET", node.broker.membership.keys.journal("group:b"), "spoilt")
            answers = await node.broker.publish(
                [Publication("group:a", b"1"), Publication("group:b", b"1"), Publication("group:c", b"1")]
            )
            assert [type(answer) for answer in answers] == [InternalError, InternalError, Position]


async def test_a_stream_that_was_spoilt_while_it_was_followed_hides_no_other(expected_logs: Logs):
    expected_logs.expect("redis.refused")
    with RedisServer() as server:
        async with Node(server, "n1") as one, Node(server, "n2") as two:
            await one.broker.subscribe("group:a")
            await one.broker.subscribe("group:b")
            deaf = _deafen(one, lambda number: True)
            await push(two.broker, "group:b", b"1")
            await eventually(lambda: deaf)
            server.command("SET", one.broker.membership.keys.meta("group:a"), "spoilt")
            await _heard(one, "group:b", 1)
            await eventually(lambda: expected_logs.seen("redis.refused"))


async def test_what_is_no_wake_up_is_passed_over(expected_logs: Logs):
    expected_logs.expect("wakeup.not_understood")
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await node.broker.subscribe("group:a")
            made = node.broker.wakeups.made
            for payload in ("nonsense", "e 1 2 3", "e one 2 3 c\n{}", b"\xff 1 2 3 c\n{}"):
                server.command("PUBLISH", node.broker.membership.keys.channel("group:a"), payload)
            await push(node.broker, "group:a", b"1")
            await _heard(node, "group:a", 1)
            assert node.broker.wakeups.made == made
            assert len(expected_logs.seen("wakeup.not_understood")) == 4


async def test_a_stream_whose_meta_was_lost_begins_a_new_epoch():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            before = await node.broker.subscribe("group:a")
            await push(node.broker, "group:a", b"1", b"2")
            server.command("DEL", node.broker.membership.keys.meta("group:a"))
            (position,) = await push(node.broker, "group:a", b"3")
            assert (position.offset, position.epoch == before.epoch) == (1, False)
            await eventually(lambda: node.heard.data("group:a") == [b"1", b"2", b"3"])
            assert node.heard.gaps("group:a") == [Gap("group:a", position.epoch, None, 0, "reset")]
            assert isinstance(node.heard.of("group:a")[-1], Message)
