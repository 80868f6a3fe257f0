"""What a client has, goes with it from node to node: its record, its token, its streams, what it asked and what it was
about to read. And what was decided about it while no node had it, is found out by the next one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.edges.edge import Stand, stand
from tests.handshakes import token
from tests.login import as_page, site
from tests.peer import Peer
from tests.support import eventually
from tests.tokens import SECRET

PROVOKED = (
    "the trunk to .* has ended|no trunk to|Connection refused|reset by peer|Broken pipe|no handshake|No such file"
)


@contextlib.asynccontextmanager
async def two_nodes(**settings: Any) -> AsyncIterator[tuple[Stand, RedisServer]]:
    """Two nodes on one Redis behind an edge with trunks."""
    with RedisServer() as redis:
        async with stand("openresty-trunk", nodes=2, **_settings(redis, settings)) as s:
            s.provoked(PROVOKED)
            yield s, redis


@contextlib.asynccontextmanager
async def one_and_another(**settings: Any) -> AsyncIterator[tuple[Stand, Stand]]:
    """A node behind an edge with trunks, and one that the edge does not know: what is done there finds clients of the
    first held, while that is away."""
    with RedisServer() as redis:
        async with (
            stand("openresty-trunk", **_settings(redis, settings)) as s,
            stand("direct", **_settings(redis, settings)) as other,
        ):
            s.provoked(PROVOKED)
            yield s, other


def _settings(redis: RedisServer, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "BROKER__KIND": "redis",
        "BROKER__URL": redis.url,
        "EVENTS__ENABLED": True,
        "EDGE__HOLD_S": 15,
        "GROUPS": {"*": {"presence": "members", "history": "members"}},
        **settings,
    }


async def stop(s: Stand) -> None:
    """Not killed: one that joins waits until it is sure that a killed one is silent."""
    s.node.process.signal(signal.SIGTERM)
    assert await s.node.process.ended() == 0


async def start_again(s: Stand) -> None:
    s.node.start()
    await s.node.ready()


@contextlib.asynccontextmanager
async def first(s: Stand, name: str, **options: Any) -> AsyncIterator[Peer]:
    """A client that the first node has welcomed. Who came to the other one meanwhile stays, or so would the next."""
    peers: list[Peer] = []
    try:
        while not peers or not peers[-1].seen[0]["node"].startswith(f"{s.node.name}."):
            peers.append(s.peer(name, **options))
            await peers[-1].connect()
            await peers[-1].event()
        yield peers[-1]
    finally:
        await asyncio.gather(*(peer.cut() for peer in peers))


async def hears(peer: Peer, data: Any, timeout_s: float = 5) -> None:
    """The next message; events that are none may come before it."""
    event = await peer.until(lambda event: event["type"] == "message", timeout_s)
    assert event["data"] == data


# Decided meanwhile


async def test_what_was_decided_while_nobody_had_them_is_obeyed_by_the_next_node() -> None:
    async with one_and_another() as (s, other):
        names = ("alice", "bob", "carol", "dave")
        peers = [s.peer(name, groups="room") for name in names]
        alice, bob, carol, dave = peers
        await other.node.call("PUT", "/api/groups/old/members/carol")
        for peer in peers:
            await peer.connect()
            await peer.event()
        await stop(s)
        await other.node.call("DELETE", "/api/clients/alice")
        await other.node.call("PUT", "/api/groups/vip/members/bob")
        await other.node.call("DELETE", "/api/groups/old/members/carol")
        await other.node.push("groups/room", "missed")
        await start_again(s)
        assert await alice.ended() == 4501
        seen = [await bob.events(2), await carol.events(2), [await dave.event()]]
        assert [sorted(event["type"] for event in events) for events in seen] == [
            ["joined", "message"],
            ["left", "message"],
            ["message"],
        ]
        await other.node.push("groups/vip", "for bob")
        await other.node.push("groups/old", "for nobody")
        await other.node.push("groups/room", "for all")
        assert [event["data"] for event in await bob.events(2)] == ["for bob", "for all"]
        assert [(await peer.event())["data"] for peer in (carol, dave)] == ["for all", "for all"]
        for peer in peers:
            await peer.cut()


@pytest.mark.slow
async def test_who_took_over_the_record_meanwhile_keeps_it() -> None:
    async with one_and_another() as (s, other):
        async with s.peer("alice", cursor="last", device="phone") as alice:
            await alice.event()
            await stop(s)
            async with other.peer("alice", cursor="last", device="phone") as successor:
                await successor.event()
                await start_again(s)
                assert await alice.ended() == 4502
                await other.node.push("clients/alice", "hello")
                await hears(successor, "hello")


@pytest.mark.slow
async def test_a_token_that_has_ended_is_found_out_and_a_newer_one_counts() -> None:
    auth = {"AUTH__MODE": "jwt", "AUTH__KEY": SECRET, "AUTH__LEEWAY_S": 0}
    async with one_and_another(**auth) as (s, other):
        end = int(time.time()) + 3
        bearers = [{"Authorization": f"Bearer {token(sub=name, exp=end, groups=['*'])}"} for name in ("alice", "bob")]
        async with Peer(s.port, headers=bearers[0]) as alice, Peer(s.port, headers=bearers[1]) as bob:
            await alice.event()
            await bob.event()
            newer = token(sub="alice", exp=end + 3600, groups=["*"])
            assert (await alice.ask(type="refresh", id=1, token=newer))["type"] == "reply"
            await stop(s)
            await eventually(lambda: time.time() > end + 0.1)
            await start_again(s)
            assert await bob.ended() == 4009
            await other.node.push("clients/alice", "hello")
            await hears(alice, "hello")


@pytest.mark.slow
async def test_a_login_that_was_revoked_meanwhile_is_found_out_and_a_slow_application_cuts_nobody() -> None:
    async with site() as asked, one_and_another(**asked.settings(GROUPS={})) as (s, other):
        asked.sessions["s-bob"] = {"client": "bob"}
        asked.sessions["s-carol"] = {"client": "carol"}
        pages = [as_page(f"s-{name}") for name in ("alice", "bob", "carol")]
        async with (
            Peer(s.port, headers=pages[0]) as alice,
            Peer(s.port, headers=pages[1]) as bob,
            Peer(s.port, headers=pages[2]) as carol,
        ):
            for peer in (alice, bob, carol):
                await peer.event()
            await stop(s)
            del asked.sessions["s-bob"]
            asked.hangs_for_session = "s-carol"
            await start_again(s)
            assert await bob.ended() == 4009
            await other.node.push("all", "hello")
            await hears(alice, "hello")
            await hears(carol, "hello")
            asked.go_on()


# What it has


async def pinged(peer: Peer) -> None:
    """A ping comes that was made after all that came before, and is answered if the client answers any."""
    count = len(peer.pings)
    await eventually(lambda: len(peer.pings) > count)


@pytest.mark.slow
async def test_what_is_not_known_to_have_arrived_is_not_confirmed_by_a_move() -> None:
    async with two_nodes(HEARTBEAT__WEBSOCKET_PING_INTERVAL=1) as (s, _):
        other = s.nodes[1]
        async with first(s, "alice", cursor="last") as alice:
            await other.push("clients/alice", "known")
            await hears(alice, "known")
            await pinged(alice)
            alice.pong = False
            await other.push("clients/alice", "not known")
            await hears(alice, "not known")
            s.node.process.kill()
            await other.push("clients/alice", "missed")
            await hears(alice, "missed")
            await pinged(alice)
        async with s.peer("alice", cursor="last") as again:
            await again.event()
            assert [event["data"] for event in await again.events(2)] == ["not known", "missed"]


async def test_a_pong_after_a_move_confirms() -> None:
    async with two_nodes(HEARTBEAT__WEBSOCKET_PING_INTERVAL=1) as (s, _):
        async with first(s, "alice", cursor="last") as alice:
            s.node.process.kill()
            await s.nodes[1].push("clients/alice", "missed")
            await hears(alice, "missed")
            await pinged(alice)
            await alice.ask(type="ping", id=1)  # what it sent before has been read
        async with s.peer("alice", cursor="last") as again:
            welcome = await again.event()
            assert welcome["streams"]["client:alice"]["missed"] == 0


async def test_a_hundred_groups_whose_cursor_is_beyond_4_kib_move() -> None:
    names = [f"{'g' * 100}{n}" for n in range(100)]

    async def push_each(data: str) -> None:
        await s.nodes[1].call("POST", "/api/push", {"pushes": [{"group": name, "data": data} for name in names]})

    async with two_nodes() as (s, _), first(s, "alice") as alice:
        for name in names:
            alice.send(type="join", id=name[-64:], group=name)
        assert {event["type"] for event in await alice.events(100)} == {"reply"}
        assert (await alice.ask(type="ping", id=1))["cursor"] is None
        await push_each("before")
        assert len(await alice.events(100)) == 100
        s.node.process.kill()
        await push_each("missed")
        expected = {(f"group:{name}", "missed") for name in names}
        assert {(event["stream"], event["data"]) for event in await alice.events(100)} == expected


async def test_the_application_and_presence_are_told_of_no_move() -> None:
    async with two_nodes(EDGE__HOLD_S=0.5) as (s, redis):
        peers = [s.peer(f"c{n}", groups="room") for n in range(4)]
        for peer in peers:
            await peer.connect()
            await peer.event()
        before = redis.command("XLEN", "tidegate:events")
        s.node.process.signal(signal.SIGTERM)
        await s.node.process.ended()
        await start_again(s)
        s.nodes[1].process.kill()
        for n, peer in enumerate(peers):
            assert (await peer.ask(type="ping", id=n))["type"] == "pong"
        answer = await s.node.call("GET", "/api/groups/room")
        assert (len(answer.json["clients"]), answer.json["connections"]) == (4, 4)
        assert redis.command("XLEN", "tidegate:events") == before
        for peer in peers:
            await peer.cut()


# What is under way


async def test_commands_that_wait_at_a_drain_are_answered_once_and_in_order() -> None:
    async with two_nodes(SERVER__DRAIN_S=8) as (s, redis), first(s, "alice", groups="room") as alice:
        redis.pause()
        for id in range(6):
            alice.send(type="history", id=id, group="room", limit=1)
        s.node.process.signal(signal.SIGTERM)
        await s.node.process.line("drain.started")
        for id in range(6, 12):
            alice.send(type="history", id=id, group="room", limit=1)
        redis.resume()
        answers = await alice.events(12)
        assert [(answer["type"], answer["id"]) for answer in answers] == [("reply", id) for id in range(12)]
        assert await s.node.process.ended() == 0
        assert (await alice.ask(type="ping", id="there"))["type"] == "pong"
        assert alice.pending() == 0


async def test_a_command_without_an_answer_when_its_node_is_killed_is_1012() -> None:
    async with two_nodes() as (s, redis), first(s, "alice", groups="room") as alice, first(s, "bob") as bob:
        redis.pause()
        alice.send(type="history", id=1, group="room", limit=1)
        alice.send_text("ping")
        assert await alice.raw() == b"pong"  # so the one before it is on its way
        s.node.process.kill()
        assert await alice.ended() == 1012
        redis.resume()
        assert (await bob.ask(type="ping", id=1))["type"] == "pong"


async def test_a_call_goes_on_while_its_client_moves() -> None:
    async with two_nodes(rest=True, CALLS__ALLOW=["slow"]) as (s, _), first(s, "alice") as alice:
        alice.send(type="call", id=1, method="slow", data={"seconds": 0.5})
        alice.send_text("ping")
        assert await alice.raw() == b"pong"
        s.node.process.kill()
        assert (await alice.ask(type="ping", id=2))["type"] == "pong"
        assert [event["id"] for event in alice.seen if "id" in event] == [2]
        answer = await alice.event()
        assert (answer["id"], answer["status"]) == (1, 200)


MESSAGES = 300
TEXT = "x" * 20_000


async def begin_to_read(s: Stand, alice: Peer) -> None:
    """It reads a long replay, and then no more of it."""
    items = [{"group": "room", "data": {"n": n, "text": TEXT}} for n in range(MESSAGES)]
    for at in range(0, MESSAGES, 30):
        await s.nodes[1].call("POST", "/api/push", {"pushes": items[at : at + 30]})
    top = (await s.nodes[1].call("GET", "/api/groups/room/history?limit=0")).json
    alice.send(type="join", id=1, group="room", epoch=top["epoch"], offset=0)
    assert (await alice.event())["type"] == "reply"
    assert [event["data"]["n"] for event in await alice.events(3)] == [0, 1, 2]
    alice.reading.clear()


async def test_a_replay_goes_on_at_the_next_node_where_it_stopped() -> None:
    async with two_nodes() as (s, _), first(s, "alice", rcvbuf=4096) as alice:
        await begin_to_read(s, alice)
        s.node.process.signal(signal.SIGTERM)
        assert await s.node.process.ended() == 0
        alice.reading.set()
        events = await alice.events(MESSAGES - 3)
        assert [event["data"]["n"] for event in events] == list(range(3, MESSAGES))
        await s.nodes[1].push("groups/room", "live")
        assert (await alice.event())["data"] == "live"


async def test_a_replay_is_not_guessed_when_its_node_is_killed() -> None:
    async with two_nodes() as (s, _), first(s, "alice", rcvbuf=4096) as alice:
        await begin_to_read(s, alice)
        s.node.process.kill()
        alice.reading.set()
        assert await alice.ended() == 1012
        came = [(await alice.event())["data"]["n"] for _ in range(alice.pending() - 1)]
        assert came == list(range(3, 3 + len(came)))
        assert len(came) < MESSAGES - 3


# Who hangs


@pytest.mark.slow
async def test_nothing_is_answered_in_the_name_of_a_node_that_was_given_up() -> None:
    async with stand("openresty-trunk", rest=True, EDGE__HOLD_S=3) as s:
        s.provoked(PROVOKED)
        async with s.peer("alice") as alice:
            await alice.event()
            s.node.process.signal(signal.SIGSTOP)
            try:
                alice.send_text("ping")
                assert await alice.raw() == b"pong"
                await eventually(lambda: "has ended: silent" in s.edge.process.stderr, 10)
                alice.send_text("ping")
                alice.send(type="call", id=1, method="echo", data={})
                assert await alice.ended(10) == 1012
                assert alice.pending() == 1  # the end
            finally:
                s.node.process.signal(signal.SIGCONT)


@pytest.mark.slow
async def test_a_node_that_wakes_takes_nobody_out_of_presence_and_events() -> None:
    async with two_nodes(EDGE__HOLD_S=0.5) as (s, redis):
        peers = [s.peer(f"c{n}", groups="room", cursor="last") for n in range(4)]
        for peer in peers:
            await peer.connect()
            await peer.event()
        before = redis.command("XLEN", "tidegate:events")
        s.node.process.signal(signal.SIGSTOP)
        await s.nodes[1].push("groups/room", "hello")
        for peer in peers:
            await hears(peer, "hello", 12)
        s.node.process.signal(signal.SIGCONT)
        await s.node.process.line("trunk.closed")
        await asyncio.sleep(7)  # edge.hold_s and 5 s: then it would have taken them away
        for node in s.nodes:
            answer = await node.call("GET", "/api/groups/room")
            assert (len(answer.json["clients"]), answer.json["connections"]) == (4, 4)
        assert redis.command("XLEN", "tidegate:events") == before
        for peer in peers:
            await peer.cut()
