"""Hundreds of pushes through wires that are cut at random: each arrives once, and in order."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.publishers import KINDS, Between, Kind, answer, publisher
from tests.support import scaled
from tidegate_client.publisher import Publisher
from tidegate_client.pytest import Gateway, gateway

BUSY = answer(503, '{"error":{"code":"draining","message":"no"}}', "Retry-After: 0")
PUSHES = 40
WRITERS = 3


def plan(seed: int, *faults: str | bytes) -> list[str | bytes]:
    """One request of four goes wrong."""
    chance = random.Random(seed)
    return [chance.choice(faults) if chance.random() < 0.25 else "pass" for _ in range(1000)]


def write(kind: Kind, url: str, group: str) -> None:
    """Pushes 0, 1, 2, …, some of them in batches."""
    with publisher(kind, url, timeout_s=1) as pub:
        n = 0
        while n < PUSHES:
            count = 1 + n % 4
            if count == 1:
                pub.push(group=group, data=n)
            else:
                pub.push_many([{"group": group, "data": n + i} for i in range(count)])
            n += count
        pub.push(group=group, data="end")


def journal(gateway: Gateway, group: str) -> list[Any]:
    with Publisher(gateway.api_url) as asking:
        deadline = time.monotonic() + scaled(10)
        while True:  # through Redis a node is not done at once
            data = [message.data for message in asking.history(group=group, limit=1000).messages]
            if data[-1:] == ["end"] or time.monotonic() > deadline:
                return data
            time.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_over_http_each_push_arrives_once_and_in_order(kind: Kind) -> None:
    with gateway() as running:
        port = int(running.api_url.rpartition(":")[2])
        with Between(port, *plan(1, "lose", "drop", BUSY)) as between, ThreadPoolExecutor(WRITERS) as pool:
            url = f"http://127.0.0.1:{between.port}"
            list(pool.map(lambda n: write(kind, url, f"w{n}"), range(WRITERS)))
        for n in range(WRITERS):
            data = journal(running, f"w{n}")
            assert data == [*range(len(data) - 1), "end"]
            assert len(data) > PUSHES


@pytest.mark.parametrize("kind", KINDS)
def test_through_redis_each_push_arrives_once_and_in_order(kind: Kind) -> None:
    with RedisServer() as server, gateway(broker={"kind": "redis", "url": server.url}) as running:
        between = Between(server.port, *plan(2, "lose", "drop"), end=len, only=b"XADD")
        with between, ThreadPoolExecutor(WRITERS) as pool:
            url = f"redis://127.0.0.1:{between.port}/0"
            list(pool.map(lambda n: write(kind, url, f"w{n}"), range(WRITERS)))
        for n in range(WRITERS):
            data = journal(running, f"w{n}")
            assert data == [*range(len(data) - 1), "end"]
            assert len(data) > PUSHES
