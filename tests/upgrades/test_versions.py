"""What the last release and this checkout do for each other, in detail: nodes on one Redis, and edges of each in front
of nodes of both."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.brokers.contract_words import SPAN
from tests.brokers.server import RedisServer
from tests.edges.edge import Edge, Node, ask
from tests.http.node import JSON
from tests.peer import Peer
from tests.support import Process, eventually, free_port
from tests.upgrades.versions import EarlierEdge, EarlierNode

pytestmark = pytest.mark.slow

HOLD_S = 2  # for which an edge with trunks keeps clients that no trunk takes
PROVOKED = "trunk|Connection refused|No such file|prematurely closed|reset by peer|no live upstreams|no handshake with"


@pytest.fixture
def folder() -> Iterator[Path]:
    """That nginx' workers may enter, who run as another user where tests run as root."""
    made = Path(tempfile.mkdtemp(prefix="tidegate-upgrades-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextlib.asynccontextmanager
async def two_nodes(folder: Path, **settings: Any) -> AsyncIterator[tuple[Node, Node]]:
    """Of the last release, and of this checkout, with a trunk."""
    with RedisServer() as redis:
        common = {
            "BROKER__KIND": "redis",
            "BROKER__URL": redis.url,
            "SERVER__DRAIN_S": 1,
            "GROUPS": {"room": {"presence": "members", "history": "members"}},
            **settings,
        }
        nodes = (
            EarlierNode(folder / "old", {**common, "SERVER__NODE": "old"}),
            Node(folder / "new", {**common, "SERVER__NODE": "new", "EDGE__TRUNK": True}),
        )
        try:
            for node in nodes:
                node.folder.mkdir()
                node.start()
            for node in nodes:
                await node.ready()
            yield nodes
        finally:
            for node in nodes:
                if hasattr(node, "process"):
                    node.process.kill()


async def welcomed(port: int, client: str, **query: Any) -> tuple[Peer, dict[str, Any]]:
    peer = Peer(port, client=client, **query)
    await peer.connect()
    return peer, await peer.event()


async def push_with_span(node: Node, address: str, text: str) -> None:
    """The last release keeps no spans, and must read on where one is kept."""
    fields = {"Content-Type": JSON, "traceparent": SPAN}
    answer = await ask(node.internal, "POST", f"/api/{address}/push", fields, b'{"data":"%b"}' % text.encode())
    assert answer.status == 202, answer


async def leaves(peer: Peer) -> None:
    peer.close()
    await peer.ended()
    await peer.cut()


async def message(peer: Peer, data: Any) -> None:
    """It comes, once, and before anything else does."""
    event = await peer.until(lambda event: event["type"] != "moving")
    assert (event["type"], event.get("data")) == ("message", data), peer.seen


def has_pings(peer: Peer, count: int) -> bool:
    return len(peer.pings) >= count


async def test_nodes_of_two_versions_know_of_each_other_and_obey_each_other(folder):
    async with two_nodes(folder) as nodes, contextlib.AsyncExitStack() as peers:
        for node in nodes:
            answer = await node.call("GET", "/api/nodes")
            assert len(answer.json["nodes"]) == 2, answer.json
        for here, there in (nodes, nodes[::-1]):
            client = f"alice-{here.name}"
            alice, _ = await welcomed(here.public, client, groups="room")
            peers.push_async_callback(alice.cut)

            async def is_seen(there: Node = there, client: str = client) -> bool:
                present = (await there.call("GET", "/api/groups/room")).json["clients"]
                return client in [one["client"] if isinstance(one, dict) else one for one in present]

            await eventually(is_seen)
            # Memberships, pushes with a key, and orders to close, each given to the other node.
            assert (await there.call("PUT", f"/api/groups/more/members/{client}")).status < 300
            joined = await alice.until(lambda event: event["type"] == "joined")
            assert joined["stream"] == "group:more"
            fields = {"Content-Type": JSON, "Idempotency-Key": f"key-{here.name}"}
            first, again = [
                await ask(node.internal, "POST", f"/api/clients/{client}/push", fields, b'{"data":1}')
                for node in (here, there)
            ]
            assert (first.status, first.json) == (again.status, again.json) == (202, first.json)
            await message(alice, 1)
            assert (await there.call("DELETE", f"/api/clients/{client}")).status < 300
            assert await alice.ended() == 4501
            await alice.cut()


async def test_what_a_client_has_is_remembered_from_one_version_to_the_other_and_back(folder):
    async with two_nodes(folder, HEARTBEAT__WEBSOCKET_PING_INTERVAL=0.2) as nodes:
        alice, _ = await welcomed(nodes[0].public, "alice", cursor="last", groups="room")
        await leaves(alice)
        for number, here in enumerate((*nodes[::-1], *nodes)):
            there = nodes[number % 2]
            await push_with_span(there, "groups/room", f"meanwhile {number}")
            alice, welcome = await welcomed(here.public, "alice", cursor="last", groups="room")
            assert all(state["recovered"] for state in welcome["streams"].values()), str(welcome)
            await message(alice, f"meanwhile {number}")
            await push_with_span(there, "groups/room", f"live {number}")
            await message(alice, f"live {number}")
            known = len(alice.pings) + 2  # of which the second pong is behind what the first one says
            await eventually(partial(has_pings, alice, known))
            await leaves(alice)


async def test_a_client_that_has_moved_is_taken_over_at_a_node_of_the_last_release(folder):
    """Its record names it with the term of its move, which the last release knows nothing of."""
    async with two_nodes(folder, EDGE__HOLD_S=5) as (old, new), contextlib.AsyncExitStack() as ends:
        more = Node(folder / "more", {**new.settings, "SERVER__NODE": "more"})
        more.folder.mkdir()
        upstreams = [new.upstream, more.upstream]
        (folder / "edge").mkdir()
        edge = Edge("openresty", folder / "edge", {"EDGE__UPSTREAMS": upstreams, "EDGE__TRUNK": True})
        edge.start()
        ends.callback(edge.process.kill)
        await edge.ready()
        alice, welcome = await welcomed(edge.port, "alice", cursor="last", device="phone")
        ends.push_async_callback(alice.cut)
        assert welcome["node"].startswith("new."), "the other one does not run yet"
        more.start()
        ends.callback(more.process.kill)
        await more.ready()
        assert await new.process.stop() == 0

        async def has_moved() -> bool:
            found = await more.connections("alice")
            return [str(connection["node"]).partition(".")[0] for connection in found] == ["more"]

        await eventually(has_moved)
        again, _ = await welcomed(old.public, "alice", cursor="last", device="phone")
        ends.push_async_callback(again.cut)
        assert await alice.ended() == 4502


# Edges


class Guest(NamedTuple):
    """A client behind an edge, at a node."""

    edge: str
    port: int
    client: str
    node: str
    peer: Peer
    cursor: str = ""


async def let_in(edges: dict[str, Edge], node: str) -> list[Guest]:
    """One at the node of this name, behind each edge."""
    found = []
    for name, edge in edges.items():
        others: list[Peer] = []  # who stay meanwhile: an edge takes the node with fewer connections
        while len(others) < 8:
            client = f"{name}-{node}-{len(others)}"
            peer, welcome = await welcomed(edge.port, client, groups="room")
            if welcome["node"].startswith(f"{node}."):
                found.append(Guest(name, edge.port, client, node, peer))
                break
            others.append(peer)
        else:
            raise AssertionError(f"{name} lets nobody in at {node}")
        for other in others:
            await other.cut()
    return found


async def is_served(guest: Guest, nodes: tuple[Node, ...], number: int) -> Guest:
    """It hears pushes from these nodes, is called for, and gets an answer to its heartbeat; with its cursor of then."""
    reply = await guest.peer.ask(type="call", id=f"call-{number}", method="echo", data={"n": number})
    assert (reply["type"], reply["status"]) == ("reply", 200), (guest, reply)
    assert reply["data"] == {"n": number}, str(reply)
    for node in nodes:
        await node.push(f"clients/{guest.client}", f"{node.name}-{number}")
        await message(guest.peer, f"{node.name}-{number}")
    pong = await guest.peer.ask(type="ping", id=number)
    return guest._replace(cursor=pong["cursor"])


async def goes_on(guest: Guest, left: Node) -> Guest:
    """Its node stops: it is moved unseen, or closed and comes back by the same edge to the one that is left; without a
    reset, and with what came meanwhile."""
    peer = guest.peer
    await left.push(f"clients/{guest.client}", "meanwhile")
    with contextlib.suppress(TimeoutError):
        code = await peer.ended(HOLD_S + 8)
        assert code == 1012, guest
        await peer.cut()
        peer, welcome = await welcomed(guest.port, guest.client, cursor=guest.cursor)
        assert all(state["recovered"] for state in welcome["streams"].values()), welcome
        assert welcome["node"].startswith(f"{left.name}."), welcome
    await message(peer, "meanwhile")
    return guest._replace(node=left.name, peer=peer)


async def test_each_versions_edges_serve_clients_at_nodes_of_both_versions(folder):
    calls = free_port()
    url = f"http://127.0.0.1:{calls}"
    rest_folder = folder / "rest"
    rest_folder.mkdir()
    async with two_nodes(folder, CALLS__URL=url) as nodes, contextlib.AsyncExitStack() as ends:
        rest = Process(sys.executable, "-m", "examples.rest_app", "--port", str(calls), folder=rest_folder)
        ends.callback(rest.kill)
        edges: dict[str, Edge] = {}
        for variant in ("plain", "njs", "openresty", "openresty-trunk"):
            for kind in (EarlierEdge, Edge):
                if variant == "openresty-trunk" and kind is EarlierEdge:
                    continue  # it knows none
                name = f"{variant}-{kind.__name__}"
                settings = {
                    "EDGE__UPSTREAMS": [node.upstream for node in nodes],
                    "EDGE__TRUNK": variant == "openresty-trunk",
                    "EDGE__HOLD_S": HOLD_S,
                    "CALLS__URL": url,
                }
                (folder / name).mkdir()
                edge = kind(variant.partition("-")[0], folder / name, settings)
                edge.provoked(PROVOKED)
                edge.start()
                ends.callback(edge.process.kill)
                edges[name] = edge
        for edge in edges.values():
            await edge.ready()
        await rest.port(calls)
        old, new = nodes
        for stops, stays in ((old, new), (new, old)):
            let = await let_in(edges, stops.name)
            guests = await asyncio.gather(*(is_served(guest, nodes, 1) for guest in let))
            stops.process.signal(signal.SIGTERM)
            moved = await asyncio.gather(*(goes_on(guest, stays) for guest in guests))
            assert await stops.process.ended() == 0
            await asyncio.gather(*(is_served(guest, (stays,), 2) for guest in moved))
            for guest in moved:
                await guest.peer.cut()
            stops.start()
            await stops.ready()
        assert [(name, edge.complaints()) for name, edge in edges.items() if edge.complaints()] == []
