from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Logs, eventually
from tidegate.process.listener import Listener, has_gone


class Troubled(socket.socket):
    """A listening socket; the next ``failures`` attempts to accept fail, with ``error``. ``attempts`` counts all."""

    def __init__(self, error: int, failures: int) -> None:
        super().__init__()
        self.error, self.failures, self.attempts = error, failures, 0
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self) -> tuple[socket.socket, Any]:
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise OSError(self.error, os.strerror(self.error))
        return super().accept()


class Stand:
    """A listener on such a socket, and what it accepted."""

    def __init__(self, error: int = 0, failures: int = 0, **options: Any) -> None:
        self.sock = Troubled(error, failures)
        self.accepted: list[socket.socket] = []
        self.room = True
        self.listener = Listener("server.port", has_room=lambda: self.room, **options)
        self.remove = self.listener.add(self.sock, lambda connection, address: self.accepted.append(connection))

    async def come(self) -> None:
        _, writer = await asyncio.open_connection(*self.sock.getsockname())
        writer.close()

    def close(self) -> None:
        self.remove()
        for sock in (self.sock, *self.accepted):
            sock.close()


@pytest.fixture
def stands() -> Iterator[list[Stand]]:
    made: list[Stand] = []
    yield made
    for stand in made:
        stand.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EIO])
async def test_what_cannot_be_accepted_waits_for_a_pause_and_is_told_in_one_line(
    error: int, stands: list[Stand], expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs.expect("accept.paused")
    monkeypatch.setattr("tidegate.process.listener.PAUSE_S", 0.05)
    stands.append(stand := Stand(error, failures=2))
    await stand.come()
    await eventually(lambda: stand.accepted)
    assert stand.sock.attempts <= 4  # two that failed, one that did not, and one that found nobody
    assert len(expected_logs.seen("accept.paused")) == 1


async def test_spares_are_spent_where_files_are_wanting_and_come_back(
    stands: list[Stand], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.process.listener.REFILL_S", 0.05)
    stands.append(stand := Stand(errno.EMFILE, failures=2, spares=3))
    await stand.come()
    await eventually(lambda: stand.accepted)
    await eventually(lambda: len(stand.listener._spares) == 3)


async def test_a_connection_that_is_gone_before_it_is_accepted_stops_nobody(stands: list[Stand]) -> None:
    stands.append(stand := Stand(errno.ECONNABORTED, failures=2))
    await stand.come()
    await eventually(lambda: stand.accepted)
    assert stand.sock.attempts <= 4


async def test_without_room_it_waits_until_there_is_some(stands: list[Stand], expected_logs: Logs) -> None:
    expected_logs.expect("accept.paused")
    stands.append(stand := Stand())
    stand.room = False
    await stand.come()
    await eventually(lambda: expected_logs.seen("accept.paused"))
    assert not stand.sock.attempts
    stand.room = True
    await eventually(lambda: stand.accepted)


async def test_who_is_stopped_in_a_pause_stays_stopped(stands: list[Stand], expected_logs: Logs) -> None:
    expected_logs.expect("accept.paused")
    stands.append(stand := Stand(errno.EMFILE, failures=1))
    await stand.come()
    await eventually(lambda: expected_logs.seen("accept.paused"))
    stand.remove()
    stands.append(other := Stand(errno.EMFILE, failures=1))
    await other.come()
    await eventually(lambda: other.accepted)  # as long as a pause
    assert stand.sock.attempts == 1
    stand.remove = lambda: None


async def test_what_the_kernel_may_hold_unsent_is_bounded_on_tcp_and_on_unix_sockets(
    stands: list[Stand], tmp_path: Path
) -> None:
    stands.append(stand := Stand(unsent_bytes=100_000))
    await stand.come()
    (connection,) = await eventually(lambda: stand.accepted)
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 100_000
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        listening.setblocking(False)
        accepted: list[socket.socket] = []
        remove = stand.listener.add(listening, lambda connection, address: accepted.append(connection))
        _, writer = await asyncio.open_unix_connection(path)
        (connection,) = await eventually(lambda: accepted)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 200_000  # the kernel doubles it
        remove()
        writer.close()
        connection.close()


async def test_of_a_crowd_those_who_have_gone_cost_nothing(stands: list[Stand]) -> None:
    """They had waited so long that an edge gave them up. To answer them would make the next ones wait as long."""
    stands.append(stand := Stand())
    stand.sock.listen(100)
    comers = [socket.create_connection(stand.sock.getsockname()) for _ in range(60)]
    for number, comer in enumerate(comers):
        comer.send(b"GET / HTTP/1.1\r\n")
        if number % 2:
            comer.close()
    await eventually(lambda: stand.sock.attempts > 60)
    gone = sum(connection.recv(100, socket.MSG_PEEK) != b"" and has_gone(connection) for connection in stand.accepted)
    assert gone <= 8  # the first few are not looked at
    assert len(stand.accepted) - gone == 30
    for comer in comers:
        comer.close()
