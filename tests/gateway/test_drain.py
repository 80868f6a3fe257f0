"""A node that stops: who is told to move, when, and what becomes of it until it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.brokers.nodes import shorter
from tests.brokers.server import RedisServer
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually, scaled
from tidegate.app import App
from tidegate.brokers.redis import broker as broker_redis
from tidegate.core.errors import BrokerDown
from tidegate.core.model import NodeInfo, Publication
from tidegate.gateway import drain


def node(name: str = "n2", *, draining: bool = False, lag_ms: float | None = 0.1) -> NodeInfo:
    return NodeInfo(name, "1", 0, 0, draining, lag_ms)


def knows(app: App, nodes: Callable[[], list[NodeInfo]]) -> None:
    """What the broker says of the nodes: an embedded one has no others."""

    async def others() -> list[NodeInfo]:
        return nodes()

    app.broker.nodes = others  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def crowd(app: App, count: int) -> AsyncIterator[list[Peer]]:
    peers = [Peer(app.public_port, client=f"c{number}") for number in range(count)]
    try:
        for peer in peers:
            await peer.connect()
            assert (await peer.event())["type"] == "welcome"
        yield peers
    finally:
        for peer in peers:
            await peer.cut()


@contextlib.asynccontextmanager
async def draining(app: App, seconds: float) -> AsyncIterator[None]:
    """Begun, and at its end at the end."""
    task = asyncio.ensure_future(app.drain(seconds))  # noqa: TID251 - awaited below
    try:
        yield
        await task
    finally:
        task.cancel()


class Times:
    """When a peer was told that it moves, and when it was closed."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.told_s: float | None = None
        self.closed_s = 0.0
        self.within: Any = None

    async def watch(self, begun_s: float) -> None:
        with contextlib.suppress(AssertionError):  # closed
            event = await self._peer.until(lambda event: event["type"] == "moving", 10)
            self.told_s, self.within = time.monotonic() - begun_s, event["within"]
        assert await self._peer.ended(10) == 1012
        self.closed_s = time.monotonic() - begun_s


async def drained(app: App, peers: list[Peer], seconds: float) -> list[Times]:
    """In the order in which they were closed."""
    times = [Times(peer) for peer in peers]
    begun_s = time.monotonic()
    async with draining(app, seconds):
        await asyncio.gather(*(each.watch(begun_s) for each in times))
    return sorted(times, key=lambda each: each.closed_s)


async def test_each_is_told_in_the_first_half_and_closed_half_a_drain_later() -> None:
    async with running() as app, crowd(app, 10) as peers:
        knows(app, lambda: [node(app.node), node()])
        times = await drained(app, peers, 1.2)
        told_s = [each.told_s for each in times if each.told_s is not None]
        assert len(told_s) == 10
        assert {each.within for each in times} == {0.6}
        assert told_s == sorted(told_s)
        assert 0.4 <= max(told_s) < scaled(1)
        assert max(b - a for a, b in itertools.pairwise(told_s)) < 0.4, "they were told in bursts"
        for each in times:
            assert each.told_s is not None
            assert 0.5 <= each.closed_s - each.told_s < scaled(0.9)
        assert all(len(peer.pings) == 1 for peer in peers), "a ping went with it"
        assert app.metrics.moving == 10


@pytest.mark.parametrize(
    "others",
    [[], [node("this")], [node(draining=True)], [node(lag_ms=None)]],
    ids=["nobody", "this one", "one that drains", "one that is not ready"],
)
async def test_without_another_ready_node_nobody_is_told_and_all_are_closed_over_the_whole_drain(
    others: list[NodeInfo],
) -> None:
    async with running() as app, crowd(app, 5) as peers:
        knows(app, lambda: [node(app.node) if info.node == "this" else info for info in others])
        times = await drained(app, peers, 0.8)
        assert [each.told_s for each in times] == [None] * 5
        assert times[0].closed_s < scaled(0.3)
        assert times[-1].closed_s >= 0.6
        assert app.metrics.moving == 0


async def test_the_embedded_broker_knows_no_other_node() -> None:
    async with running() as app, crowd(app, 2) as peers:
        assert [each.told_s for each in await drained(app, peers, 0.2)] == [None, None]


async def test_a_drain_of_no_time_tells_nobody() -> None:
    async with running() as app, crowd(app, 2) as peers:
        knows(app, lambda: [node()])
        assert [each.told_s for each in await drained(app, peers, 0)] == [None, None]


async def test_what_is_known_of_other_nodes_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "LOOK_S", 0.05)
    async with running() as app, crowd(app, 8) as peers:
        begun_s = time.monotonic()

        def nodes() -> list[NodeInfo]:
            if time.monotonic() - begun_s < 0.3:
                raise BrokerDown("no answer")
            return [node()]

        knows(app, nodes)
        begun_s = time.monotonic()
        times = await drained(app, peers, 1.2)
        told_s = [each.told_s for each in times if each.told_s is not None]
        assert 1 <= len(told_s) < 8
        assert min(told_s) >= 0.3


async def test_commands_and_messages_go_on_meanwhile() -> None:
    async with running() as app, crowd(app, 1) as (alice,):
        knows(app, lambda: [node()])
        async with draining(app, 60):
            assert await alice.event() == {"type": "moving", "within": 30}
            joined = await alice.ask(type="join", id=1, group="news")
            await app.gateway.push([Publication("group:news", b"1"), Publication("client:c0", b"2")])
            assert sorted(event["data"] for event in await alice.events(2)) == [1, 2]
            assert (await alice.ask(type="leave", id=2, group="news"))["stream"] == joined["stream"]
            alice.close()


async def test_who_closes_by_itself_is_waited_for_no_longer() -> None:
    async with running() as app, crowd(app, 3) as peers:
        knows(app, lambda: [node()])
        begun_s = time.monotonic()
        async with draining(app, 60):
            assert (await peers[0].event())["type"] == "moving"
            for peer in peers:
                peer.close()
        assert time.monotonic() - begun_s < scaled(5)


# With another node


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_redis, "Timing", shorter)


@pytest.mark.usefixtures("fast")
async def test_with_cursor_last_the_new_connection_takes_the_record_and_the_old_one_reads_on() -> None:
    with RedisServer() as redis:
        settings: dict[str, Any] = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
        async with running(**settings) as old, running(**settings, SERVER__NODE="n2") as new:
            await eventually(lambda: is_known(old, new))
            async with Peer(old.public_port, client="alice", cursor="last") as before:
                await before.events(3)
                await old.gateway.push([Publication("client:alice", b"1")])
                assert (await before.event())["data"] == 1
                async with draining(old, 3):
                    assert (await before.event())["type"] == "moving"
                    await eventually(lambda: before.pings)
                    before.pong = False  # what is pushed now is never confirmed by it
                    await eventually(lambda: confirmed(old, new, 1))
                    await new.gateway.push([Publication("client:alice", b"2")])
                    assert (await before.event())["data"] == 2
                    async with Peer(new.public_port, client="alice", cursor="last", pong=False) as after:
                        fields = (await after.event())["streams"]["client:alice"]
                        assert (fields["recovered"], fields["offset"], fields["missed"]) == (True, 1, 1)
                        assert (await after.event())["data"] == 2
                        await new.gateway.push([Publication("client:alice", b"3")])
                        assert [(await peer.event())["data"] for peer in (before, after)] == [3, 3]
                        assert (await before.ask(type="ping", id=1))["type"] == "pong"
                        assert await before.ended() == 1012, "and it answers: everything has reached it"
                        assert not after.gone.is_set()
                    async with Peer(new.public_port, client="alice", cursor="last") as again:
                        assert (await again.event())["streams"]["client:alice"]["offset"] == 1, (
                            "the record is another's"
                        )


async def is_known(one: App, two: App, *, draining: bool = False) -> bool:
    """Whether one knows that the other is ready, or drains."""
    infos = {info.node: info for info in await one.broker.nodes()}
    found = infos.get(two.node)
    return found is not None and found.lag_ms is not None and found.draining is draining


async def confirmed(old: App, new: App, offset: int) -> bool:
    """Whether the record of alice has come to an offset."""
    (session,) = old.hub.of_client("alice")
    confirmations = session.confirmations
    if confirmations is None or confirmations.saving or confirmations.unsaved:
        return False
    return confirmations.confirmed["client:alice"].offset == offset


@pytest.mark.usefixtures("fast")
async def test_nodes_that_stop_together_tell_nobody_to_go_to_each_other() -> None:
    with RedisServer() as redis:
        settings: dict[str, Any] = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
        async with running(**settings) as one, running(**settings, SERVER__NODE="n2") as two, crowd(one, 4) as peers:
            await eventually(lambda: is_known(one, two))
            async with draining(two, 0):
                pass
            await eventually(lambda: is_known(one, two, draining=True))
            assert [each.told_s for each in await drained(one, peers, 0.3)] == [None] * 4
