"""Workers of nginx with trunks: reloaded, killed, hung; and what the node keeps of them."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from tests.edges.edge import Stand, ask, stand
from tests.support import eventually


async def gauge(s: Stand, name: str) -> float:
    text = (await ask(s.node.internal, "GET", "/metrics")).body.decode()
    found = re.search(rf"^{name} (\S+)$", text, re.M)
    assert found is not None, name
    return float(found[1])


async def is_at(s: Stand, name: str, value: float) -> None:
    async def has_come() -> bool:
        return await gauge(s, name) == value

    await eventually(has_come, 10)


@pytest.mark.slow
async def test_old_and_new_workers_have_trunks_side_by_side_and_the_old_ones_let_go() -> None:
    async with stand("openresty-trunk", EDGE__SHUTDOWN_TIMEOUT_S=2) as s, s.peer("old", groups="room") as old:
        await old.event()
        await s.edge.reload()
        async with s.peer("new", groups="room") as new:
            await new.event()
            await is_at(s, "tidegate_trunks", 2)
            await s.node.push("groups/room", 1)
            assert (await old.event())["data"] == 1
            assert (await new.event())["data"] == 1
            moving = await old.event()
            assert moving["type"] == "moving"
            assert await old.ended(10) == 1001
            await is_at(s, "tidegate_trunks", 1)
            await eventually(lambda: len(s.edge.workers()) == 1)
            await s.node.push("groups/room", 2)
            assert (await new.event())["data"] == 2


async def test_a_worker_that_is_killed_takes_its_clients_and_leaves_nothing() -> None:
    async with stand("openresty-trunk", EDGE__HOLD_S=0) as s:
        s.provoked("exited on signal 9")
        (worker,) = s.edge.workers()
        async with s.peer("alice", groups="room") as alice:
            await alice.event()
            os.kill(worker, signal.SIGKILL)
            assert await alice.ended() is None
        await is_at(s, "tidegate_trunks", 0)
        assert await gauge(s, "tidegate_trunk_connections") == 0
        async with s.peer("alice", groups="room") as alice:
            welcome = await alice.event()
            assert welcome["connection"].endswith("-2")
            assert await gauge(s, "tidegate_connections") == 1
            await is_at(s, "tidegate_trunks", 1)


@pytest.mark.slow
async def test_clients_of_an_edge_that_hangs_for_a_while_go_on() -> None:
    """The node gives its trunk up after 5 s; when it wakes its sessions come back to the same node."""
    async with stand("openresty-trunk", EDGE__HOLD_S=3) as s, s.peer("alice", groups="room") as alice:
        s.provoked("the trunk to .* has ended|Broken pipe|reset by peer")
        welcome = await alice.event()
        (worker,) = s.edge.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            await s.node.process.line("trunk.silent", 9)
            await is_at(s, "tidegate_trunk_connections", 0)
            await s.node.push("groups/room", 1)
        finally:
            os.kill(worker, signal.SIGCONT)
        await s.node.push("groups/room", 2)
        assert [(await alice.event())["data"] for _ in range(2)] == [1, 2]
        (there,) = await s.node.connections("alice")
        assert there["connection"] == welcome["connection"]


async def test_several_workers_have_a_trunk_each() -> None:
    async with stand("openresty-trunk", edge={"EDGE__WORKERS": 3}) as s:
        peers = [s.peer(f"c{n}", groups="room") for n in range(24)]
        for peer in peers:
            await peer.connect()
            await peer.event()
        trunks = await gauge(s, "tidegate_trunks")
        assert 1 <= trunks <= 3
        assert await gauge(s, "tidegate_trunk_connections") == 24
        await s.node.push("groups/room", 1)
        for peer in peers:
            assert (await peer.event())["data"] == 1
        assert await gauge(s, "tidegate_trunk_messages_total") == trunks
        await asyncio.gather(*(peer.cut() for peer in peers))
        await is_at(s, "tidegate_trunk_connections", 0)
        assert await gauge(s, "tidegate_connections") == 0
