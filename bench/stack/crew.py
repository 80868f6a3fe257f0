"""Clients that know the protocol and are closed, moved and deployed under: one thread, plain sockets."""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.load import system
from bench.load.publisher import LoadError
from bench.load.storm import bound, make_tokens, request_of
from tidegate.core.model import Position, encode_cursor
from tidegate.tornado_seam import mask

PATH = "/ws-notifications/"
AT_ONCE = 50  # handshakes under way, when all enter
ENTER_S = 60.0
BACK_S = 0.5  # within which one who was closed comes back
CUT = 1006
_KEY = b"\x01\x02\x03\x04"


@dataclass
class Found:
    codes: Counter[int]
    moves: int
    longest_s: float
    lost: int
    repeated: int
    received: int
    turn_s: float  # the longest of the crew's own


@dataclass
class Line:
    """One connection of a client. ``is_new``: it has not had its welcome."""

    sock: socket.socket
    client: Client
    data: bytearray = field(default_factory=bytearray)
    is_up: bool = False  # its 101 has come
    is_new: bool = True
    code: int = CUT
    seen: dict[str, int] = field(default_factory=dict)  # by stream: the last offset that came here


@dataclass
class Client:
    number: int
    token: str
    positions: dict[str, Position] = field(default_factory=dict)
    line: Line | None = None
    next: Line | None = None  # while it moves


class Crew:
    """``count`` clients in groups of ``each``. ``moves``: they know what ``moving`` says."""

    def __init__(self, port: int, count: int, each: int, *, moves: bool) -> None:
        self._port = port
        self._each_in = count // each
        self._moves = moves
        tokens = make_tokens(system.TOKEN_KEY, count)
        self._clients = [Client(number, tokens[number]) for number in range(count)]
        self._lines: dict[int, Line] = {}
        self._poller = select.epoll()
        self._back: list[tuple[float, Client]] = []
        self._late_s = 0.0
        self._turn_s = 0.0
        self._counts = Counter[str]()
        self._codes = Counter[int]()

    def enter(self) -> None:
        """Raises LoadError."""
        waiting = list(self._clients)
        until_s = time.monotonic() + ENTER_S
        while any(not client.positions for client in self._clients):
            new = sum(line.is_new for line in self._lines.values())
            for client in waiting[: AT_ONCE - new]:
                client.line = self._dial(client)
            waiting = waiting[AT_ONCE - new :] if new < AT_ONCE else waiting
            self._turn()
            if time.monotonic() > until_s:
                raise LoadError("not all clients came in")

    def run(self, is_over: Callable[[], bool], most_s: float = 600) -> None:
        until_s = time.monotonic() + most_s
        while not is_over() and time.monotonic() < until_s:
            self._turn()

    def has_all(self, tops: Mapping[str, int]) -> bool:
        return not any(self._missing(client, tops) for client in self._clients)

    def found(self, tops: Mapping[str, int]) -> Found:
        lost = self._counts["lost"] + sum(self._missing(client, tops) for client in self._clients)
        counts = self._counts
        return Found(
            self._codes, counts["moves"], self._late_s, lost, counts["repeated"], counts["received"], self._turn_s
        )

    def _missing(self, client: Client, tops: Mapping[str, int]) -> int:
        return sum(max(tops.get(name, 0) - position.offset, 0) for name, position in client.positions.items())

    # Connections

    def _dial(self, client: Client) -> Line:
        query = f"groups=g{client.number % self._each_in}"
        if client.positions:
            query = f"cursor={encode_cursor(client.positions)}"
        sock = bound(client.number)
        sock.connect(("127.0.0.1", self._port))
        sock.sendall(request_of("127.0.0.1", self._port, f"{PATH}?{query}", client.token))
        sock.setblocking(False)
        line = Line(sock, client)
        self._lines[sock.fileno()] = line
        self._poller.register(sock, select.EPOLLIN)
        return line

    def _drop(self, line: Line) -> None:
        del self._lines[line.sock.fileno()]
        self._poller.unregister(line.sock)
        line.sock.close()

    def _turn(self) -> None:
        now_s = time.monotonic()
        due = [client for at_s, client in self._back if at_s <= now_s]
        self._back = [(at_s, client) for at_s, client in self._back if at_s > now_s]
        for client in due:
            client.line = self._dial(client)
        ready = self._poller.poll(0.02)
        began_s = time.monotonic()
        for fd, _ in ready:
            if line := self._lines.get(fd):
                self._read(line)
        self._turn_s = max(self._turn_s, time.monotonic() - began_s)

    def _read(self, line: Line) -> None:
        try:
            data = line.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        line.data += data
        if not line.is_up and (ends := line.data.find(b"\r\n\r\n")) >= 0:
            line.is_up = line.data.startswith(b"HTTP/1.1 101")
            del line.data[: ends + 4]
        if line.is_up:
            self._frames(line)
        if not data or (not line.is_up and line.data):
            self._ended(line)

    def _frames(self, line: Line) -> None:
        data = line.data
        at = 0
        while len(data) - at >= 2:
            size, begin = data[at + 1], at + 2
            if size == 126:
                size, begin = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, begin = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if len(data) < begin + size:
                break
            self._frame(line, data[at] & 15, bytes(data[begin : begin + size]))
            at = begin + size
        del data[:at]

    def _frame(self, line: Line, opcode: int, payload: bytes) -> None:
        match opcode:
            case 1:
                self._event(line, json.loads(payload))
            case 8:
                line.code = int.from_bytes(payload[:2], "big") or CUT
                self._say(line, 8, payload)
            case 9:
                self._say(line, 10, payload)

    def _say(self, line: Line, opcode: int, payload: bytes) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is heard by reading
            line.sock.send(bytes((0x80 | opcode, 0x80 | len(payload))) + _KEY + mask(_KEY, payload))

    # What is said

    def _event(self, line: Line, event: dict[str, Any]) -> None:
        client = line.client
        match event["type"]:
            case "welcome":
                self._welcome(line, event)
            case "message":
                self._message(line, event)
            case "moving" if self._moves and client.next is None and line is client.line:
                client.next = self._dial(client)
            case "gap" | "reset":
                self._counts["lost"] += 1

    def _welcome(self, line: Line, event: dict[str, Any]) -> None:
        client = line.client
        line.is_new = False
        if not client.positions:
            streams = event["streams"].items()
            client.positions = {name: Position(at["epoch"], at["offset"]) for name, at in streams}
        if line is client.next:
            self._counts["moves"] += 1
            old, client.line, client.next = client.line, line, None
            if old is not None:
                self._say(old, 8, (1000).to_bytes(2, "big"))
                self._drop(old)

    def _message(self, line: Line, event: dict[str, Any]) -> None:
        """A new connection brings once more what came on the old one since the cursor: that is no repetition."""
        client = line.client
        position = client.positions[event["stream"]]
        offset = event["offset"]
        if offset <= position.offset:
            self._counts["repeated" if offset <= line.seen.get(event["stream"], 0) else "passed over"] += 1
            return
        self._counts["lost"] += offset - position.offset - 1
        self._counts["received"] += 1
        client.positions[event["stream"]] = Position(event["epoch"], offset)
        line.seen[event["stream"]] = offset
        self._late_s = max(self._late_s, time.monotonic() - event["data"]["at"])

    def _ended(self, line: Line) -> None:
        """A handshake that is refused is tried again, and counts as no close."""
        client = line.client
        self._drop(line)
        if line is client.next:
            client.next = None
            return
        if line is not client.line:
            return
        if not line.is_new:
            self._codes[line.code] += 1
        client.line = None
        if client.next is not None:
            client.line, client.next = client.next, None
        else:
            self._back.append((time.monotonic() + random.uniform(0, BACK_S), client))
