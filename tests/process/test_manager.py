"""What systemd hears of a node: tests/deploy/test_systemd.py has the units that ask for it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Process, eventually, free_ports
from tidegate.process.manager import Manager


class Systemd:
    """Listens where a service manager would; ``heard`` is all that was said so far."""

    def __init__(self, address: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address)
        self._sock.setblocking(False)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        while True:
            try:
                self._heard.append(self._sock.recv(1000).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._sock.close()


async def yes() -> bool:
    return True


def ready(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
        return bool(answer.status == 200)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(str(tmp_path / "notify"))
    yield manager
    manager.close()


async def test_a_node_says_that_it_is_ready_that_it_lives_and_that_it_stops(
    systemd: Systemd, tmp_path: Path, start_process: Callable[..., Process]
) -> None:
    public, internal = free_ports(2)
    node = start_process(
        sys.executable,
        "-m",
        "tidegate",
        "serve",
        env={
            "TIDEGATE_SERVER__PORT": str(public),
            "TIDEGATE_INTERNAL__PORT": str(internal),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "300000",
        },
    )
    await eventually(systemd.heard, 15)
    assert await asyncio.to_thread(ready, internal)
    await eventually(lambda: systemd.heard().count("WATCHDOG=1") > 2)
    assert await node.stop() == 0
    heard = systemd.heard()
    assert heard[0] == "READY=1"
    assert [text for text in heard if text != "WATCHDOG=1"] == ["READY=1", "STOPPING=1"]


async def test_it_is_not_ready_before_it_is(systemd: Systemd, tmp_path: Path) -> None:
    looks = 0

    async def third() -> bool:
        nonlocal looks
        assert systemd.heard() == []
        looks += 1
        return looks == 3

    await Manager({"NOTIFY_SOCKET": str(tmp_path / "notify")}).follow(third)  # without a watchdog it has said all then
    assert systemd.heard() == ["READY=1"]


async def test_an_abstract_address_and_the_watchdog_of_another_process() -> None:
    systemd = Systemd(f"\0tidegate-test-{os.getpid()}")
    environ = {"NOTIFY_SOCKET": f"@tidegate-test-{os.getpid()}", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    await Manager(environ).follow(yes)
    assert systemd.heard() == ["READY=1"]
    systemd.close()


async def test_where_nobody_listens_nobody_is_told(tmp_path: Path) -> None:
    await Manager({}).follow(yes)
    gone = Manager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    await gone.follow(yes)
    gone.stopping()
