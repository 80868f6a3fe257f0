"""The edge contract's failures: peers that vanish or do not read, an application or a service that is not there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import Any

import pytest

from tests.edges.edge import Stand, resident_kib, stand
from tests.handshakes import handshake
from tests.peer import Peer, Refusal
from tests.support import eventually, scaled

KIB = 1024


class Failures:
    variant: str
    closes_at_drain = True  # False: an edge keeps its clients, and takes them to another node
    slow_reader_kib = 8 * KIB  # what nginx may grow by for five of them; each of their connections got 10 MB to hold

    async def test_a_peer_that_gives_no_sign_of_life_is_closed_with_4007(self, quick: Stand, name: str) -> None:
        async with quick.peer(name) as alive, quick.peer(name, pong=False) as dead:
            await alive.event()
            await dead.event()
            assert await dead.ended() == 4007
            assert len(alive.pings) > 5
            assert not alive.gone.is_set()

    @pytest.mark.slow
    async def test_a_half_open_peer_is_let_go_on_both_sides_of_the_edge(self, quick: Stand, name: str) -> None:
        async with quick.peer(name) as frozen:
            await frozen.event()
            frozen.reading.clear()  # it takes nothing, it says nothing
            await eventually(lambda: _closed(quick, name) == 4007, 20)
            if quick.has_edge:
                # What the service said last is in the kernel's hands: nginx has nothing to wait for.
                assert (await quick.edge.logged(client=name))["status"] == 101

    async def test_slow_readers_cost_neither_memory_nor_others(self) -> None:
        """What nginx and the service grow by while five peers take nothing of 10 MB."""
        settings = {"HEARTBEAT__WRITE_TIMEOUT_S": 2, "HISTORY__MESSAGES": 10}
        async with contextlib.AsyncExitStack() as stack:
            s = await stack.enter_async_context(stand(self.variant, **settings))
            reader = await stack.enter_async_context(s.peer("reader", groups="news"))
            await reader.event()
            for n in range(5):
                slow = await stack.enter_async_context(s.peer(f"slow{n}", groups="news", rcvbuf=16 * KIB))
                await slow.event()
                slow.reading.clear()
            before = _memory(s)
            most = dict(before)
            for number in range(1, 161):
                await s.node.push("groups/news", "x" * (64 * KIB - 2))
                assert (await reader.event())["offset"] == number
                reader.seen.clear()
                if number % 32 == 0:
                    most = {name: max(kib, most[name]) for name, kib in _memory(s).items()}
            await eventually(lambda: all(_closed(s, f"slow{n}") == 4008 for n in range(5)), 15)
            growth = {name: most[name] - before[name] for name in most}
            print(f"{self.variant}: KiB grown with 5 slow readers of 10 MB: {growth}")
            assert growth["service"] < 8 * KIB  # what five outboxes of 1 MiB share, the journal, and what a turn holds
            assert growth.get("nginx", 0) < self.slow_reader_kib
            assert reader.close_code is None

    async def test_a_thousand_who_come_at_once_are_all_let_in(self) -> None:
        """More than nginx takes by itself (a backlog of 511): after a cut everybody comes back in the same moment."""
        settings = {"EDGE__WORKER_CONNECTIONS": 8192, "EDGE__NOFILE": 10_000, "LIMITS__CONNECTIONS": 2000}
        async with stand(self.variant, **settings) as s:
            doors = s.edge.workers() if s.has_edge else [s.node.process.pid]
            lines = [await asyncio.open_connection("127.0.0.1", s.port) for _ in range(1000)]
            _send_all(doors, signal.SIGSTOP)  # so that all requests are there when it looks
            for number, (_, writer) in enumerate(lines):
                writer.write(handshake(target=f"/ws-notifications/?client=c{number}"))
            await asyncio.sleep(0.2)
            _send_all(doors, signal.SIGCONT)
            async with asyncio.timeout(scaled(20)):
                answers = [await reader.readline() for reader, _ in lines]
            for _, writer in lines:
                writer.transport.abort()
            assert Counter(answers) == {b"HTTP/1.1 101 Switching Protocols\r\n": 1000}

    async def test_calls_fail_while_the_application_is_away_and_nothing_else_does(self) -> None:
        async with stand(self.variant, rest=True) as s, s.peer("alice") as alice:
            s.provoked("Connection refused|no live upstreams|prematurely closed|reset by peer")
            await alice.event()
            assert (await alice.ask(type="call", id=1, method="echo", data=1))["type"] == "reply"
            await s.rest.stop()
            error = await alice.ask(type="call", id=2, method="echo", data=1)
            assert (error["type"], error["code"]) == ("error", "call_unavailable")
            assert (await alice.ask(type="ping", id=3))["type"] == "pong"
            s.start_rest()
            await s.rest.port(s.rest_port)

            async def is_back() -> bool:
                answer = await alice.ask(type="call", id=4, method="echo", data=1)
                return bool(answer["type"] == "reply")

            await eventually(is_back)

    async def test_a_service_that_stops_says_1012_and_is_missed_until_it_is_back(self) -> None:
        async with stand(self.variant) as s:
            s.provoked("Connection refused|No such file|no live upstreams|prematurely closed|reset by peer")
            peers = [s.peer(f"p{n}") for n in range(4)]
            await asyncio.gather(*(peer.connect() for peer in peers))
            await asyncio.gather(*(peer.event() for peer in peers))
            s.node.process.signal(signal.SIGTERM)
            await eventually(lambda: s.node.process.logged("drain.started"))
            with pytest.raises(Refusal) as info:
                await s.peer("late").connect()
            if self.closes_at_drain:
                assert (info.value.status, info.value.code) == (503, "draining")
            else:  # where nobody has to go slowly it may have stopped already
                assert (info.value.status, info.value.code) in ((503, "draining"), (502, "unavailable"))
            assert int(info.value.headers["retry-after"]) > 0
            assert await asyncio.gather(*(peer.ended() for peer in peers)) == [1012] * 4
            for peer in peers:
                await peer.cut()
            assert await s.node.process.ended() == 0
            if s.has_edge:
                with pytest.raises(Refusal) as info:
                    await s.peer("late").connect()
                assert (info.value.status, info.value.code) == (502, "unavailable")
                assert info.value.headers["content-type"] == "application/json"
                assert int(info.value.headers["retry-after"]) > 0
            s.node.start()
            await s.node.ready()
            async with await _back(s, "alice") as alice:
                await alice.event()
                s.node.process.kill()
                assert await alice.ended() in (None, 1001, 1011, 1012)


def _send_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


async def _back(s: Stand, client: str) -> Peer:
    """A peer that has connected, as soon as that works again."""

    async def connected() -> Peer | None:
        peer = s.peer(client)
        try:
            await peer.connect()
        except Refusal:
            return None
        return peer

    peer: Peer = await eventually(connected)
    await peer.cut()
    return s.peer(client)


def _closed(s: Stand, client: str) -> int | None:
    """With which code the service closed it."""
    closed = [line for line in s.node.process.logged("connection.closed") if line["client"] == client]
    code: int | None = closed[0]["close_code"] if closed else None
    return code


def _memory(s: Stand) -> dict[str, Any]:
    memory = {"service": resident_kib(s.node.process.pid)}
    if s.has_edge:
        memory["nginx"] = sum(map(resident_kib, s.edge.workers()))
    return memory
