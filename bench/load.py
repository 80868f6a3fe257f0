"""The load client: a process of its own, which reads orders as JSON lines and answers each with one.

It makes the load, checks every message, and reads the CPU clock of the server and its own around the load alone. All
that it receives is counted per connection: each offset of the group once and in order, each echo for its request.
``Loader`` (loader.py) is its handle. Orders are the methods of ``Load`` that have no underscore.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import picows
import uvloop

from bench.processes import cpu_s
from bench.publisher import Http, LoadError, Publisher, post
from bench.storm import AT_ONCE, WAIT_S, make_tokens, request_of, shake_hands, socket_factory, split

QUIET_S = 3.0
LINE_BYTES = 1 << 20
ID_BYTES = 64
ID_AT = len('{"type":"ping","id":"')  # as long in an answer: "pong"

_OFFSET = b'"offset":'
_OF_CLIENT = b'{"type":"message","stream":"client:'
_WELCOME = b'{"type":"welcome"'


def offset_of(payload: bytes) -> int:
    """The offset in a message; 0 where there is none."""
    at = payload.find(_OFFSET) + len(_OFFSET)
    end = payload.find(b",", at)
    number = payload[at:end]
    return int(number) if number.isdigit() else 0


class Crowd:
    """What all clients share: ``received`` of the messages that are awaited, and what was wrong."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.received = 0
        self.target = 0
        self.wrong = 0
        self.first_wrong = ""
        self.welcomed = 0
        self.closed = 0
        self.payload_bytes = 0  # of the last message to the group
        self.offsets: dict[bytes, int] = {}  # of messages to the group, which are the same for all
        self.waiter: asyncio.Future[None] | None = None
        self.echoing = False
        self.pings: list[tuple[bytes, bytes]] = []  # id and text of each request, the same for all

    def more(self, count: int) -> None:
        """So many more will come."""
        self.target += count
        self.waiter = asyncio.get_running_loop().create_future()
        if self.received >= self.target:  # there was too much before
            self.finish()

    def finish(self) -> None:
        """As many came as were awaited, or more."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def all_arrived(self) -> None:
        """Raises LoadError."""
        assert self.waiter is not None
        while not self.waiter.done():
            before = self.received
            await asyncio.wait([self.waiter], timeout=WAIT_S)
            if not self.waiter.done() and self.received == before:
                raise LoadError(f"{self.target - self.received} of {self.target} messages were lost")

    def check(self) -> None:
        """Raises LoadError if anything was wrong so far."""
        if self.wrong:
            raise LoadError(f"{self.wrong} messages were wrong; the first: {self.first_wrong}")
        if self.received != self.target:
            raise LoadError(f"{self.received} messages came, not {self.target}")
        if self.closed:
            raise LoadError(f"{self.closed} connections were closed")

    def count_wrong(self, what: str) -> None:
        self.wrong += 1
        self.first_wrong = self.first_wrong or what


class Client(picows.WSListener):
    """One connection. ``next`` is the offset that must come next of the group, ``next_own`` of its own stream."""

    __slots__ = ("crowd", "next", "next_own", "pings_left", "transport", "turn")

    def __init__(self, crowd: Crowd) -> None:
        super().__init__()
        self.crowd = crowd
        self.next = self.next_own = 1
        self.turn = 0
        self.pings_left = 0

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: Any) -> None:
        self.crowd.closed += 1

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        payload = frame.get_payload_as_bytes()
        crowd = self.crowd
        if crowd.echoing:
            self._on_echo(crowd, payload)
            return
        offset = crowd.offsets.get(payload)
        if offset is None:
            if frame.msg_type is not picows.WSMsgType.TEXT:
                if frame.msg_type is picows.WSMsgType.CLOSE:
                    crowd.count_wrong(f"closed with {frame.get_close_code()}")
                return
            if payload.startswith(_WELCOME):
                crowd.welcomed += 1
                self._on_welcome(payload)
                return
            if payload.startswith(_OF_CLIENT):
                if offset_of(payload) != self.next_own:
                    crowd.count_wrong(f"{payload[:80]!r} instead of offset {self.next_own}")
                self.next_own += 1
                self._count(crowd)
                return
            offset = crowd.offsets[payload] = offset_of(payload)
            crowd.payload_bytes = len(payload)
        if offset != self.next:
            crowd.count_wrong(f"offset {offset} instead of {self.next}")
        self.next = offset + 1
        crowd.received += 1
        if crowd.received >= crowd.target:
            crowd.finish()

    def _count(self, crowd: Crowd) -> None:
        crowd.received += 1
        if crowd.received >= crowd.target:
            crowd.finish()

    def _on_welcome(self, payload: bytes) -> None:
        for stream, position in json.loads(payload)["streams"].items():
            if stream.startswith("group:"):
                self.next = position["offset"] + 1
            elif stream.startswith("client:"):
                self.next_own = position["offset"] + 1

    def _on_echo(self, crowd: Crowd, payload: bytes) -> None:
        id, _ = crowd.pings[self.turn]
        if payload[ID_AT : ID_AT + ID_BYTES] != id:
            crowd.count_wrong(f"{payload[:80]!r} instead of an echo")
        self.turn += 1
        self.pings_left -= 1
        if self.pings_left > 0:
            self.transport.send(picows.WSMsgType.TEXT, crowd.pings[self.turn][1])
        self._count(crowd)


class Window:
    """The CPU time of server and client, and the time, from its making to ``close``. It begins when the server has done
    what it had to do before."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        _quiet(pids)
        self._began = (cpu_s(pids), time.process_time(), time.monotonic())

    def close(self) -> dict[str, float]:
        server_s, client_s, wall_s = (
            now - then
            for now, then in zip((cpu_s(self._pids), time.process_time(), time.monotonic()), self._began, strict=True)
        )
        return {"server_cpu_s": server_s, "client_cpu_s": client_s, "wall_s": wall_s}


def _quiet(pids: list[int]) -> None:
    """Returns when the server does next to nothing, or has not come to rest."""
    deadline_s = time.monotonic() + QUIET_S
    before = cpu_s(pids)
    while pids and time.monotonic() < deadline_s:
        time.sleep(0.05)
        now = cpu_s(pids)
        if now - before < 0.001 * len(pids):
            return
        before = now


class Load:
    """The orders. Each gives its answer as a dict, or raises LoadError."""

    def __init__(self) -> None:
        self._crowd = Crowd()
        self._publisher: Publisher | None = None
        self._https: list[Http] = []

    # Connections

    async def connect(self, urls: list[str], count: int, token_key: str | None, welcome: bool) -> dict[str, Any]:
        """``count`` clients, who connect to ``urls`` in turn and stay. ``welcome``: each is told so."""
        crowd = self._crowd
        numbers = itertools.count(len(crowd.clients))
        last = len(crowd.clients) + count
        tokens = make_tokens(token_key, last)

        async def some() -> None:
            while (number := next(numbers)) < last:
                headers = {"Authorization": f"Bearer {tokens[number]}"} if tokens else None
                client = Client(crowd)
                await picows.ws_connect(
                    lambda client=client: client,
                    urls[number % len(urls)],
                    extra_headers=headers,
                    read_buffer_init_size=1024,
                    websocket_handshake_timeout=WAIT_S,
                    socket_factory=socket_factory(number),
                )
                crowd.clients.append(client)

        window = Window([])
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        await self._wait(lambda: not welcome or crowd.welcomed == len(crowd.clients), "a welcome")
        return window.close()

    async def close(self) -> dict[str, Any]:
        for client in self._crowd.clients:
            client.transport.disconnect()
        self._crowd.clients.clear()
        return {}

    async def handshakes(
        self, url: str, count: int, token_key: str | None, fresh: bool, welcome: bool, pids: list[int]
    ) -> dict[str, Any]:
        """``count`` clients connect, ``AT_ONCE`` at a time, and are closed when the last is there. ``fresh``: with
        tokens that the server has not seen."""
        host, port, path = split(url)
        tokens = make_tokens(token_key, count, time.time_ns() if fresh else 0)
        requests = [request_of(host, port, path, tokens[number] if tokens else None) for number in range(count)]
        window = Window(pids)
        socks = shake_hands((host, port), requests, _WELCOME if welcome else b"")
        answer = window.close()
        for sock in socks:
            sock.close()
        return answer

    # What is measured

    async def fan_out(self, publish: dict[str, Any], messages: int, batch: int, pids: list[int]) -> dict[str, Any]:
        """``messages`` to all, ``batch`` of them at a time, and the next when all have arrived."""
        crowd = self._crowd
        if self._publisher is None:
            self._publisher = Publisher(publish)
            await self._publisher.open()
        publisher = self._publisher
        crowd.echoing = False
        first = crowd.clients[0].next
        window = Window(pids)
        for offset in range(first, first + messages, batch):
            crowd.offsets.clear()
            crowd.more(batch * len(crowd.clients))
            await publisher.publish(offset, batch)
            await crowd.all_arrived()
        answer = window.close()
        await self._rest()
        wrong = [client.next for client in crowd.clients if client.next != first + messages]
        if wrong:
            raise LoadError(f"{len(wrong)} clients do not have all messages")
        return {**answer, "deliveries": messages * len(crowd.clients), "payload_bytes": crowd.payload_bytes}

    async def echo(self, count: int, connections: int, pids: list[int]) -> dict[str, Any]:
        """``count`` round trips over ``connections``, each of which has one under way."""
        crowd = self._crowd
        clients = crowd.clients[:connections]
        each = count // len(clients)
        if len(crowd.pings) < each + 1:
            ids = [b"%064d" % number for number in range(each + 1)]
            crowd.pings = [(id, b'{"type":"ping","id":"%b"}' % id) for id in ids]
        crowd.offsets.clear()
        crowd.echoing = True
        window = Window(pids)
        crowd.more(each * len(clients))
        for client in clients:
            client.turn, client.pings_left = 0, each
            client.transport.send(picows.WSMsgType.TEXT, crowd.pings[0][1])
        await crowd.all_arrived()
        answer = window.close()
        await self._rest()
        crowd.echoing = False
        return {**answer, "round_trips": each * len(clients)}

    async def posts(
        self, port: int, kind: str, count: int, parallel: int, batch: int, pids: list[int]
    ) -> dict[str, Any]:
        """``count`` pushes over ``parallel`` kept connections. ``kind``: ``empty`` (a POST of as much JSON to a server
        that does nothing), ``each`` (to one client after the other), ``one`` (to one and the same)."""
        crowd = self._crowd
        while len(self._https) < parallel:
            self._https.append(await Http.open(port))
        names = itertools.cycle(range(len(crowd.clients) or 1))
        chosen = [0] * count if kind == "one" else [next(names) for _ in range(count)]
        data = b'"%b"' % (b"x" * 10)
        requests = iter(_pushes(kind, chosen, data, batch))
        if kind != "empty":
            crowd.more(count)

        async def some(http: Http) -> None:
            for request in requests:
                status, body = await http.send(request)
                if status not in (200, 202) or b'"error"' in body:
                    raise LoadError(f"push: HTTP {status} {body[:200]!r}")

        window = Window(pids)
        await asyncio.gather(*(some(http) for http in self._https[:parallel]))
        if kind != "empty":
            await crowd.all_arrived()
        answer = window.close()
        await self._rest()
        return {**answer, "pushes": count}

    async def idle(self, seconds: float, pids: list[int]) -> dict[str, Any]:
        """All stay connected and answer pings."""
        window = Window(pids)
        await asyncio.sleep(seconds)
        answer = window.close()
        self._crowd.check()
        return answer

    async def settle(self, pids: list[int]) -> dict[str, Any]:
        """Until the server is at rest."""
        await asyncio.sleep(0.2)
        _quiet(pids)
        return {}

    async def _rest(self) -> None:
        """What should not come has time to, then all is checked."""
        await asyncio.sleep(0.05)
        self._crowd.check()

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline_s:
                raise LoadError(f"not all clients got {what}")
            await asyncio.sleep(0.01)


def _pushes(kind: str, chosen: list[int], data: bytes, batch: int) -> Iterator[bytes]:
    """The requests, made before the load begins."""
    if kind == "empty":
        return iter([post("/post", b'{"data":%b}' % data)] * len(chosen))
    if batch == 1:
        return iter([post(f"/api/clients/c{number}/push", b'{"data":%b}' % data) for number in chosen])
    items = [b'{"client":"c%d","data":%b}' % (number, data) for number in chosen]
    bodies = [b'{"pushes":[%b]}' % b",".join(items[at : at + batch]) for at in range(0, len(items), batch)]
    return iter([post("/api/push", body) for body in bodies])


async def _obey() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = Load()
    while line := await reader.readline():
        order = json.loads(line)
        run: Callable[..., Awaitable[dict[str, Any]]] = getattr(load, order.pop("do"))
        gc.collect()
        gc.freeze()
        try:
            answer = await run(**order)
        except (LoadError, OSError, picows.WSError, TimeoutError) as exc:
            answer = {"error": str(exc) or type(exc).__name__}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_obey())
