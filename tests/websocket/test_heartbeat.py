"""Who is pinged, who is given up, and when. First by hand, to the tick; then with a real node and real clocks, whose
30 and 60 seconds are fractions of one."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.peer import PING, PONG, frame
from tests.peer import Peer as Client
from tests.support import Logs, Process, eventually, free_port, scaled
from tests.websocket.hand import HandNode, HandSocket
from tidegate.app import App
from tidegate.config.load import load
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.core.model import Publication
from tidegate.websocket.peer import CLOSE_S
from tidegate.websocket.wire import WireState

# By hand


@pytest.mark.parametrize("join_s", [0.0, 0.1, 0.25, 7.3, 29.9])
def test_a_mute_peer_is_given_up_within_a_tick_of_the_timeout(join_s: float) -> None:
    node = HandNode()
    node.loop.run(join_s)
    sockets = node.join(20)
    node.loop.run(120)
    for sock in sockets:
        assert sock.ended is not None
        when_s, code = sock.ended
        assert code == CloseCode.NO_SIGN_OF_LIFE
        assert 60 <= when_s - sock.seen <= 60 + node.heartbeat.tick_s


def test_a_sign_of_life_counts_from_when_it_came() -> None:
    node = HandNode()
    [sock] = node.join()
    for seconds in (31, 59, 45):
        node.loop.run(seconds)
        assert sock.ended is None
        sock.seen = node.loop.now_s
    node.loop.run(60 - 0.01)
    assert sock.ended is None
    node.loop.run(0.01 + node.heartbeat.tick_s)
    assert sock.ended is not None


def test_pings_come_once_an_interval_the_first_within_one() -> None:
    node = HandNode()
    sockets = node.join(50)
    for _ in range(5):
        for sock in sockets:
            sock.seen = node.loop.now_s
        node.loop.run(30)
        assert [sock.pings() for sock in sockets] == [1] * 50


def pings_per_tick(node: HandNode, sockets: list[HandSocket]) -> list[int]:
    """Of one interval. Nobody is mute."""
    counts = []
    for _ in range(round(node.heartbeat.interval_s / node.heartbeat.tick_s)):
        node.loop.run(node.heartbeat.tick_s)
        counts.append(sum(sock.pings() for sock in sockets))
        for sock in sockets:
            sock.seen = node.loop.now_s
    return counts


def test_pings_of_connections_that_came_at_once_are_spread_over_the_interval() -> None:
    node = HandNode()
    sockets = node.join(1200)
    for counts in (pings_per_tick(node, sockets), pings_per_tick(node, sockets)):
        assert sum(counts) == 1200
        assert max(counts) <= 2 * 1200 / len(counts)


def test_pings_stay_spread_after_the_process_was_held_up() -> None:
    node = HandNode()
    sockets = node.join(1200)
    node.loop.hold_up(100)
    assert [sock.pings() for sock in sockets] == [1] * 1200, "one, however many are due"
    counts = pings_per_tick(node, sockets)
    assert sum(counts) == 1200
    assert max(counts) <= 2 * 1200 / len(counts)


def test_only_the_last_schedule_of_a_member_counts() -> None:
    node = HandNode()

    class Member:
        tick = 0

        def __init__(self) -> None:
            self.due_s: list[float] = []

        def on_due(self, now_s: float) -> None:
            self.due_s.append(now_s)

    later, sooner, never = Member(), Member(), Member()
    for member, seconds in ((later, 10), (later, 20), (sooner, 20), (sooner, 10), (never, 10)):
        node.heartbeat.schedule(member, node.loop.now_s + seconds)
    node.heartbeat.forget(never)
    node.loop.run(60)
    assert (later.due_s, sooner.due_s, never.due_s) == ([1020], [1010], [])


def test_pings_of_one_tick_share_a_mark_and_a_mark_tells_their_age() -> None:
    node = HandNode()
    marks = []
    for _ in range(100):
        node.loop.run(node.heartbeat.tick_s)
        marks.append(node.heartbeat.mark)
        assert node.heartbeat.ping_frame == frames.ping(node.heartbeat.mark)
    assert len(set(marks)) == 100
    assert node.heartbeat.age_s(marks[-1], node.loop.now_s) == pytest.approx(0)
    assert node.heartbeat.age_s(marks[-11], node.loop.now_s) == pytest.approx(10 * node.heartbeat.tick_s)


def test_a_pong_to_the_ping_of_another_node_says_nothing() -> None:
    """A connection may have come from it, with pings under way."""
    one, other = HandNode(), HandNode()
    one.loop.run(10)
    other.loop.run(10)
    assert other.heartbeat.age_s(one.heartbeat.mark, other.loop.now_s) is None


@pytest.mark.parametrize("mark", [b"", b"unsolicited", b"\xff\xfe", b"-1", b"ffffffff", b"*" * 125])
def test_a_payload_that_is_no_mark_has_no_age(mark: bytes) -> None:
    node = HandNode()
    node.loop.run(10)
    assert node.heartbeat.age_s(mark, node.loop.now_s) is None


@pytest.mark.parametrize("held_s", [10, 29, 61, 600, 100_000])
def test_a_process_that_was_held_up_gives_nobody_up_when_it_goes_on(held_s: float) -> None:
    node = HandNode()
    sockets = node.join(200)
    node.loop.run(25)
    for sock in sockets[:100]:
        sock.seen = node.loop.now_s  # their pongs; the other hundred wait for their first ping
    node.loop.hold_up(held_s)
    assert not any(sock.ended for sock in sockets)
    for sock in sockets[:100]:
        sock.seen = node.loop.now_s  # what had arrived meanwhile is read now
    node.loop.run(59)
    assert not any(sock.ended for sock in sockets[:100])
    node.loop.run(2 * node.heartbeat.tick_s + 1)
    assert all(sock.ended for sock in sockets), "who is still mute is given up all the same"


@pytest.mark.parametrize(("timeout_s", "late_s"), [(60, 3), (30, 0.7)])
def test_a_loop_that_is_often_a_little_late_still_gives_up_who_is_mute(timeout_s: float, late_s: float) -> None:
    node = HandNode(timeout_s=timeout_s)
    [sock] = node.join()
    while sock.ended is None and node.loop.now_s < sock.seen + 100:
        node.loop.hold_up(late_s)
    assert sock.ended is not None
    assert sock.ended[0] - sock.seen <= timeout_s + late_s + node.heartbeat.tick_s


def test_who_is_not_read_is_not_called_mute() -> None:
    node = HandNode()
    [sock] = node.join()
    sock.paused = True
    node.loop.run(100)
    assert sock.ended is None
    sock.paused, sock.seen = False, node.loop.now_s  # as resume_reading does
    node.loop.run(59)
    assert sock.ended is None
    node.loop.run(2)
    assert sock.ended is not None


def test_a_write_without_progress_ends_the_connection() -> None:
    node = HandNode()
    [sock, other] = node.join(2)
    for stuck in (sock, other):
        stuck.stalled_since = node.loop.now_s
        node.turn.blocked.add(cast(Any, stuck))
    node.loop.run(14.9)
    assert not node.stalled
    other.stalled_since = node.loop.now_s  # it took a byte
    node.loop.run(0.1 + node.heartbeat.tick_s)
    assert node.stalled == [sock]
    node.loop.run(15)
    assert node.stalled == [sock, other]


def test_a_write_that_was_stuck_before_the_process_was_held_up_gets_its_time_again() -> None:
    node = HandNode()
    [sock] = node.join()
    sock.stalled_since = node.loop.now_s
    node.turn.blocked.add(cast(Any, sock))
    node.loop.hold_up(60)
    assert not node.stalled
    node.loop.run(15 + node.heartbeat.tick_s)
    assert node.stalled == [sock]


@pytest.mark.parametrize(("interval_s", "timeout_s"), [(30, 60), (0.2, 0.4), (1, 1)])
def test_a_close_that_is_not_answered_is_over_after_its_time(interval_s: float, timeout_s: float) -> None:
    node = HandNode(interval_s=interval_s, timeout_s=timeout_s)
    [sock] = node.join()
    sock.close(CloseCode.DISCONNECTED)
    states = []
    for seconds in (CLOSE_S - node.heartbeat.tick_s, 2 * node.heartbeat.tick_s):
        node.loop.run(seconds)
        states.append(sock.state)
    assert states == [WireState.CLOSING, WireState.CLOSED]


def test_a_connection_that_has_ended_is_not_kept_until_it_is_due() -> None:
    node = HandNode()
    sockets = node.join(10)
    assert sum(map(len, node.heartbeat._slots)) == 10
    for sock in sockets:
        sock.abort()
    assert sum(map(len, node.heartbeat._slots)) == 0


def test_one_peer_whose_turn_fails_does_not_stop_the_clock(expected_logs: Logs) -> None:
    expected_logs.expect("heartbeat.failed")
    node = HandNode()
    sockets = node.join(20)
    sockets[7].put = cast(Any, None)  # type: ignore[method-assign]
    node.loop.run(30)
    assert [sock.pings() for sock in sockets if sock is not sockets[7]] == [1] * 19
    node.loop.run(31)
    assert all(sock.ended for sock in sockets if sock is not sockets[7])


# With a real node

INTERVAL_S, TIMEOUT_S = scaled(0.4), scaled(0.8)
NOISE_S = 0.25  # of a busy machine


def environment(interval_s: float = INTERVAL_S, timeout_s: float = TIMEOUT_S, **more: str) -> dict[str, str]:
    return {
        "TIDEGATE_SERVER__PORT": "0",
        "TIDEGATE_INTERNAL__PORT": "0",
        "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL": str(interval_s),
        "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_TIMEOUT": str(timeout_s),
        **more,
    }


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[App]:
    app = App(load(None, environment(**options)))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


async def passed(seconds: float) -> None:
    """The time itself is what is waited for."""
    end_s = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() >= end_s, seconds + 5)


def closes(app: App, code: int) -> float:
    return app.metrics.registry.get_sample_value("tidegate_closes_total", {"code": str(code)}) or 0


async def test_a_mute_client_reads_4007_between_the_timeout_and_a_tick_later() -> None:
    async with running() as app:
        tick_s = app.heartbeat.tick_s

        async def silence_s(name: str) -> float:
            async with Client(app.public_port, client=name, pong=False) as client:
                sent_s = time.monotonic()
                client.send_text("pong")
                assert await client.ended() == 4007
                assert client.close_reason == "no sign of life"
                return time.monotonic() - sent_s

        for seconds in await asyncio.gather(*[silence_s(f"c{number}") for number in range(5)]):
            assert TIMEOUT_S <= seconds <= TIMEOUT_S + tick_s + scaled(NOISE_S)
        assert closes(app, 4007) == 5


# Tornado's own class would cut the timeout down to the interval, with a warning, which would fail this test.
async def test_a_client_whose_pongs_are_half_an_interval_late_stays() -> None:
    async with running() as app, Client(app.public_port, client="alice", pong=False) as alice:
        welcome = await alice.event()
        assert (welcome["ping_interval"], welcome["ping_timeout"]) == (INTERVAL_S, TIMEOUT_S)
        for _ in range(4):
            await passed(1.5 * INTERVAL_S)
            assert alice.pings
            alice.send_raw(frame(PONG, alice.pings[-1]))
        assert (await alice.ask(type="ping", id=1))["type"] == "pong"


async def test_anything_is_a_sign_of_life() -> None:
    signs = [frame(1, b"pong"), frame(1, b"Ping"), frame(PING), frame(PONG, b"unsolicited")]
    async with running() as app:
        clients = [Client(app.public_port, client=f"c{number}", pong=False) for number in range(len(signs))]
        for client in clients:
            await client.connect()
        for _ in range(8):
            await passed(INTERVAL_S / 2)
            for client, sign in zip(clients, signs, strict=True):
                client.send_raw(sign)
        assert not any(client.gone.is_set() for client in clients)
        assert [await client.ended() for client in clients] == [4007] * len(signs), "and nothing is none"
        for client in clients:
            await client.cut()


async def test_an_unsolicited_pong_confirms_no_position() -> None:
    async with running() as app:
        async with Client(app.public_port, client="alice", cursor="last", pong=False) as alice:
            await alice.events(3)
            await app.gateway.push([Publication("client:alice", b"1")])
            await alice.event()
            await eventually(lambda: alice.pings)
            for payload in (b"", b"unsolicited", b"0"):
                alice.send_raw(frame(PONG, payload))
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
        async with Client(app.public_port, client="alice", cursor="last") as alice:
            assert (await alice.event())["streams"]["client:alice"]["missed"] == 1


async def test_one_clock_serves_all_connections() -> None:
    loop = asyncio.get_running_loop()

    def costs() -> tuple[int, int]:
        timers: list[asyncio.TimerHandle] = cast(Any, loop)._scheduled
        return len(asyncio.all_tasks()), sum(not timer.cancelled() for timer in timers)

    async with running() as app:
        await asyncio.sleep(0)
        tasks, timers = costs()
        timers += 1  # the HTTP server's, which watches all that wait for it
        sockets = [await connect(app.public_port, f"c{number}") for number in range(50)]
        await eventually(lambda: app.metrics.open_connections == 50)
        await eventually(lambda: all(now <= then for now, then in zip(costs(), (tasks, timers), strict=True)))
        for sock in sockets:
            sock.close()


async def connect(port: int, client: str) -> socket.socket:
    """A connection whose client has no task."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(
        sock,
        f"GET /ws-notifications/?client={client} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode(),
    )
    assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 101")
    return sock


async def test_a_client_that_takes_nothing_is_ended_after_the_write_timeout() -> None:
    options: dict[str, Any] = {"interval_s": 2, "timeout_s": 4, "TIDEGATE_HEARTBEAT__WRITE_TIMEOUT_S": "0.5"}
    async with running(**options) as app, Client(app.public_port, client="alice", rcvbuf=4096) as alice:
        await alice.event()
        alice.reading.clear()

        async def fill() -> None:
            """The kernel may take the rest a moment later."""
            while not app.write_batch.blocked and not closes(app, 4008):
                await app.gateway.push([Publication("client:alice", b"1" * 60_000)])
                await asyncio.sleep(0)  # the turn in which it is written

        async def has_ended() -> bool:
            await fill()
            return closes(app, 4008) == 1

        await fill()
        began_s = time.monotonic()
        await eventually(has_ended)
        assert time.monotonic() - began_s >= 0.5
        assert not app.write_batch.blocked
        alice.reading.set()
        assert await alice.ended() is None, "no close frame can be read from within a frame that was cut"


# A program of its own: the loop of this test must go on while that one stands.
_SERVE = """
import os, uvloop
from tidegate import node
from tidegate.config import load
uvloop.run(node.serve(load.load(None, os.environ), "n", lambda: load.load(None, os.environ)))
"""


async def test_a_process_that_was_stopped_cuts_nobody_when_it_goes_on(start_process: Callable[..., Process]) -> None:
    port = free_port()
    process = start_process(sys.executable, "-c", _SERVE, env=environment() | {"TIDEGATE_SERVER__PORT": str(port)})
    await process.port(port)
    clients = [Client(port, client=f"c{number}") for number in range(20)]
    mute = Client(port, client="mute", pong=False)
    for client in clients:
        await client.connect()
    await eventually(lambda: all(len(client.pings) >= 2 for client in clients))
    await mute.connect()
    process.signal(signal.SIGSTOP)
    await passed(2 * TIMEOUT_S)
    seen = Counter({client: len(client.pings) for client in clients})
    process.signal(signal.SIGCONT)
    await eventually(lambda: all(len(client.pings) >= seen[client] + 3 for client in clients))
    assert not any(client.gone.is_set() for client in clients)
    assert await mute.ended() == 4007
    for client in (*clients, mute):
        await client.cut()
    assert await process.stop() == 0
