"""Joins that start a stream anew, and the end of a replay."""

from __future__ import annotations

import pytest

from tests.gateway.test_commands import OPEN, push
from tests.peer import Peer
from tests.service_fixture import Down, running
from tests.support import eventually
from tidegate.gateway import replay


async def test_joining_a_joined_group_with_a_position_changes_neither_presence_nor_the_count_of_groups() -> None:
    async with running(**OPEN, LIMITS__GROUPS_PER_CONNECTION=1) as app:
        await push(app, "group:open", b"1", b"2")
        async with Peer(app.public_port, client="alice", groups="open") as alice:
            epoch = (await alice.event())["streams"]["group:open"]["epoch"]
            attended = []
            presence_join = app.broker.presence_join
            app.broker.presence_join = lambda info: attended.append(info) or presence_join(info)  # type: ignore
            answer = await alice.ask(type="join", id=1, group="open", epoch=epoch, offset=0)
            assert (answer["offset"], answer["recovered"], answer["missed"]) == (0, True, 2)
            assert [event["offset"] for event in await alice.events(2)] == [1, 2]
            assert attended == []
            assert (await alice.ask(type="presence", id=2, group="open"))["connections"] == 1
            (session,) = app.hub.of_client("alice")
            await push(app, "group:open", b"3")
            assert (await alice.event())["offset"] == 3
            assert session in app.hub.audiences["group:open"].live


async def test_many_joins_with_a_position_are_read_only_as_fast_as_the_peer_takes_them() -> None:
    page = b'"%b"' % (b"x" * 30_000)
    async with running() as app:
        await push(app, "group:long", *[page] * 8)  # as much as a page holds
        async with Peer(app.public_port, client="alice", groups="long", rcvbuf=8192) as alice:
            epoch = (await alice.event())["streams"]["all"]["epoch"]
            (session,) = app.hub.of_client("alice")
            paging = app.replay.paging
            alice.reading.clear()
            for n in range(40):  # 9.6 MB, more than all buffers between us
                alice.send(type="join", id=n, group="long", epoch=epoch, offset=0)
            await eventually(lambda: session.wire.size > 64 * 1024 and paging.is_held(session.connection))
            assert session.wire.size < 1.5 * 8 * len(page), "more than a page waits"
            assert app.gateway.waiting(session), "and the other commands behind it"
            alice.reading.set()
            for n in range(20):
                while (event := await alice.event()).get("id") != n:
                    assert event["type"] == "message"
                assert event["missed"] == 8
            assert [event["offset"] for event in await alice.events(8)] == list(range(1, 9))


@pytest.mark.parametrize("missed", [0, 3])
async def test_a_join_that_the_broker_fails_leaves_a_joined_group_where_it_was(
    missed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "RETRY_S", 0.01)
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        epoch = (await alice.event())["streams"]["group:news"]["epoch"]
        await push(app, "group:news", b"1", b"2")
        assert [event["offset"] for event in await alice.events(2)] == [1, 2]
        down = Down(app, "history")
        for n in range(2):
            answer = await alice.ask(type="join", id=n, group="news", epoch=epoch, offset=0)
            assert (answer["type"], answer["code"]) == ("error", "broker_down")
        await push(app, "group:news", *[b"3"] * missed)
        down.up()
        answer = await alice.ask(type="join", id=3, group="news")
        assert (answer["epoch"], answer["offset"]) == (epoch, 2), "what it has been told of"
        await push(app, "group:news", b"4")
        events = await alice.events(missed + 1)
        assert [event["offset"] for event in events] == list(range(3, 4 + missed))
        await eventually(lambda: not app.hub.of_client("alice")[0].tracks)


async def test_nothing_of_a_stream_comes_after_the_answer_to_its_leave_even_in_a_replay() -> None:
    page = b'"%b"' % (b"x" * 30_000)
    async with running(HISTORY__MESSAGES=1000) as app:
        await push(app, "group:long", *[page] * 300)  # 9 MB, more than all buffers between us
        async with Peer(app.public_port, client="alice", rcvbuf=8192) as alice:
            epoch = (await alice.event())["streams"]["all"]["epoch"]
            alice.reading.clear()
            alice.send(type="join", id=1, group="long", epoch=epoch, offset=0)
            session = app.hub.of_client("alice")[0]
            await eventually(lambda: session.wire.size)
            alice.send(type="leave", id=2, group="long")
            await eventually(lambda: "group:long" not in session.streams)
            alice.reading.set()
            await alice.until(lambda event: event.get("id") == 2)
            assert 0 < sum(event["type"] == "message" for event in alice.seen) < 300
            await push(app, "group:long", b"1")
            assert (await alice.ask(type="ping", id=3))["type"] == "pong"
            assert alice.seen[-2].get("id") == 2, "something came between"
            await eventually(lambda: "group:long" not in app.hub.audiences)
