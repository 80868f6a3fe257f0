"""Sessions of the njs edge with clients and nodes that cost it too much, or say nothing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from tests.edges.edge import Stand, resident_kib, stand
from tests.peer import PING, PONG, TEXT, Peer, frame
from tests.support import eventually

PEERS = 4


@pytest.fixture(scope="module")
def s() -> Iterator[Stand]:
    it = Stand("njs")
    try:
        it.start()
        yield it
    finally:
        it.stop()


@pytest.mark.parametrize(
    ("first", "cheap", "count"),
    [
        pytest.param(
            frame(TEXT, b"a", fin=False), frame(0, b"b", fin=False), 20_000, id="fragments", marks=pytest.mark.slow
        ),
        pytest.param(b"", frame(TEXT, b"pong"), 20_000, id="text pongs", marks=pytest.mark.slow),
        pytest.param(b"", frame(TEXT, b"ping"), 4_000, id="text pings"),
        pytest.param(b"", frame(PONG), 20_000, id="pongs", marks=pytest.mark.slow),
    ],
)
async def test_small_frames_hold_no_more_memory_than_a_sessions_share(
    s: Stand, first: bytes, cheap: bytes, count: int
) -> None:
    """Four sessions of one flood each; before frames were charged, one of the first kind held 13 MB until it ended."""
    peers = [s.peer(f"p{n}") for n in range(PEERS)]
    for peer in peers:
        await peer.connect()
        await peer.event()
    before = sum(map(resident_kib, s.edge.workers()))
    for peer in peers:
        peer.send_raw(first + cheap * count + frame(PING, b"end"))
    await eventually(lambda: all(b"end" in peer.pongs for peer in peers), 20)
    grown = (sum(map(resident_kib, s.edge.workers())) - before) / PEERS
    print(f"KiB held by a session: {grown:.0f}")
    assert grown < 1.5 * 1024
    for peer in peers:
        await peer.cut()


@pytest.mark.slow
async def test_a_node_that_hangs_is_not_spoken_for_and_is_given_up_with_1012() -> None:
    """The edge answers for 5.5 s (an interval, and what a ping may be late), then it leaves pings and calls to the node
    and asks it; after 5 s without an answer it is gone, also for those who say nothing. A node that goes on in time
    keeps its sessions."""
    settings = {
        "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 0.5,
        "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 8,
        "EDGE__READ_TIMEOUT_S": 30,
    }
    async with stand("njs", rest=True, **settings) as s, s.peer("alice") as alice, s.peer("bob") as bob:
        s.provoked("js exception: (Error: the node is silent|TypeError)")
        await alice.event()
        await bob.event()
        workers = s.edge.workers()
        s.node.process.signal(signal.SIGSTOP)
        begun = time.monotonic()
        answered = await _pings(alice, until_s=begun + 7)
        assert 4.5 < answered - begun < 6.5
        bob.send(type="call", id=1, method="echo", data=1)
        s.node.process.signal(signal.SIGCONT)
        assert (await bob.event())["data"] == 1  # made by the node, which had been left it
        await alice.raw()
        assert not alice.gone.is_set()

        s.node.process.signal(signal.SIGSTOP)
        begun = time.monotonic()
        await _pings(alice, until_s=begun + 20)
        assert await alice.ended() == 1012
        assert 8 <= time.monotonic() - begun < 14
        assert await bob.ended() == 1012
        assert time.monotonic() - begun < 14
        s.node.process.signal(signal.SIGCONT)
        async with s.peer("carl") as carl:
            assert (await carl.event())["type"] == "welcome"
        assert s.edge.workers() == workers


async def _pings(peer: Peer, until_s: float) -> float:
    """Sends text pings until then; gives when the last pong came."""
    answered = 0.0
    while time.monotonic() < until_s and not peer.gone.is_set():
        waiting = peer.pending()
        peer.send_text("ping")
        await asyncio.sleep(0.25)
        if peer.pending() > waiting:
            answered = time.monotonic()
    return answered
