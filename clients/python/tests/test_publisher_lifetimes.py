"""Publishers in several processes, threads and event loops, over both wires."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest

from tests.brokers.server import RedisServer
from tests.publishers import KINDS, Between, Kind
from tests.support import ROOT
from tidegate_client import AsyncPublisher, Publisher
from tidegate_client.pytest import Gateway, gateway


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


@pytest.fixture(scope="module")
def real() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


class Wire:
    """One wire, with somebody between who counts connections."""

    def __init__(self, scheme: Literal["http", "redis"], gateway: Gateway, server: RedisServer, name: str) -> None:
        self.name = name
        self._gateway = gateway
        self._redis = server if scheme == "redis" else None
        port = server.port if scheme == "redis" else int(gateway.api_url.rpartition(":")[2])
        self.between = Between(port, end=len if scheme == "redis" else None)
        self.url = f"{scheme}://127.0.0.1:{self.between.port}"

    def pushed(self) -> list[Any]:
        """What was pushed to the group ``name``, in order."""
        if self._redis is not None:
            entries = self._redis.command("XRANGE", "tidegate:push", "-", "+")
            return [int(fields["data"]) for _, fields in entries if fields["group"] == self.name]
        with Publisher(self._gateway.api_url) as asking:
            return [message.data for message in asking.history(group=self.name, limit=1000).messages]


@pytest.fixture(params=["http", "redis"])
def wire(request: pytest.FixtureRequest, real: Gateway, server: RedisServer) -> Iterator[Wire]:
    made = Wire(request.param, real, server, f"g{abs(hash(request.node.nodeid))}")
    with made.between:
        yield made


def run_script(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": f"{ROOT / 'clients/python'}:{ROOT / 'service'}", "PATH": ""}
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", script, *args]
    return subprocess.run(command, env=env, text=True, capture_output=True, timeout=50, check=False)


FORKS = """
import os, sys
from tidegate_client import AsyncPublisher, Publisher
import asyncio

url, kind, group = sys.argv[1:]
pub = Publisher(url) if kind == "sync" else AsyncPublisher(url)
runner = asyncio.Runner()

def push(n):
    found = pub.push(group=group, data=n)
    return found if kind == "sync" else runner.run(found)

push(0)
children = []
for child in range(2):
    pid = os.fork()
    if pid == 0:
        runner = asyncio.Runner()
        for n in range(20):
            push(n)
        os._exit(0)
    children.append(pid)
for n in range(20):
    push(n)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
push(100)
runner.close()
"""


def test_processes_of_a_fork_share_no_connection(kind: Kind, wire: Wire) -> None:
    done = run_script(FORKS, wire.url, kind, wire.name)
    assert done.returncode == 0, done.stderr
    assert wire.between.connections == 3
    data = wire.pushed()
    assert len(data) == 62
    assert data.count(7) == 3


DAEMON = """
import sys, threading
from tidegate_client import Publisher

url, group = sys.argv[1:]
pub, enough = Publisher(url), threading.Event()

def push():
    for n in range(100_000):
        pub.push(group=group, data=n)
        print(n, flush=True)
        if n == 30:
            enough.set()

threading.Thread(target=push, daemon=True).start()
enough.wait()
"""


def test_what_a_daemon_thread_has_pushed_is_accepted_when_the_process_ends(wire: Wire) -> None:
    done = run_script(DAEMON, wire.url, wire.name)
    said = [int(line) for line in done.stdout.split()]
    assert len(said) > 30
    assert wire.pushed()[: len(said)] == said[:1000]


def test_one_async_publisher_serves_loop_after_loop(wire: Wire) -> None:
    pub = AsyncPublisher(wire.url)

    async def both(n: int) -> None:
        await asyncio.gather(pub.push(group=wire.name, data=n), pub.push(group=wire.name, data=n))

    for n in range(3):
        asyncio.run(both(n))
        gc.collect()  # a socket that nobody closed would say so now
    assert sorted(wire.pushed()) == [0, 0, 1, 1, 2, 2]
    assert 3 <= wire.between.connections <= 6


def test_one_async_publisher_serves_loops_at_once(wire: Wire) -> None:
    pub = AsyncPublisher(wire.url)

    async def some(n: int) -> None:
        for _ in range(10):
            await pub.push(group=wire.name, data=n)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: asyncio.run(some(n)), range(4)))
    assert sorted(wire.pushed()) == sorted(list(range(4)) * 10)


def test_threads_share_a_publisher(wire: Wire) -> None:
    with Publisher(wire.url) as pub, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: pub.push(group=wire.name, data=n), range(80)))
    assert sorted(wire.pushed()) == list(range(80))
