"""A turn of the loop is shared: who floods has a share of it, in order and whole, and a neighbour does not wait."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import monotonic

import pytest
import uvloop

from tests.edges.frames import CONTINUATION
from tests.gateway.test_slow import flood, session
from tests.peer import CLOSE, PING, PONG, TEXT, Peer, frame
from tests.service_fixture import running
from tests.support import Logs, eventually
from tests.wires import Line, closed_with
from tidegate.core.errors import CloseCode
from tidegate.core.model import Position, Publication
from tidegate.turn import FLOOD_SHARES, FLOODS_SAID, SHARE_FRAMES, SLICE_S, WINDOW_S, Floods, Shares, WriteBatch
from tidegate.websocket.wire import FULL, KEPT

KIB = 1024


@contextlib.asynccontextmanager
async def line(turn: WriteBatch | None = None, **options: int) -> AsyncIterator[Line]:
    it = Line(turn, buffers=options.get("buffers"), outbox_bytes=options.get("outbox_bytes", 2**20))
    try:
        yield it
    finally:
        it.wire.abort()
        it.theirs.close()


# Shares


def test_a_turn_takes_a_slice_of_what_waits_the_longest_waiting_first() -> None:
    turns: list[Callable[[], None]] = []
    shares, done = Shares(turns.append), []

    def work(number: int) -> None:
        until_s = monotonic() + SLICE_S / 2
        while monotonic() < until_s:
            pass
        done.append(number)
        if number < 10:
            shares.wait(partial(work, number + 10))

    for number in range(10):
        shares.wait(partial(work, number))
    count = 0
    while turns:
        (turn,) = turns
        turns.clear()
        turn()
        assert 1 <= len(done) - count <= 2
        count = len(done)
    assert done == list(range(20))


async def test_one_task_a_turn_goes_on_in_the_order_in_which_they_came() -> None:
    turns: list[Callable[[], None]] = []
    shares, done = Shares(turns.append), []

    async def work(number: int) -> None:
        assert await shares.next() > monotonic()
        done.append(number)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        for expected in ([0], [0, 2], [0, 2, 3]):
            turns.pop()()
            await asyncio.sleep(0)
            assert done == expected
        assert turns == []


def test_who_floods_is_said_once_in_a_window_and_not_of_too_many() -> None:
    floods = Floods()
    assert [floods.used("a", 0.0) for _ in range(2 * FLOOD_SHARES)].index(True) == FLOOD_SHARES - 1
    assert [floods.used("a", 1.0) for _ in range(FLOOD_SHARES)].count(True) == 0
    said = [floods.used(f"c{number}", 1.0) for number in range(50) for _ in range(FLOOD_SHARES)]
    assert said.count(True) == FLOODS_SAID - 1
    assert [floods.used("a", WINDOW_S) for _ in range(FLOOD_SHARES)].count(True) == 1


# Frames

FLOODS = {
    "texts": frame(TEXT, b"x"),
    "pings": frame(PING, b""),
    "pongs": frame(PONG, b""),
    "fragments": frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"x", fin=False) * 14 + frame(CONTINUATION, b""),
}


async def shared_out(kind: str) -> None:
    """A flooder's 64 KiB are there; a neighbour's texts come one by one."""
    turn = WriteBatch(asyncio.get_running_loop().call_soon)
    async with line(turn) as flooder, line(turn) as neighbour:
        await flooder.send(FLOODS[kind] * (60 * KIB // len(FLOODS[kind])))
        await eventually(lambda: flooder.wire.paused & KEPT)
        heard = 0
        while flooder.wire.paused & KEPT:
            await neighbour.send(frame(TEXT, b"hello"))
            for _ in range(5):
                await asyncio.sleep(0)
            heard += 1
        # It was heard all the while: the flooder's frames took that many turns.
        assert len(neighbour.heard.messages) >= heard - 2
        assert heard > 60 * KIB / len(FLOODS[kind]) / SHARE_FRAMES / 20
        assert neighbour.heard.shares == 0
        assert flooder.heard.shares > 10


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_neighbour_is_heard_while_a_flood_is_worked_off(kind: str) -> None:
    await shared_out(kind)


def test_sockets_are_looked_at_between_the_shares_of_uvloop_too() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(shared_out("pings"))


@pytest.mark.parametrize("kind", FLOODS)
async def test_no_turn_takes_more_than_a_share_of_one_peer(kind: str) -> None:
    async with line() as it:
        taken, most = 0, 0
        await it.send(FLOODS[kind] * (60 * KIB // len(FLOODS[kind])))

        def count() -> int:
            pongs = sum(it.ours.sent) // 2 + it.wire.size // 2
            return len(it.heard.messages) * (16 if kind == "fragments" else 1) + pongs

        while not taken or it.wire.paused:
            await asyncio.sleep(0)
            most = max(most, count() - taken)
            taken = count()
        assert taken == 60 * KIB // len(FLOODS[kind]) * (16 if kind == "fragments" else 1)
        assert most <= 3 * SHARE_FRAMES  # of what is read two, and a kept one may fall into the same turn


async def test_what_came_before_the_end_of_file_is_handled_before_it() -> None:
    async with line() as it:
        await it.send(b"".join(frame(TEXT, b"%d" % number) for number in range(3000)))
        it.theirs.shutdown(socket.SHUT_WR)
        assert await it.closed() == (1006, False)
        assert [int(payload) for _, payload in it.heard.messages] == list(range(3000))


async def test_a_close_frame_behind_a_flood_is_answered_when_its_turn_comes() -> None:
    async with line() as it:
        await it.send(frame(TEXT, b"x") * 3000 + frame(CLOSE, b"\x03\xe9"))
        assert closed_with(await it.end()) == 1001
        assert len(it.heard.messages) == 3000


async def test_the_answer_to_our_close_frame_is_found_behind_a_flood() -> None:
    async with line() as it:
        await it.send(frame(PING, b"") * 5000)
        await eventually(lambda: it.wire.paused & KEPT)
        it.wire.close(4501)
        await it.send(frame(PING, b"") * 5000 + frame(CLOSE, b"\x11\x95"))
        assert await it.closed() == (4501, True)


async def test_what_is_wrong_behind_a_flood_ends_it_with_its_code() -> None:
    async with line() as it:
        await it.send(frame(TEXT, b"x") * 3000 + frame(TEXT, b"x", mask=None) + frame(TEXT, b"y") * 3000)
        assert closed_with(await it.end()) == 1002
        assert len(it.heard.messages) == 3000
        it.theirs.shutdown(socket.SHUT_WR)
        assert await it.closed() == (1002, False)


async def test_a_wire_that_is_gone_takes_nothing_more() -> None:
    async with line() as it:
        await it.send(frame(TEXT, b"x") * 3000)
        await eventually(lambda: it.wire.paused & KEPT)
        it.wire.abort(CloseCode.SLOW_CONSUMER)
        heard = len(it.heard.messages)
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(it.heard.messages) == heard < 3000
        assert it.heard.closed == (4008, False)


async def test_who_pings_without_reading_is_not_read_until_it_does() -> None:
    async with line(buffers=4096, outbox_bytes=64 * KIB) as it:
        sent = asyncio.create_task(it.send(frame(PING, b"p" * 125) * 4000))  # noqa: TID251 - awaited below
        await eventually(lambda: it.wire.paused & FULL)
        for _ in range(100):
            await asyncio.sleep(0)
        assert it.wire.size <= 64 * KIB
        assert it.heard.slow == 0
        pongs = await it.frames(4000)
        await sent
        assert pongs == [("pong", b"p" * 125)] * 4000
        assert not it.wire.paused


# Commands


@pytest.mark.parametrize("command", ["history", "ping"])
async def test_a_thousand_commands_in_one_segment_take_no_more_room_than_an_outbox_has(command: str) -> None:
    count = 200 if command == "history" else 1000
    async with running() as app, Peer(app.public_port, client="alice", groups="news", rcvbuf=64 * KIB) as alice:
        await alice.event()
        await flood(app, "group:news", 20, 13 * KIB)
        await alice.events(20)
        wire, most = session(app, "alice").wire, 0
        alice.reading.clear()
        epoch = app.hub.audiences["all"].position.epoch
        where = f',"group":"news","epoch":"{epoch}","offset":0' if command == "history" else ""
        alice.send_raw(
            b"".join(frame(TEXT, f'{{"type":"{command}","id":{number}{where}}}'.encode()) for number in range(count))
        )
        for _ in range(1000):
            await asyncio.sleep(0)
            most = max(most, wire.size)
        alice.reading.set()
        for number in range(count):
            reply = await alice.event(20)
            assert reply["id"] == number
            alice.seen.clear()
            most = max(most, wire.size)
        assert most <= app.config.limits.outbox_bytes
        assert not app.metrics.closes.total()


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"leave","id":1,"group":"other"}',
        b'{"type":"presence","id":1,"group":"news"}',
        b'{"type":"ping","id":1}',
        b'{"type":"publish","id":1,"group":"news","data":1}',
    ],
)
async def test_a_neighbours_command_does_not_wait_for_a_flood_of_them(text: bytes) -> None:
    count = 1500
    groups = {"news": {"presence": "members", "publish": "members"}}
    async with (
        running(GROUPS=groups, LIMITS__CONNECTIONS_PER_CLIENT=50) as app,
        Peer(app.public_port, client="mallory", groups="news") as mallory,
        Peer(app.public_port, client="alice") as alice,
    ):
        await mallory.event()
        await alice.event()
        mallory.send_raw(frame(TEXT, text) * count)
        await alice.ask(type="ping", id=1)
        assert sum(app.metrics.commands.values()) < count / 2, "most of the flood is still to come"
        for _ in range(count):
            await mallory.until(lambda event: event.get("id") == 1)
            mallory.seen.clear()


async def test_a_large_batch_of_pushes_is_several_turns() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        publications = [Publication("client:alice", b"1")] * 1000
        pushing = asyncio.create_task(app.gateway.push(publications))  # noqa: TID251 - awaited below
        turns, journalled = 0, 0
        while not pushing.done():
            await asyncio.sleep(0)
            delivered = app.hub.deliveries
            assert delivered - journalled <= 100
            journalled = delivered
            turns += 1
        assert turns >= 10
        assert [result.offset for result in await pushing if isinstance(result, Position)] == list(range(1, 1001))
        assert [event["offset"] for event in await alice.events(1000)] == list(range(1, 1001))


async def test_who_floods_is_counted_and_said(expected_logs: Logs) -> None:
    expected_logs.expect("connection.flooding")
    fast = {"LIMITS__MESSAGES_PER_SECOND": 100_000}
    async with running(**fast) as app, Peer(app.public_port, client="mallory") as mallory:
        await mallory.event()
        mallory.send_raw(frame(PONG, b"") * (SHARE_FRAMES * FLOOD_SHARES * 2))
        await mallory.ask(type="ping", id=1)
        assert app.metrics.shares_used["frames",] >= FLOOD_SHARES
        (record,) = expected_logs.seen("connection.flooding")
        assert "mallory" in str(vars(record))
