"""Many WebSockets of the load client, read and checked by ``crowd.c``: where messages are many and cheap, a client in
Python would cost as much as the server that is measured."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence

from bench.load.publisher import LoadError
from bench.load.storm import ACCEPT, WAIT_S
from bench.load.system import built

QUESTIONS = ("heartbeat", "ping", "call")  # in the order of crowd.c


class Crowd:
    """One per process. Sockets that are added have had their handshake, and nothing since; others are dialled."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        """``wait_s``: when nothing comes for so long, what is missing was lost."""
        self._wait_ms = int(wait_s * 1000)
        library = ctypes.CDLL(str(built("load/crowd.c")))
        for name in ("next", "received", "wrong", "closed", "last_bytes", "refused", "resets"):
            getattr(library, f"crowd_{name}").restype = ctypes.c_long
        library.crowd_first_wrong.restype = ctypes.c_char_p
        library.crowd_collect.argtypes = [ctypes.c_long, ctypes.c_int]
        library.crowd_echo.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
        for name in ("crowd_dial", "crowd_ask", "crowd_push"):
            getattr(library, name).restype = ctypes.c_long
        for name in ("crowd_begun_ns", "crowd_welcomed_ns", "crowd_complete_ns"):
            getattr(library, name).restype = ctypes.c_int64
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
        self._library.crowd_collect(self._target, self._wait_ms)
        missing = self._target - self._library.crowd_received()
        if missing > 0:
            raise LoadError(f"{missing} of {count} messages were lost")

    def echo(self, clients: int, times: int) -> None:
        """Each of the first ``clients`` asks so many times, the next when it has its answer. Raises LoadError."""
        fds = (ctypes.c_int * clients)(*(sock.fileno() for sock in self.socks[:clients]))
        self._target += clients * times
        self._library.crowd_echo(fds, clients, times, self._wait_ms)

    def dial(
        self,
        socks: Sequence[socket.socket],
        requests: Sequence[bytes],
        port: int,
        *,
        after: Sequence[int],
        until: Sequence[int],
        at_once: int,
        patient: bool = False,
    ) -> list[float]:
        """Each connects to ``port``, ``at_once`` under way, and is complete when it has its welcome and every message
        ``after`` an offset and up to ``until`` another. ``patient``: who is refused with a Retry-After, or cut off
        before it is in, comes again. The time of each, from its own beginning, in ms. Raises LoadError."""
        count = len(socks)
        fds = _ints([sock.fileno() for sock in socks])
        texts = (ctypes.c_char_p * count)(*requests)
        first, goals = _longs([each + 1 for each in after]), _longs([each + 1 for each in until])
        self.socks += socks
        complete = self._library.crowd_dial(
            fds, texts, _long(count), first, goals, _long(at_once), port, ACCEPT, int(patient), self._wait_ms
        )
        if complete != count:
            self._complain()
            raise LoadError(f"{count - complete} of {count} clients did not come in, or not all that they had missed")
        self._target += sum(until) - sum(after)
        return [(self.completed_ns(sock) - self.begun_ns(sock)) / 1e6 for sock in socks]

    def begun_ns(self, sock: socket.socket) -> int:
        """When it was dialled; of the monotonic clock."""
        return int(self._library.crowd_begun_ns(sock.fileno()))

    def welcomed_ns(self, sock: socket.socket) -> int:
        return int(self._library.crowd_welcomed_ns(sock.fileno()))

    def refused(self) -> dict[int, int]:
        """How often handshakes of the last ``dial`` were refused, by status; 0: cut off without an answer."""
        counts = {status: int(self._library.crowd_refused(status)) for status in (0, *range(400, 600))}
        return {status: count for status, count in counts.items() if count}

    def completed_ns(self, sock: socket.socket) -> int:
        return int(self._library.crowd_complete_ns(sock.fileno()))

    def after(self, sock: socket.socket) -> int:
        """The offset that it had last."""
        return int(self._library.crowd_next(sock.fileno())) - 1

    def code(self, sock: socket.socket) -> int:
        """The code with which it was closed; 1006: without a close frame; 0: it is open."""
        return int(self._library.crowd_code(sock.fileno()))

    def take_resets(self) -> None:
        """From now on a gap with the reason ``reset`` is not wrong, but counted."""
        self._library.crowd_take_resets()

    @property
    def resets(self) -> int:
        return int(self._library.crowd_resets())

    def drop(self, socks: Sequence[socket.socket]) -> None:
        """They are cut, without a close frame."""
        gone = {sock.fileno() for sock in socks}
        self.socks = [sock for sock in self.socks if sock.fileno() not in gone]
        for sock in socks:
            self._library.crowd_drop(sock.fileno())
            sock.close()

    def mute(self, socks: Sequence[socket.socket], *, muted: bool) -> None:
        """They stop reading, or go on."""
        for sock in socks:
            self._library.crowd_mute(sock.fileno(), muted)

    def listen(self, seconds: float) -> None:
        """Reads what comes within this time; ``count_in`` has to be told how much that should be."""
        self._library.crowd_listen(int(seconds * 1000))

    def count_in(self, messages: int) -> None:
        """So many came that no order waited for."""
        self._target += messages

    @property
    def received(self) -> int:
        return int(self._library.crowd_received())

    def ask(
        self, socks: Sequence[socket.socket], kind: str, total: int, in_flight: int, size: int = 0
    ) -> Sequence[int]:
        """How long each of ``total`` questions took, in ns; they go to ``socks`` in turn, ``in_flight`` under way in
        all. ``kind``: one of QUESTIONS; ``size``: bytes of a call's data. Raises LoadError."""
        fds = _ints([sock.fileno() for sock in socks])
        sent, took = _times(total), _times(total)
        answered = self._library.crowd_ask(
            fds,
            _long(len(socks)),
            _long(total),
            _long(in_flight),
            QUESTIONS.index(kind),
            size,
            sent,
            took,
            self._wait_ms,
        )
        self._target += total
        if answered != total:
            self._complain()
            raise LoadError(f"{total - answered} of {total} {kind}s were not answered")
        return list(took)

    def push(
        self,
        publisher: socket.socket,
        requests: Sequence[bytes],
        socks: Sequence[socket.socket],
        *,
        every_s: float = 0.0,
        in_turn: bool = False,
        batch: int = 1,
        heard: bool = True,
    ) -> Sequence[int]:
        """How long each delivery took, in ns: since the push was due, ``every_s`` after the one before, or, without
        that, since it was sent, which is when all of the one before has arrived. Each of ``requests`` has ``batch``
        messages for all ``socks``, or, ``in_turn``, for one after the other. Not ``heard``: nobody waits for
        deliveries. Raises LoadError."""
        members, turns = len(socks), len(socks) if in_turn else 1
        audience = (batch if in_turn else batch * members) if heard else 0
        total = len(requests) * audience
        firsts = {self.after(sock) + 1 for sock in socks}
        if len(firsts) != 1:
            raise LoadError(f"clients do not have the same messages: the next are {sorted(firsts)[:5]}")
        fds = _ints([sock.fileno() for sock in socks])
        due, took = _times(len(requests)), _times(total)
        delivered = self._library.crowd_push(
            publisher.fileno(),
            (ctypes.c_char_p * len(requests))(*requests),
            _long(len(requests)),
            ctypes.c_int64(int(every_s * 1e9)),
            fds,
            _long(members),
            _long(turns),
            _long(batch),
            _long(audience),
            _long(firsts.pop()),
            due,
            took,
            self._wait_ms,
        )
        self._target += total
        if delivered != total:
            self._complain()
            raise LoadError("a push was not accepted" if delivered < 0 else f"{total - delivered} of {total} were lost")
        return list(took)

    def idle(self) -> None:
        """Answers pings."""
        if self.socks:
            self._library.crowd_collect(0, 0)

    def check(self) -> None:
        """Raises LoadError if anything was wrong so far."""
        library = self._library
        self.idle()
        self._complain()
        if library.crowd_received() != self._target:
            raise LoadError(f"{library.crowd_received()} messages came, not {self._target}")
        if library.crowd_closed():
            raise LoadError(f"{library.crowd_closed()} connections were closed")

    def _complain(self) -> None:
        library = self._library
        if library.crowd_wrong():
            first = " ".join(library.crowd_first_wrong().decode(errors="replace").split())
            raise LoadError(f"{library.crowd_wrong()} messages were wrong; the first: {first}")


def _ints(values: Sequence[int]) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * len(values))(*values)


def _longs(values: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * len(values))(*values)


def _times(count: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * count)()


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)
