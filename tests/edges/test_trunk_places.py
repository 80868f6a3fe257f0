"""Where trunks end, and what they need: nodes that one name stands for; a worker whose connections are all taken."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.edges.edge import stand
from tests.edges.lua import running
from tests.edges.trunk_node import ScriptedNode
from tests.peer import Peer
from tests.scripted import Names, server
from tests.support import eventually, free_port

HOSTS = ("127.0.0.2", "127.0.0.3")
LEAST = 128  # of edge.worker_connections


async def test_each_address_of_a_name_has_its_trunk_and_takes_what_another_left() -> None:
    names, port = Names(), free_port()
    names.hosts["service"] = [*HOSTS]
    settings: dict[str, Any] = {"EDGE__UPSTREAMS": [f"service:{port}"], "EDGE__TRUNK": True, "EDGE__HOLD_S": 3}
    settings["EDGE__RESOLVER"] = f"127.0.0.1:{await names.start()}"
    async with contextlib.AsyncExitStack() as stack:
        nodes = [ScriptedNode() for _ in HOSTS]
        for node, host in zip(nodes, HOSTS, strict=True):
            await stack.enter_async_context(server(node.public, host, port))
            node.where = str(await stack.enter_async_context(server(node.trunk, host)))
        edge = await stack.enter_async_context(running(**settings))
        edge.provoked("the trunk to .* has ended|no trunk to|Connection refused")
        for _ in range(4):
            peer = await stack.enter_async_context(Peer(edge.port, client="alice"))
            assert await peer.raw() == b"welcome"
        one, other = nodes
        assert [len(node.trunks) for node in nodes] == [1, 1]
        assert len(one.sessions) == len(other.sessions) == 2
        assert one.relayed == other.relayed == 0
        names.hosts["service"] = [HOSTS[1]]
        one.trunks[0].close()
        await eventually(lambda: len(other.cursors) == 2, 10)
        names.stop()


@pytest.mark.slow
async def test_a_worker_without_connections_left_keeps_its_clients_and_finds_its_node_again() -> None:
    async with (
        stand("openresty-trunk", EDGE__WORKER_CONNECTIONS=LEAST, EDGE__HOLD_S=10, GROUPS={"room": {}}) as s,
        contextlib.AsyncExitStack() as stack,
    ):
        s.edge.provoked("worker_connections are not enough|could not create fake connection")
        s.edge.provoked("the trunk to .* has ended|no trunk to|no handshake with|Connection refused")
        peers: list[Peer] = []
        with contextlib.suppress(ConnectionError, EOFError):
            while len(peers) < LEAST:
                peer = await stack.enter_async_context(s.peer(f"c{len(peers)}", groups="room"))
                await peer.event()
                peers.append(peer)
        assert LEAST * 3 / 4 < len(peers) < LEAST
        await s.node.push("groups/room", 1)
        for peer in peers:
            assert (await peer.event())["data"] == 1
        s.node.process.kill()
        await s.node.process.ended()
        s.node.start()
        await s.node.ready()
        for peer in peers:
            assert (await peer.event(10))["reason"] == "reset", "its node keeps journals in memory"
        await s.node.push("groups/room", 2)
        for peer in peers:
            assert (await peer.until(lambda event: event["type"] == "message"))["data"] == 2
        await peers.pop().cut()

        async def is_let_in() -> bool:
            with contextlib.suppress(ConnectionError, EOFError):
                async with s.peer("new") as late:
                    return (await late.event())["type"] == "welcome"
            return False

        await eventually(is_let_in)
