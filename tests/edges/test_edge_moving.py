"""A node stops, or an edge reloads: clients that connect anew before the old connection ends miss no moment."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.edges.crowd import all_ready
from tests.edges.edge import Node, Stand, stand
from tests.peer import Peer
from tests.support import eventually, scaled
from tidegate.core.model import Position, encode_cursor

STREAM = "group:news"


class Mover:
    """What docs/protocol.md says of ``moving``, and nothing else. ``got`` is what its application is told: the data of
    each message, and when."""

    def __init__(self, s: Stand, name: str) -> None:
        self._stand = s
        self._name = name
        self.positions: dict[str, Position] = {}
        self.got: list[tuple[Any, float]] = []
        self.nodes: list[str] = []  # that welcomed it
        self.ends: list[int | None] = []  # how its connections ended
        self.within: Any = None
        self.current = s.peer(name, groups="news")

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.current.connect()
        self._welcomed(await self.current.event())
        while True:
            event = await self.current.event(20)
            if event["type"] == "moving":
                self.within = event["within"]
                await self._move()
            else:
                self._take(event)

    async def _move(self) -> None:
        cursor = encode_cursor(self.positions)
        assert cursor is not None
        old, new = self.current, self._stand.peer(self._name, cursor=cursor)
        welcome = asyncio.ensure_future(_first(new))  # noqa: TID251 - awaited below
        while not welcome.done():
            coming = asyncio.ensure_future(old.event(20))  # noqa: TID251 - awaited or cancelled below
            await asyncio.wait({coming, welcome}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                self._take(await coming)
            else:
                coming.cancel()
        self.current = new
        self._welcomed(await welcome)
        self.ends.append(await _close(old))

    def _welcomed(self, event: dict[str, Any]) -> None:
        self.nodes.append(event["node"].partition(".")[0])
        for stream, fields in event["streams"].items():
            held = self.positions.get(stream)
            if held is None or held.epoch != fields["epoch"] or held.offset < fields["offset"]:
                self.positions[stream] = Position(fields["epoch"], fields["offset"])

    def _take(self, event: dict[str, Any]) -> None:
        assert event["type"] == "message"
        held = self.positions[event["stream"]]
        if event["epoch"] == held.epoch and event["offset"] <= held.offset:
            return  # it came on both
        assert event["offset"] == held.offset + 1, "a hole"
        self.positions[event["stream"]] = Position(event["epoch"], event["offset"])
        self.got.append((event["data"], time.monotonic()))


async def _first(peer: Peer) -> dict[str, Any]:
    await peer.connect()
    return await peer.event()


async def _close(peer: Peer) -> int | None:
    peer.answer_close = False  # what comes is the answer to ours
    peer.close()
    code = await peer.ended()
    await peer.cut()
    return code


async def _know_each_other(nodes: list[Node]) -> None:
    async def known() -> bool:
        found = [(await node.call("GET", "/api/nodes")).json["nodes"] for node in nodes]
        return all(sum(info["lag_ms"] is not None for info in infos) == len(nodes) for infos in found)

    await eventually(known, 10)


@contextlib.asynccontextmanager
async def moving(s: Stand, count: int) -> AsyncIterator[list[Mover]]:
    """So many of them, welcomed."""
    movers = [Mover(s, f"c{number}") for number in range(count)]
    running = [asyncio.ensure_future(mover.run()) for mover in movers]  # noqa: TID251 - ended below
    try:
        await eventually(lambda: all(mover.nodes for mover in movers))
        yield movers
        assert not any(task.done() for task in running), [task for task in running if task.done()]
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for mover in movers:
            await _close(mover.current)


async def push_until(node: Node, ended: Callable[[], bool]) -> int:
    """A steady stream of numbers, in which a pause would show; the last one."""
    pushed = 0
    while not ended():
        pushed += 1
        await node.push("groups/news", pushed)
        await asyncio.sleep(0.01)
    return pushed


async def nobody_noticed(movers: list[Mover], pushed: int) -> None:
    await eventually(lambda: all(len(mover.got) == pushed for mover in movers))
    for mover in movers:
        assert [data for data, _ in mover.got] == list(range(1, pushed + 1)), "once, and in order"
        assert max(b - a for (_, a), (_, b) in itertools.pairwise(mover.got)) < scaled(1)


@pytest.mark.parametrize(
    "variant",
    ["plain", pytest.param("njs", marks=pytest.mark.slow), pytest.param("openresty", marks=pytest.mark.slow)],
)
async def test_who_connects_anew_first_misses_no_moment_of_a_node_that_stops(variant: str) -> None:
    with RedisServer() as redis:
        settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url, "SERVER__DRAIN_S": "1.6"}
        async with stand(variant, nodes=2, **settings) as s:
            leaving, staying = s.nodes
            await all_ready(s.nodes)
            await _know_each_other(s.nodes)
            async with moving(s, 10) as movers:
                assert {node for mover in movers for node in mover.nodes} == {leaving.name, staying.name}
                leaving.process.signal(signal.SIGTERM)
                pushed = await push_until(staying, lambda: leaving.process.exit_code is not None)
                await nobody_noticed(movers, pushed)
                moved = [mover for mover in movers if mover.nodes[0] == leaving.name]
                assert {(*mover.nodes, mover.within, *mover.ends) for mover in moved} == {
                    (leaving.name, staying.name, 0.8, 1000)
                }


@pytest.mark.slow
async def test_who_connects_anew_first_misses_no_moment_of_an_openresty_edge_that_reloads() -> None:
    async with stand("openresty", edge={"EDGE__SHUTDOWN_TIMEOUT_S": 4}) as s, moving(s, 10) as movers:
        await s.edge.reload()
        pushed = await push_until(s.node, lambda: len(s.edge.workers()) == 1)
        await nobody_noticed(movers, pushed)
        assert {(mover.within, *mover.ends) for mover in movers} == {(1, 1000)}
