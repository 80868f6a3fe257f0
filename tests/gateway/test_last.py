"""``cursor=last``: what a client is known to have received, without any ack of the application."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually
from tidegate.app import App
from tidegate.core.model import Position, Publication

_FAST = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": "0.15", "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "0.6"}


async def push(app: App, first: int, last: int, stream: str = "client:alice") -> None:
    """Messages whose data is their number, which is their offset too."""
    results = await app.gateway.push([Publication(stream, b"%d" % n) for n in range(first, last + 1)])
    assert all(isinstance(result, Position) for result in results)


def last(app: App, **query: Any) -> Peer:
    return Peer(app.public_port, client="alice", cursor="last", **query)


def data(events: list[dict[str, Any]]) -> list[Any]:
    return [event["data"] for event in events if event["type"] == "message"]


async def numbers(peer: Peer, count: int) -> list[Any]:
    return data([await peer.until(lambda event: event["type"] == "message") for _ in range(count)])


async def test_without_a_record_streams_start_now_and_say_reset() -> None:
    async with running() as app:
        await push(app, 1, 3)
        async with last(app, groups="news") as alice:
            welcome = await alice.event()
            for stream, top in (("client:alice", 3), ("all", 0), ("group:news", 0)):
                fields = welcome["streams"][stream]
                assert (fields["offset"], fields["top"], fields["recovered"], fields["missed"]) == (top, top, False, 0)
            gaps = await alice.events(3)
            assert {gap["stream"]: (gap["reason"], gap["from"], gap["to"]) for gap in gaps} == {
                "client:alice": ("reset", None, 3),
                "all": ("reset", None, 0),
                "group:news": ("reset", None, 0),
            }


async def test_a_cut_client_loses_nothing_and_repeats_only_what_came_after_the_last_confirmed_ping() -> None:
    async with running(**_FAST) as app:
        alice = last(app)
        await alice.connect()
        await alice.events(3)
        await push(app, 1, 5)
        assert await numbers(alice, 5) == [1, 2, 3, 4, 5]
        pings = len(alice.pings)
        await eventually(lambda: len(alice.pings) >= pings + 2)  # a ping after 5 was answered
        alice.pong = False
        await push(app, 6, 9)
        assert await numbers(alice, 4) == [6, 7, 8, 9]  # received, but never confirmed
        await alice.cut()
        await push(app, 10, 12)
        async with last(app) as back:
            welcome = await back.event()
            fields = welcome["streams"]["client:alice"]
            assert fields["recovered"] is True
            assert fields["offset"] == 5
            assert fields["missed"] == 7
            assert await numbers(back, 7) == [6, 7, 8, 9, 10, 11, 12]


async def test_messages_lost_on_their_way_come_again() -> None:
    """n of m messages arrive, the rest is in flight when the connection breaks."""
    async with running(**_FAST) as app:
        alice = last(app)
        await alice.connect()
        await alice.events(3)
        await push(app, 1, 3)
        await numbers(alice, 3)
        pings = len(alice.pings)
        await eventually(lambda: len(alice.pings) >= pings + 2)
        alice.reading.clear()  # from here on nothing is read
        await push(app, 4, 20)
        await alice.cut()
        async with last(app) as back:
            fields = (await back.event())["streams"]["client:alice"]
            assert fields["recovered"] is True
            first = fields["offset"] + 1
            assert first <= 4, "a message that never arrived was taken for confirmed"
            assert await numbers(back, 20 - first + 1) == list(range(first, 21))


async def test_a_page_that_closes_while_messages_are_under_way_gets_them_again() -> None:
    """A close frame that the peer starts confirms nothing: what was sent may be lost on its way."""
    async with running() as app:
        async with last(app) as alice:
            await alice.events(3)
            await push(app, 1, 3)
            alice.close(1001)
            await alice.ended()
        async with last(app) as back:
            fields = (await back.event())["streams"]["client:alice"]
            assert (fields["offset"], fields["recovered"]) == (0, True)
            assert await numbers(back, 3) == [1, 2, 3]


async def test_an_answer_to_our_close_frame_confirms_everything_before_it() -> None:
    async with running() as app:
        async with last(app) as alice:
            await alice.events(3)
            await push(app, 1, 3)
            await app.gateway.disconnect("alice", None)
            assert await alice.ended() == 4501
        await eventually(lambda: not app.metrics.open_connections)
        async with last(app) as back:
            fields = (await back.event())["streams"]["client:alice"]
            assert (fields["offset"], fields["missed"]) == (3, 0)


async def test_a_close_frame_that_crosses_ours_confirms_nothing() -> None:
    async with running() as app:
        async with last(app, answer_close=False) as alice:
            await alice.events(3)
            await push(app, 1, 3)
            await app.gateway.disconnect("alice", None)
            alice.close(1001)
            await alice.ended()
        async with last(app) as back:
            assert (await back.event())["streams"]["client:alice"]["offset"] == 0


async def test_a_new_connection_takes_the_record_over_and_the_old_one_is_closed_with_4502() -> None:
    async with running(**_FAST) as app:
        async with last(app) as old:
            await old.events(3)
            async with last(app) as new:
                assert (await new.event())["streams"]["client:alice"]["recovered"] is True
                assert await old.ended() == 4502
                await push(app, 1, 2)
                assert await numbers(new, 2) == [1, 2]
                pings = len(new.pings)
                await eventually(lambda: len(new.pings) >= pings + 2)
        async with last(app) as third:  # what the new one confirmed was kept, whatever the old one said in the end
            assert (await third.event())["streams"]["client:alice"]["offset"] == 2


async def test_devices_of_one_client_have_records_of_their_own() -> None:
    async with running() as app, last(app, device="phone") as phone, last(app, device="tablet") as tablet:
        await phone.events(3)
        await tablet.events(3)
        await push(app, 1, 1)
        assert await numbers(phone, 1) == await numbers(tablet, 1) == [1]
        assert phone.close_code is None


async def test_the_groups_of_the_record_are_joined_again_and_left_ones_are_not() -> None:
    async with running() as app:
        async with last(app, groups="news,chat") as alice:
            await alice.events(4)
            await alice.ask(type="join", id=1, group="late")
            await alice.ask(type="leave", id=2, group="chat")
        await push(app, 1, 2, "group:late")
        await push(app, 1, 2, "group:chat")
        async with last(app) as back:
            welcome = await back.event()
            assert set(welcome["streams"]) == {"client:alice", "all", "group:news", "group:late"}
            assert await numbers(back, 2) == [1, 2]


async def test_a_lasting_membership_made_while_the_client_is_away_starts_where_it_was_made() -> None:
    async with running() as app:
        async with last(app) as alice:
            await alice.events(3)
        await eventually(lambda: not app.metrics.open_connections)
        await push(app, 1, 2, "group:news")
        await app.gateway.add_member("news", "alice")
        await push(app, 3, 5, "group:news")
        async with last(app) as back:
            fields = (await back.event())["streams"]["group:news"]
            assert (fields["offset"], fields["recovered"], fields["missed"]) == (2, True, 3)
            assert await numbers(back, 3) == [3, 4, 5]


async def test_a_stream_that_starts_anew_does_so_in_the_record_and_pings_under_way_do_not_move_it() -> None:
    async with running(**_FAST) as app:
        await push(app, 1, 4, "group:news")
        async with last(app, groups="news", pong=False) as alice:
            welcome = await alice.event()
            epoch = welcome["streams"]["group:news"]["epoch"]
            await eventually(lambda: alice.pings)
            answer = await alice.ask(type="join", id=1, group="news", epoch=epoch, offset=1)
            assert (answer["offset"], answer["missed"]) == (1, 3)
            for ping in alice.pings[:1]:
                alice.send_raw(_pong(ping))
            await alice.ask(type="ping", id=2)
        async with last(app) as back:
            fields = (await back.event())["streams"]["group:news"]
            assert (fields["offset"], fields["recovered"], fields["missed"]) == (1, True, 3)


async def test_unsolicited_pongs_confirm_nothing() -> None:
    async with running() as app:
        async with last(app) as alice:
            await alice.events(3)
            await push(app, 1, 3)
            await numbers(alice, 3)
            for payload in (b"", b"0", b"1", b"zz", b"ffffffff"):
                alice.send_raw(_pong(payload))
            await alice.ask(type="ping", id=1)
        async with last(app) as back:
            assert (await back.event())["streams"]["client:alice"]["offset"] == 0


def _pong(payload: bytes) -> bytes:
    from tests.peer import PONG, frame

    return frame(PONG, payload)


@pytest.mark.parametrize("cursor", ["LAST", "last "])
async def test_only_the_exact_word_means_the_record(cursor: str) -> None:
    from tests.peer import Refusal

    async with running() as app:
        with pytest.raises(Refusal) as refused:
            await Peer(app.public_port, client="alice", cursor=cursor).connect()
        assert refused.value.status == 400


async def test_a_client_with_too_many_devices_begins_anew_on_the_oldest_and_others_notice_nothing() -> None:
    async with running(LIMITS__RECORDS_PER_CLIENT=2) as app:
        async with Peer(app.public_port, client="bob", cursor="last") as bob:
            await bob.events(3)
            bob.close()
            await bob.ended()
        for device in ("phone", "tablet", "watch"):
            async with last(app, device=device) as alice:
                await alice.events(3)
                alice.close()
                await alice.ended()
        recovered = {}
        for device in ("watch", "tablet", "phone"):
            async with last(app, device=device) as alice:
                recovered[device] = (await alice.event())["streams"]["all"]["recovered"]
        assert recovered == {"watch": True, "tablet": True, "phone": False}
        async with Peer(app.public_port, client="bob", cursor="last") as bob:
            assert (await bob.event())["streams"]["all"]["recovered"] is True
        assert b"tidegate_records_given_up_total 2.0" in app.metrics.text()
