"""Nobody outside gets to a trunk or learns where it is, through whichever edge, and nothing that is secret shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import string

import pytest

from tests.edges.edge import ask, stand
from tests.peer import Peer
from tests.support import free_port
from tests.trunk.worker import HANDSHAKE
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind

HELLO = codec.frame(Kind.HELLO, 0, codec.fields(lowest=1, highest=1, worker="w1"))
ODD_KEY = "".join(char for char in string.printable if "!" <= char <= "~")
CLAIMS = {
    "Tidegate-Trunk": "1",
    "X-Tidegate-Next": "404",
    "X-Tidegate-Via": "x",
    "Tidegate-Client": "bob",
    "Tidegate-Connection": "n1-1",
    "X-Client-Id": "bob",
    "X-Connection-Id": "n1-1",
}


async def knock(port: int | str, data: bytes) -> bytes:
    """What comes back within a moment, or until the end."""
    reader, writer = await (
        asyncio.open_unix_connection(port) if isinstance(port, str) else asyncio.open_connection("127.0.0.1", port)
    )
    said = b""
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(0.3):
                while piece := await reader.read(65536):
                    said += piece
    finally:
        writer.close()
    return said


@pytest.mark.parametrize("variant", ["plain", "njs", "openresty", "openresty-trunk"])
async def test_no_way_leads_from_outside_to_a_trunk(variant: str) -> None:
    trunk = {} if variant.endswith("trunk") else {"first": {"EDGE__TRUNK": True}}
    async with stand(variant, **trunk) as s:
        s.provoked("client sent invalid")
        where = f"{s.node.folder}/trunk.sock"
        assert await knock(where, b"") != b"", "the node has one"
        opening = codec.frame(Kind.OPEN, 1, HANDSHAKE.format(query="client=mallory", headers="").encode())
        doors: list[int | str] = [s.edge.port, s.node.public, s.node.internal]
        doors += [s.node.socket] if hasattr(s.node, "socket") else []
        for door in doors:
            said = await knock(door, HELLO + opening)
            assert b"nonce" not in said
            assert b"101" not in said
        for target in ("/.probe", "/.probed", "/.probe?x", "//.probe", "/%2eprobe", "/ws-notifications/../.probe"):
            answer = await ask(s.edge.port, "GET", target, CLAIMS)
            assert answer.status in (400, 403, 404), target
            assert not any(name.lower() == "tidegate-trunk" for name in answer.headers)
            assert where.encode() not in answer.body
        async with Peer(s.edge.port, client="alice", headers=CLAIMS) as alice:
            assert "tidegate-trunk" not in alice.answer_headers
            welcome = await alice.event()
            assert welcome["client"] == "alice"
            assert alice.answer_headers["tidegate-client"] == "alice"
            assert alice.answer_headers["tidegate-connection"] == welcome["connection"] != "n1-1"
        assert not await s.node.connections("mallory")


async def test_a_key_of_odd_characters_opens_a_trunk_over_tcp_and_shows_nowhere() -> None:
    port = free_port()
    async with stand("openresty-tcp", EDGE__TRUNK=True, TRUNK__PORT=port, TRUNK__KEY=ODD_KEY) as s:
        async with s.peer("alice") as alice:
            await alice.event()
            metrics = (await ask(s.node.internal, "GET", "/metrics")).body.decode()
            assert "\ntidegate_trunk_connections 1.0\n" in metrics
        shown = s.node.process.stderr + s.node.process.stdout + s.edge.process.stderr + s.edge.access_log.read_text()
        for key in (ODD_KEY, json.dumps(ODD_KEY)[1:-1]):
            assert key[:40] not in shown
