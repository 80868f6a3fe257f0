"""Two nodes behind an edge, of which one stops: applications on the asyncio client notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time

import pytest

from tests.brokers.server import RedisServer
from tests.edges.crowd import all_ready
from tests.edges.edge import Node, stand
from tests.support import eventually, scaled
from tidegate_client import Client, Message


class Listener:
    def __init__(self, url: str, name: str) -> None:
        self.client = Client(url, client=name)
        self.got: list[tuple[int, float]] = []
        self.states: list[str] = []
        self.told: list[object] = []
        self.client.on("state", lambda state, reason: self.states.append(state))
        self.client.group("news", self._take, on_gap=self.told.append, on_joined=self.told.append)

    def _take(self, message: Message) -> None:
        self.got.append((message.data, time.monotonic()))


async def know_each_other(nodes: list[Node]) -> None:
    async def known() -> bool:
        found = [(await node.call("GET", "/api/nodes")).json["nodes"] for node in nodes]
        return all(sum(info["lag_ms"] is not None for info in infos) == len(nodes) for infos in found)

    await eventually(known, 10)


@pytest.mark.slow
async def test_a_node_that_stops_is_not_noticed() -> None:
    with RedisServer() as redis:
        settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url, "SERVER__DRAIN_S": "2"}
        async with stand("plain", nodes=2, **settings) as s, contextlib.AsyncExitStack() as stack:
            leaving, staying = s.nodes
            await all_ready(s.nodes)
            await know_each_other(s.nodes)
            url = f"ws://127.0.0.1:{s.edge.port}/ws-notifications/"
            listeners = [Listener(url, f"c{number}") for number in range(10)]
            for listener in listeners:
                await stack.enter_async_context(listener.client)
            leaving.process.signal(signal.SIGTERM)
            pushed = 0
            while leaving.process.exit_code is None:
                pushed += 1
                await staying.push("groups/news", pushed)
                await asyncio.sleep(0.01)
            await eventually(lambda: all(len(listener.got) == pushed for listener in listeners))
            for listener in listeners:
                assert [number for number, _ in listener.got] == list(range(1, pushed + 1))
                assert max(b - a for (_, a), (_, b) in itertools.pairwise(listener.got)) < scaled(1)
                assert listener.states == ["connecting", "connected"]
                assert len(listener.told) == 1  # that it has joined
            assert any(listener.client._connector._number > 1 for listener in listeners), "nobody had to move"
