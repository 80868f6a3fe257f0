"""A whole node with Redis behind it: what applications and clients see while Redis is in trouble, and after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.brokers.nodes import shorter
from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled
from tidegate import app as composition
from tidegate.app import App
from tidegate.brokers.redis import broker as broker_redis

RED_S = 10.0  # contract, section 4: /readyz
REFUSED_S = 5.0


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node's times as short as those of the other tests."""
    monkeypatch.setattr(composition, "PROBE_S", 0.2)
    monkeypatch.setattr(broker_redis, "Timing", lambda: shorter(operation_s=1.0, wait_s=0.5))


@contextlib.asynccontextmanager
async def node(url: str, **settings: Any) -> Any:
    async with running(BROKER__KIND="redis", BROKER__URL=url, **settings) as app:
        yield app


async def get(app: App, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{app.internal_port}{path}") as answer:
            return answer.status, await answer.text()


async def push(app: App, group: str, data: Any, key: str) -> tuple[int, dict[str, Any], str | None]:
    """Status, body and Retry-After."""
    async with aiohttp.ClientSession(headers={"Idempotency-Key": key}) as http:
        url = f"http://127.0.0.1:{app.internal_port}/api/groups/{group}/push"
        async with http.post(url, json={"data": data}) as answer:
            return answer.status, await answer.json(), answer.headers.get("Retry-After")


async def turns(app: App, status: int, limit_s: float) -> float:
    """Seconds until ``/readyz`` answers ``status``."""
    begun_s = time.monotonic()

    async def says() -> bool:
        return (await get(app, "/readyz"))[0] == status

    await eventually(says, limit_s)
    return time.monotonic() - begun_s


def member(app: App, client: str = "alice", **query: Any) -> Peer:
    return Peer(app.public_port, client=client, **(query or {"groups": "news"}))


class Trouble:
    """``begin`` and ``end`` of what ``name`` says happens to Redis."""

    def __init__(self, name: str, server: RedisServer, proxy: Proxy) -> None:
        kinds: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "paused": (server.pause, server.resume),
            "cut off": (proxy.cut, proxy.heal),
            "killed": (server.kill, server.start),
            "full": (
                lambda: server.command("CONFIG", "SET", "maxmemory", "1"),
                lambda: server.command("CONFIG", "SET", "maxmemory", "0"),
            ),
        }
        self.begin, self.end = kinds[name]


async def survives(name: str, red_s: float) -> tuple[float, float, float]:
    """One trouble from begin to end, with a member and a pusher. How long it took until a push was refused, until the
    node was not ready, and from the end of the trouble until it was again."""
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with Proxy(server.port) as proxy, node(proxy.url) as app, member(app) as alice:
            await alice.event()
            assert (await push(app, "news", 1, "k1"))[0] == 202
            assert (await alice.event())["data"] == 1
            trouble = Trouble(name, server, proxy)
            await asyncio.to_thread(trouble.begin)
            red = asyncio.ensure_future(turns(app, 503, red_s))  # noqa: TID251 - awaited below
            begun_s = time.monotonic()
            status, body, retry_after = await push(app, "news", 2, "k2")
            refused_s = time.monotonic() - begun_s
            assert (status, body["error"]["code"]) == (503, "broker_down")
            assert retry_after is not None
            assert int(retry_after) >= 1
            not_ready_s = await red
            assert json.loads((await get(app, "/readyz"))[1])["code"] == "broker_down"
            assert (await get(app, "/healthz"))[0] == 200
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
            await asyncio.to_thread(trouble.end)
            ready_s = await turns(app, 200, 30)
            assert (await push(app, "news", 2, "k2"))[0] == 202
            assert (await push(app, "news", 3, "k3"))[0] == 202
            got = await alice.events(2)
            assert [event.get("data") for event in got] == [2, 3], got
            assert not alice.gone.is_set()
            assert await counted(app, "tidegate_broker_losses_total") == 1
            if name != "full":  # where it answers all the time
                assert await counted(app, "tidegate_redis_losses_total") == 1
                assert await counted(app, 'tidegate_redis_connects_total{link="commands"}') >= 2
            assert await counted(app, "tidegate_redis_seconds_count") > 10
            assert await counted(app, "tidegate_redis_memory_bytes") > 0
            return refused_s, not_ready_s, ready_s


TROUBLES = ["paused", "cut off", "killed", "full"]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", TROUBLES)
async def test_connections_stay_open_and_pushes_get_a_clear_answer_while_redis_is(
    name: str, expected_logs: Logs, caplog: pytest.LogCaptureFixture
):
    expected_logs.expect("broker.lost")
    expected_logs.allow("redis.went_back")
    caplog.set_level(logging.INFO, "tidegate")
    await survives(name, RED_S)
    begun, ended = [vars(record)["fields"] for record in caplog.records if record.getMessage() == "broker.ready"]
    assert "outage_s" not in begun
    assert ended["outage_s"] > 0
    assert ended["error"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TROUBLES)
async def test_with_default_times_a_node_is_not_ready_within_10_s_after_redis_is(name: str, expected_logs: Logs):
    expected_logs.expect("broker.lost")
    expected_logs.allow("redis.went_back")
    refused_s, not_ready_s, ready_s = await survives(name, 2 * RED_S)
    print(f"{name}: refused after {refused_s:.1f} s, not ready after {not_ready_s:.1f} s, ready {ready_s:.1f} s after")
    assert refused_s < scaled(REFUSED_S)
    assert not_ready_s < scaled(RED_S)
    assert ready_s < scaled(RED_S)


def redis_cli(server: RedisServer, *args: str) -> str:
    command = ["redis-cli", "-p", str(server.port), *args]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=scaled(10)).stdout.strip()


@pytest.mark.usefixtures("fast")
async def test_a_push_with_redis_cli_reaches_every_member_on_every_node_once():
    with RedisServer() as server:
        async with node(server.url) as one, node(server.url) as two:
            async with member(one) as alice, member(two, "bob") as bob, member(two, "eve", groups="other") as eve:
                for peer in (alice, bob, eve):
                    await peer.event()
                assert "-" in redis_cli(server, "XADD", "tidegate:push", "*", "group", "news", "data", '{"n":1}')
                assert "-" in redis_cli(server, "XADD", "tidegate:push", "*", "all", "1", "data", '"end"')
                for peer in (alice, bob):
                    first, last = await peer.events(2)
                    assert (first["stream"], first["data"], last["data"]) == ("group:news", {"n": 1}, "end")
                assert (await eve.event())["data"] == "end"


@pytest.mark.usefixtures("fast")
async def test_entries_made_while_no_node_ran_are_delivered_when_one_starts():
    with RedisServer() as server:
        async with node(server.url) as app, member(app) as alice:
            await alice.event()
            cursor = (await alice.ask(type="ping", id=1))["cursor"]
        for n in range(3):
            redis_cli(server, "XADD", "tidegate:push", "*", "group", "news", "data", json.dumps({"n": n}))
        async with node(server.url) as app, member(app, cursor=cursor) as alice:
            welcome = await alice.event()
            assert welcome["streams"]["group:news"]["recovered"] is True
            assert [event["data"]["n"] for event in await alice.events(3)] == [0, 1, 2]


async def test_a_node_without_members_of_a_stream_hears_nothing_of_it():
    with RedisServer() as server:
        async with node(server.url) as one, node(server.url) as two, member(one) as alice:
            await alice.event()
            wakeups = [await counted(app, "tidegate_wakeups_total") for app in (one, two)]
            for n in range(20):
                assert (await push(two, "news", n, f"k{n}"))[0] == 202
            await alice.events(20)
            heard = [await counted(app, "tidegate_wakeups_total") for app in (one, two)]
            assert heard[0] - wakeups[0] >= 20
            assert heard[1] - wakeups[1] < 10  # its own canaries


async def counted(app: App, name: str) -> float:
    lines = (await get(app, "/metrics"))[1].splitlines()
    (line,) = [line for line in lines if line.startswith(name + " ")]
    return float(line.split()[1])


async def test_a_node_is_known_to_be_ready_as_soon_as_it_is():
    """Who restarts nodes one after the other waits until one is ready, and stops the next, whose first clients must be
    told then that they may move."""
    with RedisServer() as server:
        async with node(server.url) as one, node(server.url, SERVER__NODE="n2") as two:

            async def known() -> bool:
                return any(info.node == two.node and info.lag_ms is not None for info in await one.broker.nodes())

            await eventually(known, 0.5)


@pytest.mark.usefixtures("fast")
async def test_a_redis_that_comes_back_empty_has_gone_back(expected_logs: Logs) -> None:
    """One of its nodes counts it; at its own start a node counts nothing."""
    expected_logs.allow("broker.lost")  # where its restart takes longer than a canary may
    with RedisServer() as server:
        async with node(server.url) as one, node(server.url, SERVER__NODE="n2") as other:
            assert await counted(one, 'tidegate_redis_resets_total{reason="empty"}') == 0
            await asyncio.to_thread(server.restart)

            async def resets() -> float:
                reason = 'tidegate_redis_resets_total{reason="empty"}'
                return await counted(one, reason) + await counted(other, reason)

            await eventually(resets, 10)
            assert await resets() == 1
