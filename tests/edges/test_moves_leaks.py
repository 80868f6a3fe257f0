"""Clients that move again and again leave nothing behind: not in nginx's worker, and not in nodes that lose them and
get them back."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from tests.brokers.server import RedisServer
from tests.edges.edge import Stand, ask, resident_kib, stand
from tests.support import Process, eventually

CLIENTS = 300
WARM = 8  # moves, after which memory must not grow: Lua collects garbage when there is as much again
MOVES = 20
GROWN_KIB = 1536  # 300 clients who leave half a KiB behind at each of 11 moves are as much


class Use:
    """Of a process: descriptors, and KiB of its own."""

    def __init__(self, pid: int) -> None:
        self.files = len(os.listdir(f"/proc/{pid}/fd"))
        self.kib = resident_kib(pid)

    def __repr__(self) -> str:
        return f"{self.files} files, {self.kib} KiB"


def use(s: Stand) -> list[Use]:
    (worker,) = s.edge.workers()
    return [Use(pid) for pid in (worker, *(node.process.pid for node in s.nodes))]


def here(process: Process, event: str) -> int:
    return len(process.logged(event))


async def gauge(s: Stand, name: str) -> float:
    text = (await ask(s.edge.internal, "GET", "/metrics")).body.decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0


@pytest.mark.soak
async def test_moves_leave_nothing_behind() -> None:
    with RedisServer() as redis:
        settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url, "EDGE__HOLD_S": 10}
        async with stand("openresty-trunk", nodes=2, **settings) as s:
            s.provoked("the trunk to .* has ended|no trunk to|reset by peer")
            peers = [s.peer(f"c{n}", groups=f"g{n % 10},g{n % 7}") for n in range(CLIENTS)]
            for peer in peers:
                await peer.connect()
                await peer.event()
            uses = []
            for move in range(MOVES):
                stopped, other = s.nodes[move % 2], s.nodes[1 - move % 2]
                closed = here(stopped.process, "trunk.closed")
                stopped.process.signal(signal.SIGSTOP)
                await other.push("all", move)
                for peer in peers:
                    event = await peer.event(20)
                    assert event["data"] == move
                stopped.process.signal(signal.SIGCONT)
                await eventually(lambda: here(stopped.process, "trunk.closed") > closed)  # noqa: B023 - awaited here
                await eventually(lambda: _both_up(s), 10)
                uses.append(use(s))
                print(move, uses[-1])
            await asyncio.sleep(7)  # held tasks have ended
            for before, after in zip(uses[WARM], use(s), strict=True):
                print(before, after)
                assert after.files <= before.files + 1  # a node holds one more when it was not the last to hang
                assert after.kib <= before.kib + GROWN_KIB
            assert await gauge(s, "tidegate_edge_held") == 0
            assert await gauge(s, "tidegate_edge_websockets") == CLIENTS
            await asyncio.gather(*(peer.cut() for peer in peers))
            await eventually(lambda: _none_left(s))


async def _both_up(s: Stand) -> bool:
    """A trunk is dialled when somebody wants one: a handshake does."""
    async with s.peer("somebody") as peer:
        await peer.event()
    async with s.peer("somebody") as peer, s.peer("somebody") as other:
        await peer.event()
        await other.event()
    return await gauge(s, "tidegate_edge_trunks") == 2


async def _none_left(s: Stand) -> bool:
    return await gauge(s, "tidegate_edge_websockets") == 0
