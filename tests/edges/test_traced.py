"""A message is lost on the way through a real edge, by a node that dies; the command says so within a minute."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

from tests.brokers.server import RedisServer
from tests.edges.edge import Node, stand
from tests.support import ROOT, eventually, scaled
from tidegate.core.model import Position, encode_cursor

MINUTE_S = 60


async def told(node: Node, *args: str) -> list[str]:
    """What the command, run as a program, says first."""
    url = f"http://localhost:{node.internal}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate", "trace", *args, "--url", url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [line.partition(": ")[2] for line in out.decode().splitlines() if line.startswith("  => ")]


@pytest.mark.slow  # real processes: two nodes, Redis, nginx, and the command
@pytest.mark.parametrize("variant", ["plain", "openresty-trunk"])
async def test_what_a_killed_node_had_is_found_by_trace(variant: str) -> None:
    with RedisServer() as redis:
        async with stand(variant, nodes=2, BROKER__KIND="redis", BROKER__URL=redis.url) as s:
            s.provoked(
                "the trunk to .* has ended|no trunk to|Connection refused|reset by peer|no handshake with|prematurely"
            )
            async with s.peer("alice", groups="room") as alice:
                welcome = await alice.event()
                killed, left = s.nodes
                if not welcome["node"].startswith(f"{killed.name}."):
                    killed, left = left, killed
                first = await left.push("groups/room", "first")
                await alice.until(lambda event: event["type"] == "message")
                (verdict,) = await told(left, "group:room", "1", "--client", "alice")
                assert ("handed to" if variant == "openresty-trunk" else "written to") in verdict
                killed.process.kill()
                begun_s = time.monotonic()

                async def is_named() -> bool:
                    verdicts = await told(left, "group:room", "1", "--client", "alice")
                    return any(words.startswith(f"node {welcome['node']} died") for words in verdicts)

                await eventually(is_named, 30)
                assert time.monotonic() - begun_s < scaled(MINUTE_S)
                second = await left.push("groups/room", "second")
                where = f"{second['epoch']}:{second['offset']}"
                if variant == "openresty-trunk":  # the edge has taken her to the other node
                    await alice.until(lambda event: event.get("data") == "second")
                    (verdict,) = [words for words in await told(left, "group:room", where) if "went to" in words]
                    assert "went to 1 connection" in verdict
                    return
                verdicts = await told(left, "group:room", where, "--client", "alice")
                assert any(f"alice was connected to {welcome['node']}" in words for words in verdicts), verdicts
            cursor = encode_cursor({"group:room": Position(first["epoch"], first["offset"])})
            assert cursor is not None
            async with s.peer("alice", cursor=cursor) as alice:
                await alice.until(lambda event: event.get("data") == "second")
                verdicts = await told(left, "group:room", where, "--client", "alice")
                assert any(
                    "written to the socket of alice" in words and "from the journal" in words for words in verdicts
                )
