"""Redis from a backup: what clients know that it no longer does is told, and no position comes to stand for another
message. The steps are those of docs/upgrading.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.edges.edge import Node, ask
from tests.http.node import JSON
from tests.peer import Peer
from tests.support import eventually

pytestmark = pytest.mark.slow

KEPT: dict[str, dict[str, Any]] = {"rdb": {"save": "3600 1"}, "aof": {"appendonly": "yes"}}


async def comes(port: int, **query: Any) -> tuple[Peer, dict[str, Any]]:
    peer = Peer(port, client="alice", groups="room", **query)
    await peer.connect()
    return peer, await peer.event()


async def hears(peer: Peer, *wanted: Any) -> None:
    """Each of these, whatever comes between them."""
    for data in wanted:
        while (await peer.event()).get("data") != data:
            pass


async def leaves(peer: Peer) -> str:
    """The cursor that it has."""
    cursor: str = (await peer.ask(type="ping", id=1))["cursor"]
    peer.close()
    await peer.ended()
    await peer.cut()
    return cursor


async def push(node: Node, data: str) -> tuple[str, int]:
    """Each with its text for a key; its position."""
    fields = {"Content-Type": JSON, "Idempotency-Key": data}
    answer = await ask(node.internal, "POST", "/api/groups/room/push", fields, b'{"data":"%b"}' % data.encode())
    assert answer.status == 202, answer
    return answer.json["epoch"], answer.json["offset"]


@pytest.mark.parametrize(("kind", "nodes"), [("rdb", "stopped"), ("aof", "stopped"), ("aof", "running")], ids="-".join)
async def test_after_a_restore_newer_cursors_are_told_and_nothing_stands_for_something_else(
    tmp_path: Path, kind: str, nodes: str
) -> None:
    with RedisServer(**KEPT[kind]) as server:
        node = Node(tmp_path, {"SERVER__NODE": "n1", "BROKER__KIND": "redis", "BROKER__URL": server.url})
        try:
            node.start()
            await node.ready()
            alice, _ = await comes(node.public)
            bob, _ = await comes(node.public, cursor="last", device="phone")
            before = [await push(node, "one")]
            await hears(alice, "one")
            cursor_of_old: str = (await alice.ask(type="ping", id=1))["cursor"]
            before.append(await push(node, "two"))
            await hears(alice, "two")
            cursor_of_then = await leaves(alice)

            # The backup; life goes on.
            if kind == "rdb":
                server.command("SAVE")
            server.copy()
            alice, _ = await comes(node.public, cursor=cursor_of_then)
            lost = [await push(node, text) for text in ("three", "four")]
            await hears(alice, "three", "four")
            await hears(bob, "one", "two", "three", "four")
            cursor_of_now = await leaves(alice)
            await leaves(bob)

            # The restore.
            if nodes == "stopped":
                assert await node.process.stop() == 0
            server.kill()
            server.restore()
            server.start()
            if nodes == "stopped":
                node.start()
                await node.ready()
            await is_up(node)
            again, other = await push(node, "four"), await push(node, "other")
            assert not {again, other} & {*before, *lost}, "a position that stood for something else"

            for query, missed in (
                ({"cursor": cursor_of_now}, ()),
                ({"cursor": cursor_of_then}, ()),
                ({"cursor": cursor_of_old}, ("two",)),
                ({"cursor": "last", "device": "phone"}, ()),
            ):
                alice, welcome = await comes(node.public, **query)
                state = welcome["streams"]["group:room"]
                assert state["recovered"] is False, (query, welcome)
                gap = await alice.until(lambda event: event.get("stream") == "group:room")
                assert (gap["type"], gap["reason"]) == ("gap", "reset"), (query, gap)
                await hears(alice, *missed, "four", "other")
                await leaves(alice)
            went_back = node.process.logged("redis.went_back")
            assert len(went_back) == 1
        finally:
            node.process.kill()


async def is_up(node: Node) -> None:
    async def ready() -> bool:
        return (await node.call("GET", "/readyz")).status == 200

    await eventually(ready, 20)
