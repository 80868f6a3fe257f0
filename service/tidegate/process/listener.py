"""Accepts connections on a port, as long as there is something to accept them with.

Where a connection cannot be accepted, for want of open files (EMFILE, ENFILE) or memory (ENOMEM, ENOBUFS), it stays in
the kernel's queue, and the socket stays readable: who asks again at once takes a whole core and gets nothing. So the
port pauses, says so in one line, and looks again. A port that must answer all the same (health, the API) has *spares*:
files that are open for nothing but to be closed when one is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from tidegate import log
from tidegate.process import open_files

ACCEPTS = 128  # in one turn of the loop
CROWD = 16  # of them: who is behind so many may have given up
PAUSE_S = 0.25
CROWDED_S = 0.05  # a pause until somebody has left
REFILL_S = 1.0
LINE_S = 60.0  # between two lines about the same port

_CLOSED = getattr(select, "POLLRDHUP", select.POLLHUP)  # what is not Linux tells later
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
# The connection has gone, or was never to be: accept(2) brings what is pending on it.
_OF_ONE = (
    errno.ECONNABORTED,
    errno.EPERM,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
)


def has_gone(sock: socket.socket) -> bool:
    """Whether the peer has closed. Where thousands wait, an edge gives up those that have waited too long, and asks
    anew: to answer them all the same would make the others wait too long as well, and so on."""
    poller = select.poll()
    poller.register(sock, _CLOSED)
    return bool(poller.poll(0))


class Listener:
    """The sockets of one port. ``name`` is its key in the configuration; ``has_room``: whether one more connection may
    be open; ``spares``: how many files it keeps for the time when there are none; ``unsent_bytes``: how much the kernel
    may hold that it cannot send yet, of each connection (0: as much as it likes)."""

    def __init__(self, name: str, *, has_room: Callable[[], bool], spares: int = 0, unsent_bytes: int = 0) -> None:
        self._name = name
        self._has_room = has_room
        self._unsent_bytes = unsent_bytes
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[socket.socket, Callable[[socket.socket, Any], None]] = {}
        self._paused: asyncio.TimerHandle | None = None
        self._pauses = 0  # since the last line
        self._crowded = False  # there was no room at the last look either
        self._line = log.Seldom(LINE_S)
        self._wanted_spares = spares
        self._spares: list[int] = []
        self._refilling: asyncio.TimerHandle | None = None
        self._refill()

    def add(self, sock: socket.socket, on_connection: Callable[[socket.socket, Any], None]) -> Callable[[], None]:
        """Calls ``on_connection`` with each connection and its address. What comes back ends that; the socket is the
        caller's."""
        if self._unsent_bytes:
            on_connection = self._bound(sock, on_connection)
        self._sockets[sock] = on_connection
        if self._paused is None:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

        def remove() -> None:
            self._loop.remove_reader(sock.fileno())
            del self._sockets[sock]
            if not self._sockets:
                self._end()

        return remove

    def _bound(
        self, sock: socket.socket, on_connection: Callable[[socket.socket, Any], None]
    ) -> Callable[[socket.socket, Any], None]:
        """What the kernel holds for a slow peer nobody sees, and all later words wait behind it, pings too."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):  # connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self._unsent_bytes)
            return on_connection

        def bound(connection: socket.socket, address: Any) -> None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._unsent_bytes)
            on_connection(connection, address)

        return bound

    def _end(self) -> None:
        for timer in (self._paused, self._refilling):
            if timer is not None:
                timer.cancel()
        while self._spares:
            os.close(self._spares.pop())

    def _accept(self, sock: socket.socket) -> None:
        for number in range(ACCEPTS):
            if sock not in self._sockets:
                return  # a connection was the last straw
            if not self._has_room():
                self._pause(CROWDED_S, "all connections that may be open are" if self._crowded else "")
                self._crowded = True
                return
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _OF_ONE:
                    continue
                if exc.errno in _OUT_OF_FILES and self._spares:
                    self._spend()
                    continue
                self._pause(PAUSE_S, f"{type(exc).__name__}: {exc}")
                return
            self._crowded = False
            if number >= CROWD and has_gone(connection):
                connection.close()
                continue
            self._sockets[sock](connection, address)

    def _pause(self, pause_s: float, error: str) -> None:
        """``error``: for the log; empty, and it is not worth a line yet."""
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
        self._paused = self._loop.call_later(pause_s, self._resume)
        self._pauses += 1
        if not error or not self._line.is_due(time.monotonic()):
            return
        log.warning(
            "accept.paused",
            listener=self._name,
            error=error,
            times=self._pauses,
            open_files=open_files.count(),
            open_files_limit=open_files.limit(),
        )
        self._pauses = 0

    def _resume(self) -> None:
        self._paused = None
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    # Spares

    def _spend(self) -> None:
        os.close(self._spares.pop())
        if self._refilling is None:
            self._refilling = self._loop.call_later(REFILL_S, self._refill)

    def _refill(self) -> None:
        self._refilling = None
        with contextlib.suppress(OSError):  # there is still none to be had
            while len(self._spares) < self._wanted_spares:
                self._spares.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if len(self._spares) < self._wanted_spares:
            self._refilling = self._loop.call_later(REFILL_S, self._refill)
