"""What nginx makes of a node that does not keep to the trunk: it says so, ends it, and its clients go on."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.edges.trunk_node import ROOM, ScriptedNode, at, scripted
from tests.peer import Peer
from tests.support import eventually
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind

FOLLOWS_NOT = "a message does not follow where its stream is"
NOT_THERE = "a stream is followed where it is not"
NO_FRAME = "what came is no frame"


def heard_of(payload: bytes) -> bytes:
    return codec.frame(Kind.HEARD, ROOM, payload)


@pytest.mark.parametrize(
    ("why", "fault"),
    [
        (FOLLOWS_NOT, lambda node: node.hear(2, 3)),  # one was lost
        (FOLLOWS_NOT, lambda node: node.hear(0, 1)),  # repeated
        (FOLLOWS_NOT, lambda node: node.raw(heard_of(b""))),
        (FOLLOWS_NOT, lambda node: node.raw(heard_of(b"\xffe"))),
        (NOT_THERE, lambda node: node.follow(at(0))),  # before its position
        (NOT_THERE, lambda node: node.follow(at(2))),
        (NOT_THERE, lambda node: node.follow(at(1), b"other")),  # a stream's number again
        (NOT_THERE, lambda node: node.say(Kind.TRACK, codec.count(ROOM) + b"other")),
        (NO_FRAME, lambda node: node.raw(struct.pack("<IBI", 0, 7, 0))),
        (NO_FRAME, lambda node: node.raw(struct.pack("<IBI", codec.MOST_BYTES + 1, 7, 0))),
        (NO_FRAME, lambda node: node.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    ],
)
async def test_a_fault_of_a_node_ends_its_trunk_and_no_client(why: str, fault: Callable[[ScriptedNode], None]) -> None:
    node = ScriptedNode()
    async with scripted(node) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"welcome"
        node.hear(0, 1)
        assert await alice.raw() == b"1"
        fault(node)
        node.hear(1, 2)  # whatever comes behind it is not looked at
        await eventually(lambda: len(node.cursors) == 1)
        assert node.cursors == [{"room": at(1)}]
        await eventually(lambda: node.ended == 1)
        assert f"has ended: {why}; sessions on it: 1" in edge.process.stderr
        node.hear(1, 2)
        assert await alice.raw() == b"2"
        assert alice.pending() == 0
        assert node.relayed == 0


async def test_what_is_said_to_those_who_have_gone_is_no_fault() -> None:
    node = ScriptedNode()
    async with scripted(node) as edge:
        async with Peer(edge.port, client="alice") as alice:
            await alice.raw()
        await eventually(lambda: Kind.GONE in [kind for kind, _, _ in node.said])
        for kind in (Kind.ACCEPT, Kind.WELCOMED, Kind.SEND, Kind.TRACK, Kind.MOVE, Kind.CLOSE, Kind.TOKEN, Kind.DONE):
            node.say(kind, b"\xff" * 8)
        node.hear(7, 9)
        node.raw(codec.frame(99, 1, b"of a later version"))
        async with Peer(edge.port, client="alice") as alice:
            assert await alice.raw() == b"welcome"
            node.hear(0, 1)
            assert await alice.raw() == b"1"
        assert len(node.trunks) == 1


@pytest.mark.parametrize(
    "node",
    [ScriptedNode(versions=(2, 3)), ScriptedNode(versions=(0, 0)), ScriptedNode(says_hello=False)],
    ids=["later", "earlier", "silent"],
)
async def test_a_node_with_another_trunk_is_relayed_to(node: ScriptedNode) -> None:
    async with scripted(node) as edge:
        for _ in range(2):
            async with Peer(edge.port, client="alice") as alice:
                assert await alice.raw() == b"relayed"
        assert len(node.trunks) == 1  # it is not asked again at once
        await eventually(lambda: "no trunk to" in edge.process.stderr)


async def test_a_node_without_a_trunk_is_relayed_to() -> None:
    node = ScriptedNode()
    async with scripted(node) as edge:
        node.where = None
        for _ in range(3):
            async with Peer(edge.port, client="alice") as alice:
                assert await alice.raw() == b"relayed"
        assert len(node.probes) == 1
        assert b"Tidegate-Trunk: 1\r\n" in node.probes[0]


async def test_without_edge_trunk_nobody_is_asked_for_one() -> None:
    node = ScriptedNode()
    async with scripted(node, EDGE__TRUNK=False) as edge, Peer(edge.port, client="alice") as alice:
        assert await alice.raw() == b"relayed"
        assert not node.probes
        assert not node.trunks
