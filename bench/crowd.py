"""Many WebSockets of the load client, read and checked by ``crowd.c``: where messages are many and cheap, a client in
Python would cost as much as the server that is measured."""

from __future__ import annotations

import ctypes
import socket

from bench.publisher import LoadError
from bench.storm import WAIT_S
from bench.systems import built


class Crowd:
    """One per process. Sockets have had their handshake, and nothing since."""

    def __init__(self) -> None:
        library = ctypes.CDLL(str(built("crowd.c")))
        for name in ("crowd_next", "crowd_received", "crowd_wrong", "crowd_closed", "crowd_last_bytes"):
            getattr(library, name).restype = ctypes.c_long
        library.crowd_first_wrong.restype = ctypes.c_char_p
        library.crowd_collect.argtypes = [ctypes.c_long, ctypes.c_int]
        library.crowd_echo.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
        self._library = library
        self._target = 0
        self.socks: list[socket.socket] = []

    def add(self, sock: socket.socket) -> None:
        if self._library.crowd_add(sock.fileno()):
            raise LoadError("too many clients")
        self.socks.append(sock)

    @property
    def next(self) -> int:
        """The offset of the next message, which all must have."""
        offsets = {self._library.crowd_next(sock.fileno()) for sock in self.socks}
        if len(offsets) != 1:
            raise LoadError(f"clients do not have the same messages: the next are {sorted(offsets)[:5]}")
        offset: int = offsets.pop()
        return offset

    @property
    def message_bytes(self) -> int:
        size: int = self._library.crowd_last_bytes()
        return size

    def collect(self, count: int) -> None:
        """Returns when so many more messages have come. Raises LoadError."""
        self._target += count
        self._library.crowd_collect(self._target, int(WAIT_S * 1000))
        missing = self._target - self._library.crowd_received()
        if missing > 0:
            raise LoadError(f"{missing} of {count} messages were lost")

    def echo(self, clients: int, times: int) -> None:
        """Each of the first ``clients`` asks so many times, the next when it has its answer. Raises LoadError."""
        fds = (ctypes.c_int * clients)(*(sock.fileno() for sock in self.socks[:clients]))
        self._target += clients * times
        self._library.crowd_echo(fds, clients, times, int(WAIT_S * 1000))

    def idle(self) -> None:
        """Answers pings."""
        if self.socks:
            self._library.crowd_collect(0, 0)

    def check(self) -> None:
        """Raises LoadError if anything was wrong so far."""
        library = self._library
        self.idle()
        if library.crowd_wrong():
            first = library.crowd_first_wrong().decode(errors="replace")
            raise LoadError(f"{library.crowd_wrong()} messages were wrong; the first: {first}")
        if library.crowd_received() != self._target:
            raise LoadError(f"{library.crowd_received()} messages came, not {self._target}")
        if library.crowd_closed():
            raise LoadError(f"{library.crowd_closed()} connections were closed")
