"""What the application hears of who comes and goes."""

from __future__ import annotations

import msgspec

from tests.brokers.contract import connection
from tests.brokers.nodes import Node, shorter
from tests.brokers.server import RedisServer
from tests.support import eventually


async def test_events_tell_the_application_who_comes_and_goes():
    with RedisServer() as server:
        async with Node(server, "n1", events=100) as one, Node(server, "n2", events=100) as two:
            await one.broker.presence_join(connection("n1-1", "alice", "a"))
            await one.broker.presence_join(connection("n1-1", "alice", "b"))
            await one.broker.presence_leave(connection("n1-1", "alice", "b"))
            await one.die()
            await eventually(lambda: _events(server)[-1] == ("lost", None, None), 10)
            assert _events(server) == [
                ("connected", "alice", None),
                ("joined", "alice", "a"),
                ("joined", "alice", "b"),
                ("left", "alice", "a"),
                ("disconnected", "alice", None),
                ("lost", None, None),
            ]
            assert two.heard.orders == []


async def test_a_connection_that_moves_is_told_of_as_far_as_something_changed():
    with RedisServer() as server:
        async with Node(server, "n1", events=100) as one, Node(server, "n2", events=100) as two:
            there = connection("n1-1", "alice", "a", "b")
            here = msgspec.structs.replace(connection("n1-1", "alice", "b", "c"), node="n2")
            await one.broker.presence_join(there)
            before = len(_events(server))
            one.broker.presence_hold(there)
            await two.broker.presence_move(here)
            assert _events(server)[before:] == [("joined", "alice", "c"), ("left", "alice", "a")]
            await one.broker.presence_release(there)
            assert await one.broker.present("a") == []
            assert await one.broker.present("c") == [("alice", "n1-1")]
            assert len(_events(server)) == before + 2


async def test_a_node_that_was_late_takes_nothing_from_the_one_that_a_connection_moved_to():
    with RedisServer() as server:
        async with Node(server, "n1", events=100) as one, Node(server, "n2", events=100) as two:
            there = connection("n1-1", "alice", "a")
            await one.broker.presence_join(there)
            await two.broker.presence_move(msgspec.structs.replace(there, node="n2"))
            await one.broker.presence_leave(there)
            assert await two.broker.present("a") == [("alice", "n1-1")]
            assert [info.node for info in await two.broker.connections("alice")] == ["n2"]
            assert ("disconnected", "alice", None) not in _events(server)


async def test_a_connection_that_comes_back_after_it_has_left_is_told_of_again():
    """Its edge hung for longer than anybody waited."""
    with RedisServer() as server:
        async with Node(server, "n1", events=100) as one:
            there = connection("n1-1", "alice", "a")
            await one.broker.presence_join(there)
            one.broker.presence_hold(there)
            await one.broker.presence_release(there)
            await one.broker.presence_move(there)
            assert await one.broker.present("a") == [("alice", "n1-1")]
            told = [event for event in _events(server) if event[1] == "alice"]
            assert told[-3:] == [
                ("disconnected", "alice", None),
                ("connected", "alice", None),
                ("joined", "alice", "a"),
            ]


def _events(server: RedisServer) -> list[tuple[str, str | None, str | None]]:
    fields = [fields for _, fields in server.command("XRANGE", "tidegate:events", "-", "+")]
    return [(item["event"], item.get("client"), item.get("group")) for item in fields]


async def test_without_events_there_is_no_stream_of_them():
    with RedisServer() as server:
        async with Node(server, "n1") as node:
            await node.broker.presence_join(connection("n1-1", "alice", "a"))
            assert server.command("EXISTS", "tidegate:events") == 0


async def test_of_connections_that_went_on_elsewhere_it_hears_again_after_their_node_is_lost():
    with RedisServer() as server:
        async with Node(server, "n1", events=100) as one, Node(server, "n2", events=100) as two:
            there = connection("n1-1", "alice", "a")
            await one.broker.presence_join(there)
            await one.broker.presence_join(connection("n1-2", "bob"))
            await two.broker.presence_move(msgspec.structs.replace(there, node="n2"))
            await one.die()
            await eventually(lambda: _events(server)[-1] == ("joined", "alice", "a"), 10)
            told = _events(server)
            assert told[told.index(("lost", None, None)) :] == [
                ("lost", None, None),
                ("connected", "alice", None),
                ("joined", "alice", "a"),
            ]


async def test_of_connections_whose_node_stopped_it_hears_nothing():
    with RedisServer() as server:
        async with Node(server, "n2", events=100) as two:
            async with Node(server, "n1", events=100) as one:
                there = connection("n1-1", "alice", "a")
                await one.broker.presence_join(there)
                one.broker.presence_hold(there)
                await two.broker.presence_move(msgspec.structs.replace(there, node="n2"))
            await eventually(lambda: two.broker.presence._came_from == {}, 10)
            assert _events(server) == [("connected", "alice", None), ("joined", "alice", "a")]


async def test_of_all_connections_of_a_node_that_hung_until_it_was_lost_it_hears_again():
    with RedisServer() as server:
        timing = shorter(dead_s=1.0)
        async with Node(server, "n1", events=100, timing=timing), Node(server, "n2", events=100, timing=timing) as two:
            await two.broker.presence_join(connection("n2-1", "alice", "a"))
            two.broker.membership._leaves.set()  # no more beats
            await eventually(lambda: ("lost", None, None) in _events(server))
            two.broker.membership._leaves.clear()
            await eventually(lambda: _events(server)[-1] == ("joined", "alice", "a"))
            assert _events(server)[2:] == [("lost", None, None), ("connected", "alice", None), ("joined", "alice", "a")]
