"""Events on their way to the application: in order, each at least once, or said to be missed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.brokers.server import RedisServer, SentinelServer, sentinel_url
from tests.events.receiver import KEY, OK, Receiver, receiving, status
from tests.support import Logs, Process, eventually
from tidegate import forwarder as forwarding
from tidegate.config.load import load
from tidegate.forwarder import Forwarder
from tidegate.tasks import Tasks

FORWARDED = "tidegate:events"
DEAD = "tidegate:events:dead"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AGAIN_S": (0.05, 0.1), "STANDBY_S": 0.1, "LOOK_S": 0.02, "REDIS_S": 0.1}.items():
        monkeypatch.setattr(forwarding, name, value)


def environ(server: RedisServer, receiver: Receiver, url_of_redis: str = "", **settings: Any) -> dict[str, str]:
    fixed = {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": url_of_redis or server.url}
    events = {"enabled": "true", "url": receiver.url, "key": KEY} | settings
    return fixed | {f"TIDEGATE_EVENTS__{name.upper()}": str(value) for name, value in events.items()}


@contextlib.asynccontextmanager
async def running(
    server: RedisServer, receiver: Receiver, lease_s: float = 10.0, **settings: Any
) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(load(None, environ(server, receiver, **settings)), lease_s=lease_s)
    tasks = Tasks()
    task = tasks.spawn(forwarder.run(), "forwarder")
    try:
        yield forwarder
    finally:
        forwarder.stop()
        receiver.release.set()
        await eventually(task.done)
        await task


def tell(server: RedisServer, *clients: str) -> list[str]:
    """Events as nodes write them; their ids."""
    return [
        server.command("XADD", FORWARDED, "*", "event", "connected", "client", client, "connection", "c", "node", "n")
        for client in clients
    ]


def pending(server: RedisServer) -> int:
    return int(server.command("XPENDING", FORWARDED, "forwarder")["pending"])


async def test_events_come_in_their_order_with_their_ids_whatever_fails_on_the_way(expected_logs: Logs) -> None:
    expected_logs.expect("events.delayed")
    clients = [f"c{number}" for number in range(25)]
    heads = iter(
        [status(500), status(429, "Retry-After: 0"), b"HTTP/1.1 503 So\r\n", status(302, "Location: /"), status(401)]
    )
    with RedisServer() as server:
        async with receiving() as receiver:
            receiver.answer = lambda events: next(heads, OK)
            ids = tell(server, *clients)
            async with running(server, receiver, batch_events=10):
                await eventually(lambda: len(receiver.taken) == 25 and pending(server) == 0)
                ids += tell(server, "alice")
                await eventually(lambda: receiver.clients[25:] == ["alice"])
            assert [event["id"] for event in receiver.taken] == ids
            assert receiver.clients == [*clients, "alice"]
            assert receiver.taken[0] == {
                "id": ids[0],
                "event": "connected",
                "client": "c0",
                "connection": "c",
                "node": "n",
            }
            assert [len(batch["events"]) for batch in receiver.batches] == [10] * 7 + [5, 1]
            assert server.command("EXISTS", DEAD) == 0


async def test_an_event_that_is_refused_goes_to_the_dead_letters_alone(expected_logs: Logs) -> None:
    expected_logs.expect("events.given_up")
    with RedisServer() as server:
        async with receiving() as receiver:
            receiver.answer = lambda events: status(422) if any(event["client"] == "bad" for event in events) else OK
            tell(server, "a", "b", "bad", "c", "d")
            async with running(server, receiver):
                await eventually(lambda: receiver.clients == ["a", "b", "c", "d"] and pending(server) == 0)
            ((_, letter),) = server.command("XRANGE", DEAD, "-", "+")
            assert letter["reason"] == "refused: the application answered 422"
            assert '"client":"bad"' in letter["event"]


async def test_a_batch_that_fails_holds_up_the_others_for_so_long_and_then_is_a_dead_letter(
    expected_logs: Logs,
) -> None:
    expected_logs.expect("events.delayed")
    expected_logs.expect("events.given_up")
    with RedisServer() as server:
        async with receiving() as receiver:
            waits = iter(["0", "0", "0", "3000"])  # the last is longer than it is tried
            receiver.answer = lambda events: (
                status(500, f"Retry-After: {next(waits, '0')}") if events[0]["client"] == "poison" else OK
            )
            tell(server, "poison", "after")
            async with running(server, receiver, batch_events=1, retry_s=0.3):
                await eventually(lambda: receiver.clients == ["after"])
                assert len(receiver.batches) > 3
            ((_, letter),) = server.command("XRANGE", DEAD, "-", "+")
            assert letter["reason"] == "failed: the application answered 500"


async def test_what_was_trimmed_away_is_said_once(expected_logs: Logs) -> None:
    expected_logs.expect("events.missed")
    with RedisServer() as server:
        async with receiving() as receiver:
            tell(server, "a", "b")
            async with running(server, receiver):
                await eventually(lambda: receiver.clients == ["a", "b"] and pending(server) == 0)
            tell(server, "c", "d", "e", "f")
            server.command("XTRIM", FORWARDED, "MAXLEN", "=", "2")
            heads = iter([status(503), status(413)])
            receiver.answer = lambda events: next(heads, OK)
            expected_logs.expect("events.delayed")
            async with running(server, receiver):
                await eventually(lambda: receiver.clients[2:] == ["e", "f"])
                await eventually(lambda: pending(server) == 0)
                tell(server, "g")
                await eventually(lambda: receiver.clients[4:] == ["g"])
            assert [batch["missed"] for batch in receiver.batches] == [0, 2, 2, 2, 0, 0]


async def test_of_two_forwarders_one_posts_and_the_other_takes_over() -> None:
    with RedisServer() as server:
        async with receiving() as receiver:
            async with running(server, receiver, batch_events=1) as one:
                tell(server, "a")
                await eventually(lambda: receiver.clients == ["a"])
                async with running(server, receiver, batch_events=1):
                    tell(server, *"bcdefgh")
                    await eventually(lambda: receiver.clients == list("abcdefgh"))
                    one.stop()
                    tell(server, "i")
                    await eventually(lambda: receiver.clients == list("abcdefghi"))
            assert receiver.most_at_once == 1


async def test_who_has_lost_the_lease_cuts_its_request_and_settles_nothing(expected_logs: Logs) -> None:
    """It hung, and another took the same events meanwhile."""
    expected_logs.expect("lease.lost")
    with RedisServer() as server:
        async with receiving() as receiver:
            heads = iter([b""])
            receiver.answer = lambda events: next(heads, OK)
            tell(server, "a")
            async with running(server, receiver, lease_s=0.4):
                await eventually(lambda: len(receiver.batches) == 1)
                server.command("SET", f"{FORWARDED}:lease", "another", "PX", 300)
                await eventually(lambda: expected_logs.seen("lease.lost"))
                assert pending(server) == 1
                await eventually(lambda: receiver.clients == ["a"] and pending(server) == 0)


async def test_it_goes_on_when_redis_is_back(expected_logs: Logs) -> None:
    expected_logs.expect("redis.lost")
    with RedisServer() as server:
        async with receiving() as receiver:
            async with running(server, receiver):
                tell(server, "a")
                await eventually(lambda: receiver.clients == ["a"])
                server.kill()
                await eventually(lambda: expected_logs.seen("redis.lost"))
                server.start()
                tell(server, "b")
                await eventually(lambda: receiver.clients == ["a", "b"])


async def test_a_stop_waits_for_the_answer_but_for_no_further_attempt(expected_logs: Logs) -> None:
    expected_logs.expect("events.delayed")
    with RedisServer() as server:
        async with receiving() as receiver:
            heads = iter([b"", status(503, "Retry-After: 3000")])
            receiver.answer = lambda events: next(heads)
            tell(server, "a", "b", "c")
            async with running(server, receiver, batch_events=1) as forwarder:
                await eventually(lambda: len(receiver.batches) == 1)
                forwarder.stop()
            assert receiver.clients == ["a"]
            assert pending(server) == 0
            async with running(server, receiver, batch_events=1):
                await eventually(lambda: expected_logs.seen("events.delayed"))
            assert pending(server) == 1
            assert server.command("EXISTS", f"{FORWARDED}:lease") == 0


async def test_redis_is_found_by_sentinels() -> None:
    with RedisServer() as server, SentinelServer(server.port, quorum=1) as sentinel:
        async with receiving() as receiver:
            tell(server, "a")
            async with running(server, receiver, url_of_redis=sentinel_url(sentinel.port)):
                await eventually(lambda: receiver.clients == ["a"])


# As a process


async def test_after_kill_9_in_the_middle_each_event_comes_at_least_once_with_its_id(
    start_process: Callable[..., Process],
) -> None:
    with RedisServer() as server:
        async with receiving() as receiver:
            heads = iter([OK, b""])
            receiver.answer = lambda events: next(heads, OK)
            ids = tell(server, "a", "b", "c", "d", "e")
            run = (sys.executable, "-m", "tidegate", "forward-events")
            env = environ(server, receiver, batch_events=2)
            first = start_process(*run, env=env)
            await eventually(lambda: len(receiver.batches) == 2, 15)
            first.signal(signal.SIGKILL)
            await first.ended()
            assert pending(server) == 2
            server.command("DEL", f"{FORWARDED}:lease")  # its time is over
            second = start_process(*run, env=env)
            await eventually(lambda: len(receiver.taken) == 5 and pending(server) == 0, 15)
            assert await second.stop() == 0
            assert server.command("EXISTS", f"{FORWARDED}:lease") == 0
            assert [event["id"] for event in receiver.taken] == ids
            assert receiver.batches[1]["events"] == receiver.batches[2]["events"]
            assert KEY not in first.stderr + second.stderr


async def test_without_a_url_it_says_what_is_missing(start_process: Callable[..., Process]) -> None:
    process = start_process(sys.executable, "-m", "tidegate", "forward-events", env={})
    assert await process.ended() == 1
    assert "cannot start: events.url = null: is needed" in process.stderr
