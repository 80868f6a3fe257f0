"""Slow readers of a group with the policy ``latest``: what they are not sent is announced, and they end with the newest
of each word."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tests.brokers.server import RedisServer
from tests.gateway.test_last import push
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually
from tidegate.app import App
from tidegate.core.model import Position, Publication, encode_cursor
from tidegate.core.session import PAGE_BYTES, Session

KIB = 1024
GROUPS = {"prices": {"slow": "latest"}, "log": {"slow": "replay"}}
SMALL = {"LIMITS__OUTBOX_BYTES": 327_680, "GROUPS": GROUPS}  # the smallest outbox that there may be
WORDS = ("north", "south", "west")


async def flood(app: App, group: str, count: int, words: Sequence[str | None], size: int = 8 * KIB) -> None:
    """``count`` messages, each of the next word, some in each turn of the loop. Their data is their word and number."""
    for number in range(1, count + 1):
        word = words[number % len(words)]
        data = json.dumps([word, number, "x" * size]).encode()
        (result,) = await app.gateway.push([Publication(f"group:{group}", data, conflate=word)])
        assert isinstance(result, Position)
        await asyncio.sleep(0)


def session(app: App, client: str) -> Session:
    (only,) = app.hub.of_client(client)
    return only


@contextlib.asynccontextmanager
async def stalled(app: App, groups: str = "prices", **query: Any) -> AsyncIterator[Peer]:
    """A client that reads its welcome, and then nothing until it is told to."""
    async with Peer(app.public_port, client="alice", groups=groups, rcvbuf=16 * KIB, **query) as alice:
        await alice.event()
        alice.reading.clear()
        yield alice


async def heard(app: App, offset: int) -> None:
    """Returns when the node has heard the group up to this offset."""
    await eventually(lambda: app.hub.audiences["group:prices"].position.offset == offset)


async def until(alice: Peer, offset: int, stream: str = "group:prices") -> list[dict[str, Any]]:
    """Its events of the stream up to this offset, which must follow each other."""
    events: list[dict[str, Any]] = []
    at = 0
    while at < offset:
        event = await alice.event(10)
        if event.get("stream") != stream:
            continue
        if events:
            assert event.get("from", event.get("offset")) == at + 1, f"{event} follows {at}"
        at = event["to"] if event["type"] == "gap" else event["offset"]
        events.append(event)
    return events


def newest(events: list[dict[str, Any]]) -> dict[str | None, int]:
    return {event["data"][0]: event["data"][1] for event in events if event["type"] == "message"}


def skipped(events: list[dict[str, Any]]) -> int:
    return sum(
        event["to"] - event["from"] + 1 for event in events if event["type"] == "gap" and event["reason"] == "skipped"
    )


async def test_a_slow_reader_ends_with_the_newest_of_each_word_and_nobody_notices() -> None:
    async with running(**SMALL) as app, Peer(app.public_port, client="bob", groups="prices") as bob:
        await bob.event()
        async with stalled(app) as alice:
            await flood(app, "prices", 300, WORDS)
            waited = session(app, "alice").wire.size
            assert waited < 327_680 + 16 * KIB, "of what is skipped nothing is kept"
            assert [(await bob.event())["offset"] for _ in range(300)] == [*range(1, 301)]
            alice.reading.set()
            events = await until(alice, 300)
            assert newest(events) == {"west": 299, "north": 300, "south": 298}
            assert skipped(events) > 200
            assert [event["type"] for event in events[-5:]].count("gap") <= 1
            await eventually(lambda: not session(app, "alice").tracks)  # it is live
            await push(app, 301, 301, "group:prices")
            assert (await alice.event())["offset"] == 301
        assert f"tidegate_skipped_messages_total {skipped(events)}.0" in app.metrics.text().decode()
        assert 'tidegate_slow_streams_total{policy="latest"} 1.0' in app.metrics.text().decode()


async def test_without_words_the_last_message_stands_for_all() -> None:
    async with running(**SMALL) as app, stalled(app) as alice:
        await flood(app, "prices", 300, [None])
        alice.reading.set()
        events = await until(alice, 300)
        assert [event.get("offset", event["type"]) for event in events[-2:]] == ["gap", 300]


async def test_a_reader_that_stays_slow_is_skipped_for_again_and_again_and_is_never_closed() -> None:
    async with running(**SMALL) as app, stalled(app) as alice:
        at = 0
        for _ in range(4):
            await flood(app, "prices", 100, WORDS)
            at += 100
            alice.reading.set()
            events = await until(alice, at)
            assert events[-1]["data"][1] == 100
            await eventually(lambda: not session(app, "alice").tracks)
            alice.reading.clear()
        assert app.metrics.fell_back["latest",] >= 3
        assert alice.close_code is None


async def test_who_is_cut_while_it_is_behind_gets_everything_from_its_cursor() -> None:
    async with running(**SMALL) as app, Peer(app.public_port, client="bob", groups="prices"):
        async with stalled(app) as alice:
            await flood(app, "prices", 200, WORDS)
            here = session(app, "alice").position("group:prices")
            assert here.offset < 100, "its position is what was queued"
            alice.reading.set()
            events = await until(alice, here.offset)
            assert skipped(events) == 0
        cursor = encode_cursor({"group:prices": here})
        assert cursor is not None
        async with Peer(app.public_port, client="alice", cursor=cursor) as alice:
            welcome = await alice.event()
            fields = welcome["streams"]["group:prices"]
            assert (fields["recovered"], fields["missed"]) == (True, 200 - here.offset)
            events = await until(alice, 200)
            assert (skipped(events), len(events)) == (0, 200 - here.offset)


async def test_a_record_of_cursor_last_knows_what_was_skipped_once_a_pong_confirms_it() -> None:
    async with running(**SMALL, HEARTBEAT__WEBSOCKET_PING_INTERVAL="0.15") as app:
        async with stalled(app, cursor="last") as alice:
            await flood(app, "prices", 200, WORDS)
            confirmations = session(app, "alice").confirmations
            assert confirmations is not None
            assert confirmations.confirmed["group:prices"].offset < 100
            alice.reading.set()
            await until(alice, 200)
            await eventually(lambda: confirmations.confirmed["group:prices"].offset == 200)
        async with Peer(app.public_port, client="alice", cursor="last") as alice:
            fields = (await alice.event())["streams"]["group:prices"]
            assert (fields["offset"], fields["recovered"], fields["missed"]) == (200, True, 0)


async def test_what_the_journal_lost_meanwhile_is_lost_and_the_rest_is_skipped() -> None:
    groups = {"prices": {"slow": "latest", "messages": 50}}
    async with running(**SMALL | {"GROUPS": groups}) as app, stalled(app) as alice:
        await flood(app, "prices", 300, WORDS)
        alice.reading.set()
        events = await until(alice, 300)
        gaps = [(event["reason"], event["to"]) for event in events if event["type"] == "gap"]
        assert gaps == [("expired", 250), ("skipped", 297)]
        assert newest(events) == {"west": 299, "north": 300, "south": 298}


async def test_streams_of_several_policies_go_on_each_by_its_own() -> None:
    async with running(**SMALL) as app, stalled(app, "prices,log") as alice:
        for _ in range(10):
            await flood(app, "prices", 15, WORDS)
            await flood(app, "log", 15, [None])
        alice.reading.set()
        seen: dict[str, list[dict[str, Any]]] = {"group:prices": [], "group:log": []}
        while [event.get("offset") for events in seen.values() for event in events[-1:]] != [150, 150]:
            event = await alice.event(10)
            seen[event["stream"]].append(event)
        assert [event["offset"] for event in seen["group:log"]] == [*range(1, 151)]
        assert skipped(seen["group:prices"]) > 50
        assert newest(seen["group:prices"]) == {"west": 14, "north": 15, "south": 13}


async def test_other_streams_over_the_limit_close_it_all_the_same() -> None:
    async with running(**SMALL) as app, stalled(app) as alice:
        await flood(app, "prices", 100, WORDS)
        await push(app, 1, 1, "all")
        for _ in range(100):
            await app.gateway.push([Publication("all", json.dumps("x" * 8 * KIB).encode())])
            await asyncio.sleep(0)
        alice.reading.set()
        assert await alice.ended(10) == 4008


async def test_of_more_words_than_a_page_holds_no_more_than_that_waits() -> None:
    words = [f"w{number}" for number in range(100)]
    async with running(**SMALL) as app, stalled(app) as alice:
        await flood(app, "prices", 400, words)
        alice.reading.set()
        most = 0
        events: list[dict[str, Any]] = []
        while not events or events[-1].get("offset") != 400:
            events.append(await alice.event(10))
            most = max(most, session(app, "alice").wire.size)
        assert newest(events) == {words[number % 100]: number for number in range(301, 401)}
        assert most < max(327_680, PAGE_BYTES + 64 * KIB) + 16 * KIB


async def test_no_client_is_told_the_word() -> None:
    policy = {"prices": {"slow": "latest", "publish": "members"}}
    async with running(GROUPS=policy) as app, Peer(app.public_port, client="bob", groups="prices") as bob:
        await bob.event()
        await flood(app, "prices", 1, ["north"], 1)
        assert list(await bob.event()) == ["type", "stream", "epoch", "offset", "time", "data"]
        await bob.ask(type="publish", id=1, group="prices", data=[], conflate="west")
        messages = [event for event in bob.seen if event["type"] == "message" and event["offset"] == 2]
        message = messages[0] if messages else await bob.event()  # before or after the answer
        assert list(message) == ["type", "stream", "epoch", "offset", "time", "client", "data"]
        history = await bob.ask(type="history", id=2, group="prices")
        assert [list(message) for message in history["messages"]] == [
            ["offset", "time", "data"],
            ["offset", "time", "client", "data"],
        ]
        page = await app.broker.history("group:prices", None, messages=9, size=9999)
        assert [message.conflate for message in page.messages] == ["north", "west"]
        refused = await bob.ask(type="publish", id=3, group="prices", data=[], conflate="a/b")
        assert (refused["code"], refused["message"].partition(":")[0]) == ("bad_request", "conflate")


async def test_with_redis_it_is_the_same_from_the_nodes_tail_and_from_the_journal() -> None:
    with RedisServer() as server:
        redis = {"BROKER__KIND": "redis", "BROKER__URL": server.url}
        async with running(**SMALL, **redis) as app, stalled(app) as alice:
            for top in (150, 300):
                await flood(app, "prices", 150, WORDS)  # 1.2 MiB: more than a tail has
                await heard(app, top)
                alice.reading.set()
                events = await until(alice, top)
                assert newest(events) == {"west": 149, "north": 150, "south": 148}
                await eventually(lambda: not session(app, "alice").tracks)
                alice.reading.clear()
            assert app.metrics.skipped > 60
