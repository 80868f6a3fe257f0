"""What all clients on trunks of a worker have not taken is bounded, and a message to many counts once."""

from __future__ import annotations

import contextlib
import re

import pytest

from tests.edges.edge import Stand, stand
from tests.peer import Peer
from tests.support import eventually

KIB = 1024
MOST = 2048 * KIB
OUTBOX = 512 * KIB
PART = "x" * 16 * KIB
SHARED, OWN = 26, 10  # parts, of which the kernel holds about nine: with the others a client is below its own limit
CLIENTS = 13
ALL_OWN = 3 * 1024 * KIB  # counted once; counted for each it would be 5 MiB


def _closed(s: Stand) -> list[str]:
    return [line["client"] for line in s.edge.log() if line["close_code"] == 4008]


@pytest.mark.slow
async def test_room_is_made_where_all_have_too_much_unsent_and_what_they_share_counts_once() -> None:
    async with (
        stand("openresty-trunk", LIMITS__ALL_OUTBOX_BYTES=MOST, LIMITS__OUTBOX_BYTES=OUTBOX) as s,
        contextlib.AsyncExitStack() as stack,
        s.peer("neighbour", groups="room") as neighbour,
    ):
        peers: list[Peer] = []
        for number in range(CLIENTS):
            peers.append(await stack.enter_async_context(s.peer(f"p{number}", groups="room", rcvbuf=8 * KIB)))
        for peer in [*peers, neighbour]:
            await peer.event()
        for peer in peers:
            peer.reading.clear()
        for _ in range(SHARED):
            await s.node.push("groups/room", PART)
            assert (await neighbour.event(5))["data"] == PART
        for _ in range(OWN):
            for number in range(CLIENTS):
                await s.node.push(f"clients/p{number}", PART)
        found = await eventually(lambda: re.search(r"too much is unsent: (\d+)", s.edge.process.stderr), 5)
        assert MOST < int(found[1]) < ALL_OWN
        for peer in peers:
            peer.reading.set()
        await eventually(lambda: _closed(s), 10)
        assert len(_closed(s)) < CLIENTS, "who is left has room"
        await s.node.push("groups/room", "still here")
        assert (await neighbour.event(5))["data"] == "still here"
