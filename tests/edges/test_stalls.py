"""Clients that read nothing while something happens to their node, to nginx or to them, and then read on. Some are too
long for `make test-all`: `make soak ARGS="tests/edges/test_stalls.py"`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.edges.edge import Stand, stand
from tests.edges.test_moves_states import PROVOKED, first, two_nodes
from tests.handshakes import handshake
from tests.peer import Peer
from tests.support import eventually
from tests.tokens import SECRET, make_token

TEXT = "x" * 40_000
SLOW, SOAK = pytest.mark.slow, pytest.mark.soak
HELD = 20  # messages of it: more than sockets take, less than the limit of an outbox


async def push(s: Stand, numbers: range, node: int = 1) -> None:
    for at in range(0, len(numbers), HELD):
        items = [{"group": "room", "data": {"n": n, "text": TEXT}} for n in numbers[at : at + HELD]]
        assert (await s.nodes[node].call("POST", "/api/push", {"pushes": items})).status == 200


async def numbers(peer: Peer, count: int) -> list[int]:
    """Of so many messages, which come soon."""
    return [event["data"]["n"] for event in await peer.events(count)]


@contextlib.asynccontextmanager
async def stalled(s: Stand, name: str = "alice", **options: Any) -> AsyncIterator[Peer]:
    """A client of the first node for whom much waits that was pushed since it read last."""
    async with first(s, name, groups="room", rcvbuf=4096, **options) as alice:
        alice.reading.clear()
        await push(s, range(HELD))
        await asyncio.sleep(0.3)  # it is on its way
        yield alice


async def drain(s: Stand) -> None:
    s.node.process.signal(signal.SIGTERM)
    await eventually(lambda: s.node.process.exit_code is not None, 20)


async def kill(s: Stand) -> None:
    s.node.process.kill()
    await eventually(lambda: "has ended" in s.edge.process.stderr, 10)


async def hang(s: Stand) -> None:
    s.node.process.signal(signal.SIGSTOP)
    await eventually(lambda: "has ended: silent" in s.edge.process.stderr, 20)


@pytest.mark.parametrize(
    "goes", [pytest.param(drain, marks=SOAK), pytest.param(kill, marks=SLOW), pytest.param(hang, marks=SOAK)]
)
async def test_who_stalls_while_its_node_goes_gets_all_once_and_in_order(goes: Any) -> None:
    async with two_nodes() as (s, _), stalled(s) as alice:
        try:
            await goes(s)
            await push(s, range(HELD, HELD + 4))
            await asyncio.sleep(0.5)
            alice.reading.set()
            assert await numbers(alice, HELD + 4) == list(range(HELD + 4))
            await push(s, range(HELD + 4, HELD + 5))
            assert await numbers(alice, 1) == [HELD + 4]
            assert not alice.gone.is_set()
        finally:
            s.node.process.signal(signal.SIGCONT)


def told(events: list[dict[str, Any]], last: int) -> int:
    """Up to which offset they tell everything, once and in order, from behind ``last`` on."""
    for event in events:
        if event["type"] == "message":
            assert event["offset"] == last + 1
            last = event["offset"]
        elif event["type"] == "gap":
            assert event["from"] == last + 1
            last = event["to"]
    return last


@pytest.mark.parametrize("policy", [pytest.param("replay", marks=SLOW), pytest.param("latest", marks=SOAK)])
async def test_one_that_has_fallen_back_goes_on_at_the_next_node(policy: str) -> None:
    settings = {"LIMITS__OUTBOX_BYTES": 400_000, "GROUPS": {"room": {"slow": policy}}}
    async with two_nodes(**settings) as (s, _), stalled(s) as alice:
        await push(s, range(HELD, 3 * HELD), node=0)
        await eventually(lambda: fell_back(s))
        await drain(s)
        await push(s, range(3 * HELD, 4 * HELD))
        alice.reading.set()
        events = [await alice.event()]
        while told(events, 0) < 4 * HELD:
            events.append(await alice.event())
        await push(s, range(1))
        assert (await alice.event())["offset"] == 4 * HELD + 1


async def fell_back(s: Stand) -> bool:
    text = (await s.node.call("GET", "/metrics")).body.decode()
    return any(float(line.split()[1]) for line in text.splitlines() if line.startswith("tidegate_slow_streams_total"))


@pytest.mark.soak
async def test_calls_are_answered_once_behind_what_was_held_up_before_a_move() -> None:
    async with two_nodes(rest=True) as (s, _), stalled(s) as alice:
        for number in range(3):
            alice.send(type="call", id=number, method="echo", data={"n": number})
        await drain(s)
        alice.send(type="call", id=3, method="echo", data={"n": 3})
        alice.reading.set()
        events = await alice.events(HELD + 4)
        assert [event["data"]["n"] for event in events if event["type"] == "message"] == list(range(HELD))
        assert sorted(event["id"] for event in events if event["type"] == "reply") == [0, 1, 2, 3]


# Who is sent away


@pytest.mark.soak
async def test_who_stalls_when_its_token_ends_gets_what_was_before() -> None:
    auth = {"AUTH__MODE": "jwt", "AUTH__KEY": SECRET, "AUTH__LEEWAY_S": 0, "AUTH__EXPIRING_S": 1}
    async with stand("openresty-trunk", **auth) as s:
        ends = int(time.time()) + 3
        token = make_token(sub="alice", exp=ends, groups=["*"])
        async with Peer(s.port, token=token, groups="room", rcvbuf=4096) as alice:
            await alice.event()
            alice.reading.clear()
            await push(s, range(HELD), node=0)
            await asyncio.sleep(ends + 1 - time.time())
            alice.reading.set()
            assert await alice.ended() == 4009
            events = [await alice.event() for _ in range(alice.pending() - 1)]
            assert [event["data"]["n"] for event in events if event["type"] == "message"] == list(range(HELD))


@pytest.mark.soak
@pytest.mark.parametrize("edge", ["openresty-trunk", "openresty"])
async def test_who_stalls_when_nginx_reloads_gets_what_was_before(edge: str) -> None:
    async with stand(edge, EDGE__SHUTDOWN_TIMEOUT_S=8) as s, s.peer("alice", groups="room", rcvbuf=4096) as alice:
        await alice.event()
        alice.reading.clear()
        await push(s, range(HELD), node=0)
        await s.edge.reload()
        await asyncio.sleep(1)
        alice.reading.set()
        assert await alice.ended(10) == 1001
        events = [await alice.event() for _ in range(alice.pending() - 1)]
        assert [event["data"]["n"] for event in events if event["type"] == "message"] == list(range(HELD))


@pytest.mark.slow
async def test_who_is_held_when_nginx_reloads_is_not_held_by_one_that_stops() -> None:
    """It takes nobody up any more: it makes no trunks. The new one would."""
    async with stand("openresty-trunk", EDGE__SHUTDOWN_TIMEOUT_S=4, EDGE__HOLD_S=30) as s, s.peer("alice") as alice:
        s.provoked(PROVOKED)
        await alice.event()
        await kill(s)
        await s.edge.reload()
        assert await alice.ended(4) in (1001, 1012)


# Who takes nothing for too long


@pytest.mark.parametrize("moves", [pytest.param(False, marks=SOAK), pytest.param(True, marks=SLOW)])
async def test_who_takes_nothing_for_the_write_timeout_is_cut_also_when_its_node_has_gone(moves: bool) -> None:
    async with stand("openresty-trunk", HEARTBEAT__WRITE_TIMEOUT_S=1.5, EDGE__HOLD_S=20) as s:
        s.provoked(PROVOKED)
        async with s.peer("alice", groups="room", rcvbuf=4096) as alice:
            await alice.event()
            alice.reading.clear()
            await push(s, range(HELD), node=0)
            await asyncio.sleep(0.3)  # it is on its way
            if moves:
                await kill(s)
            await eventually(s.edge.log, 15)
            assert s.edge.log()[0]["close_code"] == 4008
            alice.reading.set()
            assert await alice.ended() is None


@pytest.mark.soak
@pytest.mark.parametrize("edge", ["openresty-trunk", "openresty", "njs", "plain"])
async def test_who_takes_a_byte_now_and_then_is_not_there_for_ever(edge: str) -> None:
    """A kernel that has room for so little does not say so: for the other side that is no progress. With njs nginx
    takes it all; there it is a client that answers no pings."""
    heartbeat = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 3}
    async with stand(edge, HEARTBEAT__WRITE_TIMEOUT_S=1.5, **heartbeat) as s:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", s.port))
            sock.sendall(handshake(target="/ws-notifications/?client=alice&groups=room"))
            assert sock.recv(2048).startswith(b"HTTP/1.1 101 ")
            await push(s, range(HELD), node=0)
            sock.setblocking(False)
            began_s = time.monotonic()
            while not await gone(s):
                assert time.monotonic() - began_s < 10
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1)
                await asyncio.sleep(0.1)


async def gone(s: Stand) -> bool:
    return not await s.node.connections("alice")
