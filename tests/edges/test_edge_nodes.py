"""How an edge chooses among nodes that die, hang, drain, fill up and come back, while sessions stay."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.edges.contract import PATH, UPGRADE
from tests.edges.crowd import Crowd, all_ready, node_of
from tests.edges.edge import Stand, ask, stand
from tests.handshakes import handshake
from tests.peer import Peer
from tests.support import eventually, scaled

VARIANTS = ("plain", "njs", "openresty")
PROVOKED = "Connection refused|No such file|prematurely closed|reset by peer|no live upstreams|timed out"


# One behind a Unix socket and two over TCP, as they are shipped; the others take their time.
MANY = pytest.mark.parametrize(
    ("nodes", "hop"),
    [
        pytest.param(1, "unix", id="1"),
        pytest.param(2, "tcp", id="2"),
        pytest.param(2, "unix", id="2-unix", marks=pytest.mark.slow),
        pytest.param(3, "tcp", id="3", marks=pytest.mark.slow),
    ],
)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def crowd(variant: str, **options: Any) -> AsyncIterator[tuple[Stand, Crowd]]:
    async with stand(variant, **options) as s:
        s.provoked(PROVOKED)
        them = Crowd(s)
        try:
            yield s, them
        finally:
            await them.end()


def is_even(spread: list[int], nodes: int) -> bool:
    return len(spread) == nodes and spread[-1] <= 2 * spread[0]


def _are_taken_over(peers: list[Peer], number: int) -> bool:
    return [peer.close_code for peer in peers].count(4502) == number


@MANY
async def test_a_node_that_was_killed_and_is_back_gets_its_share(variant: str, nodes: int, hop: str) -> None:
    async with crowd(f"{variant}-{hop}", nodes=nodes) as (s, them):
        await them.come(3 * nodes, at_once=False)
        s.nodes[0].process.kill()
        if nodes > 1:
            await them.come(4)
            assert them.refused == []
        else:
            with pytest.raises(TimeoutError):
                await them.come(1, within_s=0.3)
        s.nodes[0].start()
        await all_ready(s.nodes[:1])
        await them.come_back()
        await them.reach(s.nodes[0])
        await them.come(60)
        assert is_even(them.spread(), nodes), them.spread()


@pytest.mark.slow
async def test_when_redis_was_away_everybody_gets_in_again(variant: str) -> None:
    with RedisServer() as redis:
        async with crowd(variant, nodes=2, BROKER__KIND="redis", BROKER__URL=redis.url) as (s, them):
            await them.come(6, at_once=False)
            redis.pause()
            late = asyncio.gather(*(asyncio.wait_for(them.come(1, within_s=30), 30) for _ in range(8)))
            await asyncio.sleep(10)
            redis.resume()
            await all_ready(s.nodes)
            them.refused.clear()
            await them.come(60)
            assert them.refused == []
            await late
            assert is_even(them.spread(), 2), them.spread()


@MANY
async def test_a_node_that_hangs_costs_one_handshake_its_timeout_and_the_next_nothing(
    variant: str, nodes: int, hop: str
) -> None:
    async with crowd(f"{variant}-{hop}", nodes=nodes, EDGE__PROBE_TIMEOUT_S=1) as (s, them):
        await them.come(3 * nodes, at_once=False)
        s.nodes[0].process.signal(signal.SIGSTOP)
        them.waited_s.clear()
        if nodes == 1:
            refused = await ask(s.port, "GET", PATH + "?client=a", UPGRADE)
            assert (refused.status, refused.code) == (502, "unavailable")
        else:
            await them.come(6, at_once=False, within_s=5)
            slow = [waited_s for waited_s in them.waited_s if waited_s > 0.5]
            assert len(slow) == 1
            assert slow[0] < 2
        s.nodes[0].process.signal(signal.SIGCONT)
        await them.reach(s.nodes[0])
        await them.come(30)
        assert is_even(them.spread(), nodes), them.spread()


@pytest.mark.slow
async def test_a_handshake_that_nginx_lets_through_before_a_probe_keeps_no_node_out(variant: str) -> None:
    """nginx forgives by whole seconds. Here one ends while a probe waits for another node, so that its handshake is the
    first request that the node gets which had failed."""
    async with crowd(variant, nodes=3, EDGE__PROBE_TIMEOUT_S=1) as (s, them):
        await them.come(9, at_once=False)
        await _until(math.ceil(time.time()) + 0.2)
        s.nodes[0].process.signal(signal.SIGSTOP)
        await them.leave([peer for peer in them.peers if node_of(peer) == "n1"])
        await them.come(1)
        failed_s = math.floor(time.time())
        s.nodes[0].process.signal(signal.SIGCONT)
        await _until(failed_s + 1.7)
        for node in s.nodes[1:]:
            node.process.signal(signal.SIGSTOP)
        late = asyncio.gather(them.come(1))
        await _until(failed_s + 2.1)
        for node in s.nodes[1:]:
            node.process.signal(signal.SIGCONT)
        if (await late)[0] != ["n1"]:
            await them.reach(s.nodes[0])
        await them.come(60)
        assert is_even(them.spread(), 3), them.spread()


async def _until(clock_s: float) -> None:
    await asyncio.sleep(max(0.0, clock_s - time.time()))


async def test_a_node_that_swallows_connections_costs_one_handshake_its_timeout(variant: str) -> None:
    with black_hole() as port:
        async with stand(variant, nodes=1) as behind:
            upstreams = [f"127.0.0.1:{port}", behind.node.upstream]  # of either kind
            edge = {"EDGE__UPSTREAMS": upstreams, "EDGE__CONNECT_TIMEOUT_S": 1}
            async with crowd(variant, behind=behind, edge=edge) as (_, them):
                await them.come(6, at_once=False, within_s=5)
                slow = [waited_s for waited_s in them.waited_s if waited_s > 0.5]
                assert len(slow) == 1
                assert slow[0] < 2
                assert them.refused == []


async def test_a_socket_for_which_too_many_wait_already_costs_nothing(variant: str) -> None:
    async with stand(variant, nodes=1) as behind:
        path = f"{behind.folder}/full.sock"
        with black_hole(path):
            edge = {"EDGE__UPSTREAMS": [f"unix:{path}", behind.node.upstream]}
            async with crowd(variant, behind=behind, edge=edge) as (s, them):
                s.provoked("Resource temporarily unavailable")
                await them.come(6, at_once=False)
                assert max(them.waited_s) < scaled(0.5), "as if it had been refused on TCP"
                assert them.refused == []


@contextlib.contextmanager
def black_hole(path: str | None = None) -> Iterator[int]:
    """A port whose connections are neither taken nor refused: nobody accepts, and the kernel keeps no more. With a
    ``path`` a Unix socket, of which the kernel says so."""
    family, place = (socket.AF_INET, ("127.0.0.1", 0)) if path is None else (socket.AF_UNIX, path)
    with socket.socket(family) as listener, contextlib.ExitStack() as stack:
        listener.bind(place)
        listener.listen(0)
        if path is not None:
            os.chmod(path, 0o666)
        for _ in range(2):
            sock = stack.enter_context(socket.socket(family))
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1] if path is None else 0


@MANY
async def test_a_draining_node_is_passed_over_and_refuses_only_where_it_is_alone(
    variant: str, nodes: int, hop: str
) -> None:
    async with crowd(f"{variant}-{hop}", nodes=nodes, SERVER__DRAIN_S=1) as (s, them):
        await them.come(3 * nodes, at_once=False)
        s.nodes[0].process.signal(signal.SIGTERM)
        await s.nodes[0].process.line("drain.started")
        if nodes == 1:
            refused = await ask(s.port, "GET", PATH + "?client=a", UPGRADE)
            assert (refused.status, refused.code) == (503, "draining")
            assert int(refused.headers["retry-after"]) > 0
        else:
            names = await them.come(12, at_once=False) + await them.come(12)
            assert set(names) == {node.name for node in s.nodes[1:]}
            assert them.refused == []
        assert await s.nodes[0].process.ended() == 0
        s.nodes[0].start()
        await all_ready(s.nodes)
        await them.come_back()
        await them.reach(s.nodes[0])
        await them.come(60)
        assert is_even(them.spread(), nodes), them.spread()


async def test_a_full_node_is_passed_over_and_where_all_are_full_clients_hear_it(variant: str) -> None:
    async with crowd(variant, nodes=2, LIMITS__CONNECTIONS=4) as (s, them):
        await them.come(8)
        assert them.refused == []
        for _ in range(3):
            refused = await ask(s.port, "GET", PATH + "?client=late", UPGRADE)
            assert (refused.status, refused.code) == (503, "full")
            assert int(refused.headers["retry-after"]) > 0
        await them.leave([peer for peer in them.peers if node_of(peer) == "n1"])
        await eventually(lambda: len(s.nodes[0].process.logged("connection.closed")) == 4)
        assert await them.come(4, at_once=False) == ["n1"] * 4


@pytest.mark.slow
async def test_a_rolling_restart_of_three_nodes_leaves_nobody_out(variant: str) -> None:
    with RedisServer() as redis:
        settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url, "SERVER__DRAIN_S": 3}
        async with crowd(variant, nodes=3, **settings) as (s, them):
            await them.come(60)
            for node in s.nodes:
                node.process.signal(signal.SIGTERM)
                assert await node.process.ended() == 0
                node.start()
                await all_ready(s.nodes)
                await them.come_back()
            assert sum(them.spread()) == 60
            await them.reach(s.nodes[2])
            await them.come(60)
            assert is_even(them.spread(), 3), them.spread()


@pytest.mark.slow
async def test_a_node_that_alone_does_not_reach_redis_is_passed_over(variant: str) -> None:
    with RedisServer() as redis:
        async with Proxy(redis.port) as proxy:
            settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
            async with crowd(variant, nodes=2, first={"BROKER__URL": proxy.url}, **settings) as (s, them):
                await them.come(6, at_once=False)
                proxy.cut()

                async def is_lost() -> bool:
                    return (await ask(s.node.internal, "GET", "/readyz")).status == 503

                await eventually(is_lost, 20)
                assert await them.come(10) == ["n2"] * 10
                assert await them.come(10, at_once=False) == ["n2"] * 10
                assert them.refused == []
                proxy.heal()
                await all_ready(s.nodes)
                await them.reach(s.node)
                await them.come(60)
                assert is_even(them.spread(), 2), them.spread()


async def test_tabs_that_take_over_from_each_other_keep_nobody_out(variant: str) -> None:
    with RedisServer() as redis:
        async with crowd(variant, nodes=2, BROKER__KIND="redis", BROKER__URL=redis.url) as (s, them):
            for _ in range(5):
                tabs = [s.peer("alice", cursor="last") for _ in range(3)]
                await asyncio.gather(them.come(4), *(tab.connect() for tab in tabs))
                await eventually(partial(_are_taken_over, tabs, 2))
                for tab in tabs:
                    await tab.cut()
            assert them.refused == []


async def test_whatever_one_client_sends_keeps_nobody_out(variant: str) -> None:
    cookies = {"Cookie": "a=" + "x" * 9000, "X-Cookie": "b=" + "x" * 9000}
    bodies = [("Content-Length: 2", "{}"), ("Transfer-Encoding: chunked", "2\r\n{}\r\n0\r\n\r\n")]
    async with crowd(variant, nodes=2) as (s, them):
        async with s.peer("large", headers=cookies) as large:
            assert (await large.event())["type"] == "welcome"
        for method, (header, body) in itertools.product(["GET", "POST", "HEAD", "OPTIONS"], bodies):
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(handshake(header, method=method) + body.encode())
            line = await asyncio.wait_for(reader.readline(), scaled(1))
            assert line.split()[1] in (b"101", b"400", b"405"), line
            writer.close()
            await them.come(1, within_s=1)
        assert them.refused == []
