"""Nodes go, clients stay: an edge with trunks takes its clients to another node, and they notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.edges.edge import Node, Stand, stand
from tests.peer import Peer
from tests.support import eventually, scaled

CLIENTS = 12
HUNG_S = 9.0  # until clients of a node that hangs hear again; 5 s of silence say that it does


@contextlib.asynccontextmanager
async def two_nodes() -> AsyncIterator[Stand]:
    """Two nodes on one Redis behind an edge with trunks."""
    with RedisServer() as redis:
        async with stand("openresty-trunk", nodes=2, **settings(redis)) as s:
            s.provoked(
                "the trunk to .* has ended|no trunk to|Connection refused|reset by peer|Broken pipe|no handshake with"
            )
            yield s


def settings(redis: RedisServer) -> dict[str, Any]:
    return {
        "BROKER__KIND": "redis",
        "BROKER__URL": redis.url,
        "EVENTS__ENABLED": True,
        "EDGE__HOLD_S": 10,
        "GROUPS": {"room": {"presence": "members", "history": "members"}},
    }


@contextlib.asynccontextmanager
async def crowd(s: Stand) -> AsyncIterator[list[Peer]]:
    peers = [s.peer(f"c{n}", groups="room") for n in range(CLIENTS)]
    try:
        for peer in peers:
            await peer.connect()
            await peer.event()
        yield peers
    finally:
        await asyncio.gather(*(peer.cut() for peer in peers))


def at(peers: list[Peer], node: Node) -> list[Peer]:
    return [peer for peer in peers if peer.seen[0]["node"].startswith(f"{node.name}.")]


async def all_hear(peers: list[Peer], pushed: list[Any]) -> None:
    """Each has got all of it by now, once and in order, and nothing else."""
    for peer in peers:
        events = [await peer.event(HUNG_S) for _ in pushed]
        assert [event["data"] for event in events] == pushed, peer.seen[0]


async def on(node: Node) -> int:
    """How many connections a node has."""
    answer = await node.call("GET", "/api/nodes")
    found = [one for one in answer.json["nodes"] if one["node"].startswith(f"{node.name}.")]
    return int(found[0]["connections"]) if found else 0


async def goes_on(s: Stand, peers: list[Peer], left: Node) -> None:
    """Messages and commands as if nothing had been; all at the node that is left."""
    pushed = [f"after {n}" for n in range(5)]
    for data in pushed:
        await left.push("groups/room", data)
    await all_hear(peers, pushed)
    for number, peer in enumerate(peers):
        answer = await peer.ask(type="history", id=f"h{number}", group="room", limit=1)
        assert answer["type"] == "reply"
        await left.push(f"clients/c{number}", "yours")
        assert (await peer.event())["data"] == "yours"


async def presence(node: Node) -> dict[str, Any]:
    answer = await node.call("GET", "/api/groups/room")
    return {"clients": len(answer.json["clients"]), "connections": answer.json["connections"]}


async def test_a_node_that_is_killed_takes_nobody_with_it() -> None:
    async with two_nodes() as two, crowd(two) as peers:
        killed, left = two.nodes
        assert len(at(peers, killed)) == CLIENTS // 2
        await left.push("groups/room", "before")
        await all_hear(peers, ["before"])
        killed.process.kill()
        pushed = [f"during {n}" for n in range(10)]
        for data in pushed:
            await left.push("groups/room", data)
        await all_hear(peers, pushed)
        await goes_on(two, peers, left)
        assert all(peer.close_code is None and not peer.gone.is_set() for peer in peers)
        assert await presence(left) == {"clients": CLIENTS, "connections": CLIENTS}


@pytest.mark.slow  # 5 s of silence say that a node hangs
async def test_a_node_that_hangs_is_left_and_what_it_does_later_counts_no_more() -> None:
    async with two_nodes() as two, crowd(two) as peers:
        hung, left = two.nodes
        hung.process.signal(signal.SIGSTOP)
        pushed = [f"during {n}" for n in range(10)]
        for data in pushed:
            await left.push("groups/room", data)
        await all_hear(peers, pushed)
        hung.process.signal(signal.SIGCONT)
        await goes_on(two, peers, left)
        await hung.process.line("trunk.closed")
        await goes_on(two, peers, left)
        assert await presence(left) == {"clients": CLIENTS, "connections": CLIENTS}


async def test_a_node_that_drains_hands_its_clients_over() -> None:
    async with two_nodes() as two, crowd(two) as peers:
        drained, left = two.nodes
        drained.process.signal(signal.SIGTERM)
        pushed: list[Any] = []
        while drained.process.exit_code is None:
            pushed.append(len(pushed))
            await left.push("groups/room", pushed[-1])
            await asyncio.sleep(0.01)
        await all_hear(peers, pushed)
        assert drained.process.exit_code == 0
        await goes_on(two, peers, left)
        assert all(peer.close_code is None and not peer.gone.is_set() for peer in peers)
        assert [event for peer in peers for event in peer.seen if event["type"] in ("moving", "welcome", "gap")] == [
            peer.seen[0] for peer in peers
        ]


async def test_the_only_node_restarts_while_its_clients_wait() -> None:
    with RedisServer() as redis:
        async with stand("openresty-trunk", **settings(redis)) as s:
            s.provoked("the trunk to .* has ended|no trunk to|Connection refused|no handshake with|No such file")
            async with crowd(s) as peers:
                s.node.process.signal(signal.SIGTERM)
                assert await s.node.process.ended() == 0
                s.node.start()
                await s.node.ready()
                await goes_on(s, peers, s.node)
                assert all(peer.close_code is None and not peer.gone.is_set() for peer in peers)


async def test_who_waits_longer_than_hold_s_is_sent_away() -> None:
    async with stand("openresty-trunk", EDGE__HOLD_S=0.3) as s:
        s.provoked("the trunk to .* has ended|no trunk to|Connection refused|no handshake with|No such file")
        async with s.peer("alice") as alice:
            await alice.event()
            s.node.process.kill()
            assert await alice.ended() == 1012


async def test_the_embedded_broker_says_reset_on_the_open_connection() -> None:
    async with stand("openresty-trunk", EDGE__HOLD_S=10) as s:
        s.provoked("the trunk to .* has ended|no trunk to|Connection refused|no handshake with|No such file")
        async with s.peer("alice", groups="room") as alice:
            await alice.event()
            await s.node.push("groups/room", 1)
            await alice.event()
            s.node.process.kill()
            s.node.start()
            await s.node.ready()
            gaps = await alice.events(3)
            assert {(gap["type"], gap["stream"], gap["reason"]) for gap in gaps} == {
                ("gap", stream, "reset") for stream in ("all", "client:alice", "group:room")
            }
            await s.node.push("groups/room", 2)
            assert (await alice.event())["data"] == 2


@pytest.mark.slow  # 5 s of silence say that a node hangs
async def test_orders_that_nobody_obeyed_are_obeyed_after_the_move() -> None:
    async with two_nodes() as two, crowd(two) as peers:
        hung, left = two.nodes
        there = at(peers, hung)
        hung.process.signal(signal.SIGSTOP)
        await left.call("DELETE", f"/api/clients/{there[0].seen[0]['client']}")
        member, former = there[1].seen[0]["client"], there[2].seen[0]["client"]
        await left.call("PUT", f"/api/groups/vip/members/{member}")
        await left.call("DELETE", f"/api/groups/room/members/{former}")
        assert await there[0].ended(HUNG_S) == 4501
        joined = await there[1].event(HUNG_S)
        assert (joined["type"], joined["stream"]) == ("joined", "group:vip")
        gone = await there[2].event()
        assert (gone["type"], gone["stream"], gone["reason"]) == ("left", "group:room", "removed")
        hung.process.signal(signal.SIGCONT)
        await eventually(lambda: hung.process.logged("trunk.closed"))


async def test_a_handshake_waits_for_a_node_that_hangs_no_longer_than_elsewhere() -> None:
    """Long before its trunk is given up."""
    async with two_nodes() as s, crowd(s) as peers:
        s.nodes[0].process.signal(signal.SIGSTOP)
        await asyncio.gather(*(peer.cut() for peer in at(peers, s.nodes[0])))  # so that it is the first choice
        waited_s = []
        for number in range(4):
            begun_s = asyncio.get_running_loop().time()
            async with s.peer(f"late{number}") as late:
                await late.event()
            waited_s.append(asyncio.get_running_loop().time() - begun_s)
        assert sorted(waited_s)[-2] < 0.5
        assert 0.5 < max(waited_s) < scaled(3)  # edge.probe_timeout_s is 2


async def test_a_node_that_hangs_at_first_holds_nobody_who_could_not_be_moved() -> None:
    """Who asks it while it hangs goes to another one, and is not relayed to it once it goes on."""
    async with two_nodes() as s:
        hung, left = s.nodes
        hung.process.signal(signal.SIGSTOP)
        peers = [s.peer(f"c{n}") for n in range(6)]
        try:
            entering = asyncio.gather(*(peer.connect() for peer in peers))
            await asyncio.sleep(1.4)  # a handshake waits for 2 s, edge.probe_timeout_s
            hung.process.signal(signal.SIGCONT)
            await entering
            hung.process.kill()
            await eventually(lambda: "closed; sessions on it" in s.edge.process.stderr)
            await left.push("all", "after")
            for peer in peers:
                await peer.event()
                assert (await peer.event())["data"] == "after"
        finally:
            await asyncio.gather(*(peer.cut() for peer in peers))
