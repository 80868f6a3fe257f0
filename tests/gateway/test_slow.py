"""Slow readers: an honest one gets a long replay in pages, one that takes nothing is cut, and neither costs the others
anything."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from typing import cast

from tests.gateway.test_last import numbers, push
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled
from tidegate.app import App
from tidegate.core.model import Position, Publication, encode_cursor
from tidegate.core.session import PAGE_BYTES, Session
from tidegate.websocket.wire import Wire

KIB = 1024


async def flood(app: App, stream: str, count: int, size: int) -> None:
    """``count`` messages of ``size`` bytes, some in each turn of the loop."""
    data = b'"' + b"x" * (size - 2) + b'"'
    for _ in range(count):
        (result,) = await app.gateway.push([Publication(stream, data)])
        assert isinstance(result, Position)
        await asyncio.sleep(0)


def session(app: App, client: str) -> Session:
    (only,) = app.hub.of_client(client)
    return only


def cursor(app: App, stream: str, offset: int) -> str:
    epoch = app.hub.audiences["all"].position.epoch
    token = encode_cursor({stream: Position(epoch, offset)})
    assert token is not None
    return token


async def test_a_thousand_messages_of_64_kib_reach_a_slow_honest_reader_page_by_page() -> None:
    async with running() as app, Peer(app.public_port, client="witness"):
        await flood(app, "client:alice", 1000, 64 * KIB)
        most = 0
        async with Peer(
            app.public_port, client="alice", cursor=cursor(app, "client:alice", 0), rcvbuf=64 * KIB
        ) as alice:
            welcome = await alice.event()
            assert welcome["streams"]["client:alice"]["missed"] == 1000
            for number in range(1, 1001):
                if number % 20 == 0:
                    await asyncio.sleep(0.002)  # the reader's own pace
                event = await alice.event(20)
                assert event["offset"] == number
                most = max(most, session(app, "alice").wire.size)
            assert alice.close_code is None
            # A page of data, its envelopes, and what the outbox may still hold when the next page is asked for.
            assert most <= PAGE_BYTES + 64 * KIB + 64 * KIB
            await push(app, 1001, 1001)
            assert await numbers(alice, 1) == [1001]  # and it is live


async def test_live_messages_of_other_streams_do_not_wait_for_a_long_replay() -> None:
    async with running() as app, Peer(app.public_port, client="witness"):
        await flood(app, "client:alice", 400, 64 * KIB)
        async with Peer(
            app.public_port, client="alice", groups="news", cursor=cursor(app, "client:alice", 0), rcvbuf=64 * KIB
        ) as alice:
            await alice.event()
            await push(app, 1, 1, "group:news")
            await alice.until(lambda event: event.get("stream") == "group:news")
            assert alice.seen[-2]["offset"] < 200, "it came behind the replay"


async def test_the_kernel_holds_little_that_it_cannot_send_and_pings_wait_behind_no_more() -> None:
    async with running() as app, Peer(app.public_port, client="witness"):
        await flood(app, "client:alice", 200, 64 * KIB)
        async with Peer(app.public_port, client="alice", cursor=cursor(app, "client:alice", 0)) as alice:
            alice.reading.clear()
            wire = cast(Wire, session(app, "alice").wire)
            await eventually(lambda: wire.stalled_since)
            assert unsent(wire.sock) <= 128 * KIB + PAGE_BYTES


def unsent(sock: socket.socket) -> int:
    """Bytes that the kernel has taken and not sent yet (SIOCOUTQNSD, linux/sockios.h)."""
    return struct.unpack("i", fcntl.ioctl(sock, 0x894B, b"\0\0\0\0"))[0]


async def test_long_replays_of_many_streams_wait_for_each_other() -> None:
    """The first page of each would be several times what an outbox may hold."""
    groups = [f"g{number}" for number in range(30)]
    async with running() as app, Peer(app.public_port, client="witness", groups=",".join(groups)):
        for group in groups:
            await flood(app, f"group:{group}", 6, 60 * KIB)
        epoch = app.hub.audiences["all"].position.epoch
        token = encode_cursor({f"group:{group}": Position(epoch, 1) for group in groups})
        assert token is not None
        async with Peer(app.public_port, client="alice", cursor=token, rcvbuf=64 * KIB) as alice:
            welcome = await alice.event()
            assert {welcome["streams"][f"group:{group}"]["missed"] for group in groups} == {5}
            following, most = dict.fromkeys(groups, 1), 0
            for _ in range(5 * len(groups)):
                event = await alice.event(20)
                most = max(most, session(app, "alice").wire.size)
                group = event["stream"].removeprefix("group:")
                following[group] += 1
                assert event["offset"] == following[group]
            assert most <= app.config.limits.outbox_bytes
            await eventually(lambda: not session(app, "alice").tracks)


async def test_a_reader_that_takes_nothing_is_closed_with_4008_and_the_others_notice_nothing() -> None:
    async with (
        running() as app,
        Peer(app.public_port, client="mute", groups="news", rcvbuf=16 * KIB) as mute,
        Peer(app.public_port, client="bob", groups="news") as bob,
    ):
        await mute.event()
        await bob.event()
        mute.reading.clear()
        await flood(app, "group:news", 200, 64 * KIB)
        for offset in range(1, 201):
            assert (await bob.event())["offset"] == offset
        mute.reading.set()
        assert await mute.ended(10) == 4008
        seen = [mute._queue.get_nowait() for _ in range(mute.pending())]
        assert 0 < len(seen) < 200, "whole messages came before the close frame, and not all"


async def test_a_write_without_progress_ends_the_connection_after_its_timeout() -> None:
    async with running(HEARTBEAT__WRITE_TIMEOUT_S="0.5") as app:
        mute = Peer(app.public_port, client="mute", groups="news", rcvbuf=16 * KIB)
        await mute.connect()
        mute.reading.clear()
        await flood(app, "group:news", 90, 64 * KIB)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await eventually(lambda: not app.metrics.open_connections, 5)
        assert loop.time() - begun_s < scaled(3)
        assert b'tidegate_closes_total{code="4008"} 1.0' in app.metrics.text()
        await mute.cut()


async def test_a_group_with_the_replay_policy_takes_a_slow_reader_back_to_its_journal() -> None:
    async with running(GROUPS='{"bulk*": {"slow": "replay"}}') as app:
        async with Peer(app.public_port, client="alice", groups="bulk", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            await flood(app, "group:bulk", 300, 64 * KIB)
            assert session(app, "alice").tracks, "it fell back"
            assert session(app, "alice").wire.size < 3 * 1024 * KIB
            alice.reading.set()
            for offset in range(1, 301):
                assert (await alice.event(20))["offset"] == offset
            await eventually(lambda: not session(app, "alice").tracks)


async def test_a_burst_of_one_turn_closes_nobody_whose_group_may_fall_back() -> None:
    async with running(GROUPS='{"bulk*": {"slow": "replay"}}') as app:
        async with Peer(app.public_port, client="alice", groups="bulk", rcvbuf=64 * KIB) as alice:
            await alice.event()
            data = b'"' + b"x" * 60 * KIB + b'"'
            await app.gateway.push([Publication("group:bulk", data)] * 90)  # 5 MiB, in one turn
            for offset in range(1, 91):
                assert (await alice.event(20))["offset"] == offset
            assert app.metrics.fell_back["replay",] >= 1
            assert alice.close_code is None


async def test_what_other_streams_bring_meanwhile_is_bounded_all_the_same() -> None:
    async with running(GROUPS='{"bulk*": {"slow": "replay"}}') as app:
        async with Peer(app.public_port, client="alice", groups="bulk", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            data = b'"' + b"x" * 60 * KIB + b'"'
            await app.gateway.push([Publication("group:bulk", data)] * 60)
            await eventually(lambda: session(app, "alice").tracks)
            waited = session(app, "alice").wire.size
            await flood(app, "all", 40, 60 * KIB)
            await eventually(lambda: not app.hub.of_client("alice"))
            assert waited > 2 * 1024 * KIB
            alice.reading.set()
            assert await alice.ended(10) == 4008


async def test_what_a_slow_reader_outlives_is_announced_as_a_gap() -> None:
    policy = '{"bulk*": {"slow": "replay", "messages": 50}}'
    async with running(GROUPS=policy) as app:
        async with Peer(app.public_port, client="alice", groups="bulk", rcvbuf=16 * KIB) as alice:
            await alice.event()
            alice.reading.clear()
            await flood(app, "group:bulk", 400, 64 * KIB)
            alice.reading.set()
            offset = 0
            while offset < 400:
                event = await alice.event(20)
                if event["type"] == "gap":
                    assert (event["reason"], event["from"]) == ("expired", offset + 1)
                    offset = event["to"]
                else:
                    assert event["offset"] == offset + 1
                    offset = event["offset"]
            assert any(event["type"] == "gap" for event in alice.seen)


async def test_memory_for_journals_is_bounded_and_the_least_used_stream_loses_first(expected_logs: Logs) -> None:
    async with running(LIMITS__JOURNAL_BYTES=str(1024 * KIB)) as app:
        async with Peer(app.public_port, client="witness") as witness:
            await witness.event()
            await flood(app, "group:old", 10, 32 * KIB)
            await flood(app, "group:new", 30, 32 * KIB)
            async with Peer(app.public_port, client="alice") as alice:
                await alice.event()
                epoch = app.hub.audiences["all"].position.epoch
                reply = await alice.ask(type="join", id=1, group="old", epoch=epoch, offset=2)
                assert (reply["recovered"], reply["offset"], reply["missed"]) == (False, 2, 0)
                gap = await alice.event()
                assert (gap["reason"], gap["from"], gap["to"]) == ("expired", 3, 10)
                reply = await alice.ask(type="join", id=2, group="new", epoch=epoch, offset=28)
                assert (reply["recovered"], reply["missed"]) == (True, 2)
