"""Clients on a trunk that send and don't read: what waits for them is bounded, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import socket
import time
from functools import partial

from tests.edges.edge import Stand, stand
from tests.edges.flood import KINDS
from tests.handshakes import handshake
from tests.peer import PING, frame
from tests.support import eventually

MOST_BYTES = 12 * 1024 * 1024  # what the kernel and an outbox hold in both directions, generously
QUIET_S = 0.4
LEAST_OUTBOX_BYTES = 262_144 + 65_536


async def takes(s: Stand, unit: bytes) -> int:
    """How many bytes a client that reads nothing gets rid of, until nothing more goes for a while."""
    with socket.create_connection(("127.0.0.1", s.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(handshake(target="/ws-notifications/?client=flooder"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
        sock.setblocking(False)
        chunk, sent, at, moved_s = unit * (65536 // len(unit)), 0, 0, time.monotonic()
        while time.monotonic() - moved_s < QUIET_S and sent <= MOST_BYTES:
            try:
                taken = sock.send(memoryview(chunk)[at:])
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            sent, at, moved_s = sent + taken, (at + taken) % len(chunk), time.monotonic()
        return sent


def _has_ended(s: Stand, count: int) -> bool:
    return len(s.edge.log()) == count


async def test_who_does_not_read_is_not_read() -> None:
    async with stand("openresty-trunk") as s:
        for number, kind in enumerate(["ping", "heartbeat", "command", "call"]):
            unit = KINDS[kind] if kind != "ping" else frame(PING, b"x" * 125)
            assert await takes(s, unit) < MOST_BYTES, kind
            await eventually(partial(_has_ended, s, number + 1))
            assert s.edge.log()[-1]["close_code"] in (None, 1006), "it was open until it went"


async def test_who_reads_late_gets_all_answers_also_with_a_small_outbox() -> None:
    """What was written and not told to the node must stay below what the node waits for."""
    answers = 150
    async with stand("openresty-trunk", LIMITS__OUTBOX_BYTES=LEAST_OUTBOX_BYTES) as s:
        async with s.peer("alice", groups="room", rcvbuf=8192) as alice:
            await alice.event()
            for _ in range(6):
                await s.node.push("groups/room", "x" * 10_000)
                await alice.event()
            alice.reading.clear()
            for number in range(answers):
                alice.send(type="history", id=number, group="room", limit=6)
            await asyncio.sleep(QUIET_S)
            alice.reading.set()
            for number in range(answers):
                assert (await alice.event())["id"] == number


async def test_who_sends_more_than_a_connection_may_is_read_more_slowly_and_a_neighbour_notices_nothing() -> None:
    async with stand("openresty-trunk", LIMITS__MESSAGES_PER_SECOND=100) as s:
        async with s.peer("mallory") as mallory, s.peer("alice") as alice:
            await mallory.event()
            await alice.event()
            begun_s = time.monotonic()
            for number in range(600):
                mallory.send(type="ping", id=number)
            for number in range(20):
                asked_s = time.monotonic()
                assert (await alice.ask(type="ping", id=number))["type"] == "pong"
                assert time.monotonic() - asked_s < 1
            for number in range(600):
                assert (await mallory.event(10))["id"] == number
            assert time.monotonic() - begun_s > 0.6  # 500 at once, then 100 in a second, and some that were under way
            assert b'tidegate_paced_total{what="messages"}' in (await s.node.call("GET", "/metrics")).body
