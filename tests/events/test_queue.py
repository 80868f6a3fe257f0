"""What of the stream is taken, by whom, and what is known of events that are no more."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.brokers.server import RedisServer
from tidegate.brokers.redis.events import EventQueue, LeaseLost, Taken

STREAM = "tidegate:events"


@contextlib.asynccontextmanager
async def queue(server: RedisServer, token: str = "one") -> AsyncIterator[EventQueue]:
    made = EventQueue(server.url, "tidegate", token=token, lease_s=10.0)
    await made.connect()
    try:
        yield made
    finally:
        made.close()


def add(server: RedisServer, count: int) -> None:
    for _ in range(count):
        server.command("XADD", STREAM, "*", "event", "connected", "client", "alice")


async def take(made: EventQueue, most: int = 10) -> Taken:
    taken = await made.take(most)
    assert taken is not None
    return taken


async def test_what_was_taken_and_then_trimmed_away_is_missed() -> None:
    with RedisServer() as server:
        add(server, 6)
        async with queue(server) as one:
            assert len((await take(one, 4)).events) == 4
        server.command("XTRIM", STREAM, "MAXLEN", "=", 1)  # of those that were taken, and one more
        async with queue(server) as again:
            assert await take(again) == Taken(missed=5, behind=1, events=[])
            last = await take(again)
            assert (last.missed, len(last.events)) == (5, 1)
            await again.settle(last.events, told=5)
            assert await take(again) == Taken(0, 0, [])


async def test_what_is_told_was_not_taken_before() -> None:
    with RedisServer() as server:
        add(server, 5)
        async with queue(server) as one:
            await one.settle((await take(one, 3)).events)
            server.command("XTRIM", STREAM, "MAXLEN", "=", 1)
            assert (await take(one)).missed == 1


async def test_a_stream_that_was_deleted_begins_anew() -> None:
    with RedisServer() as server:
        add(server, 5)
        async with queue(server) as one:
            await one.settle((await take(one)).events)
            server.command("DEL", STREAM)
            add(server, 3)
            taken = await take(one, 2)
            assert (taken.missed, taken.behind, len(taken.events)) == (0, 1, 2)


async def test_who_has_no_lease_takes_and_settles_nothing() -> None:
    with RedisServer() as server:
        add(server, 1)
        async with queue(server) as one, queue(server, "two") as two:
            taken = await take(one)
            assert await two.take(10) is None
            server.command("DEL", f"{STREAM}:lease")
            with pytest.raises(LeaseLost):
                await one.settle(taken.events)
            with pytest.raises(LeaseLost):
                await one.take(10)
            assert (await take(two)).events == taken.events
