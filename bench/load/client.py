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
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from statistics import median
from typing import Any

import picows
import uvloop

from bench.load.crowd import Crowd
from bench.load.processes import cpu_s, kernel_s
from bench.load.publisher import Http, LoadError, Publisher, post
from bench.load.storm import AT_ONCE, WAIT_S, make_tokens, request_of, shake_hands, socket_factory, split

QUIET_S = 3.0
LINE_BYTES = 1 << 20

WELCOME = b'{"type":"welcome"'
_MOVING = b'{"type":"moving"'  # of an edge that is reloaded: these clients wait for the close
_PING, _PONG = b"\x81\x84\0\0\0\0ping", b"\x81\x04pong"
_OFFSET = b'"offset":'
_OF_CLIENT = b'{"type":"message","stream":"client:'


def offset_of(payload: bytes) -> int:
    """The offset in a message; 0 where there is none."""
    at = payload.find(_OFFSET) + len(_OFFSET)
    end = payload.find(b",", at)
    number = payload[at:end]
    return int(number) if number.isdigit() else 0


class Audience:
    """What the clients in Python share: ``received`` of the messages that are awaited, and what was wrong."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.received = 0
        self.target = 0
        self.wrong = 0
        self.first_wrong = ""
        self.welcomed = 0
        self.closed = 0
        self.waiter: asyncio.Future[None] | None = None

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
    """One connection. ``next`` is the offset that must come next of its own stream."""

    __slots__ = ("audience", "next", "transport")

    def __init__(self, audience: Audience) -> None:
        super().__init__()
        self.audience = audience
        self.next = 1

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: Any) -> None:
        self.audience.closed += 1

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        audience = self.audience
        if frame.msg_type is not picows.WSMsgType.TEXT:
            if frame.msg_type is picows.WSMsgType.CLOSE:
                audience.count_wrong(f"closed with {frame.get_close_code()}")
            return
        payload = frame.get_payload_as_bytes()
        if payload.startswith(WELCOME):
            audience.welcomed += 1
            return
        if payload.startswith(_MOVING):
            return
        if not payload.startswith(_OF_CLIENT) or offset_of(payload) != self.next:
            audience.count_wrong(f"{payload[:80]!r} instead of offset {self.next}")
        self.next += 1
        audience.received += 1
        if audience.received >= audience.target:
            audience.finish()


class Window:
    """The CPU time of server and client, and the time, from its making to ``close``. It begins when the server has done
    what it had to do before."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        come_to_rest(pids)
        self._began = self._clocks()

    def _clocks(self) -> dict[str, float]:
        return {
            "server_cpu_s": cpu_s(self._pids),
            "server_kernel_s": kernel_s(self._pids),
            "client_cpu_s": time.process_time(),
            "wall_s": time.monotonic(),
        }

    def close(self) -> dict[str, float]:
        return {name: now - self._began[name] for name, now in self._clocks().items()}


def come_to_rest(pids: list[int]) -> None:
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
        self._audience = Audience()
        self._crowd: Crowd | None = None
        self._publisher: Publisher | None = None
        self._https: list[Http] = []

    # Connections

    async def connect(self, urls: list[str], count: int, token_key: str | None, welcome: bool) -> dict[str, Any]:
        """``count`` clients, who connect to ``urls`` in turn and stay. ``welcome``: each is told so."""
        audience = self._audience
        numbers = iter(range(count))
        tokens = make_tokens(token_key, count)

        async def some() -> None:
            for number in numbers:
                headers = {"Authorization": f"Bearer {tokens[number]}"} if tokens else None
                client = Client(audience)
                await picows.ws_connect(
                    lambda client=client: client,
                    urls[number % len(urls)],
                    extra_headers=headers,
                    read_buffer_init_size=1024,
                    websocket_handshake_timeout=WAIT_S,
                    socket_factory=socket_factory(number),
                )
                audience.clients.append(client)

        window = Window([])
        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        await self._wait(lambda: not welcome or audience.welcomed == len(audience.clients), "a welcome")
        return window.close()

    async def gather(self, urls: list[str], count: int, token_key: str | None, welcome: bool) -> dict[str, Any]:
        """As ``connect``, but for clients who are light enough for ``fan_out`` and ``echo``."""
        self._crowd = Crowd()
        for sock in _knock(urls, _each(make_tokens(token_key, count), count), welcome):
            self._crowd.add(sock)
        return {}

    def tick(self) -> None:
        """Between orders: who is pinged has to answer."""
        if self._crowd is not None:
            self._crowd.idle()

    async def close(self) -> dict[str, Any]:
        for client in self._audience.clients:
            client.transport.disconnect()
        self._audience.clients.clear()
        return {}

    async def handshakes(
        self, url: str, count: int, token_key: str | None, fresh: bool, welcome: bool, pids: list[int]
    ) -> dict[str, Any]:
        """``count`` clients connect, ``AT_ONCE`` at a time, and are closed when the last is there. ``fresh``: with
        tokens that the server has not seen."""
        tokens = _each(make_tokens(token_key, count, time.time_ns() if fresh else 0), count)
        window = Window(pids)
        socks = _knock([url], tokens, welcome)
        answer = window.close()
        for sock in socks:
            sock.close()
        return answer

    # What is measured

    async def fan_out(self, publish: dict[str, Any], messages: int, batch: int, pids: list[int]) -> dict[str, Any]:
        """``messages`` to all, ``batch`` of them at a time, and the next when all have arrived."""
        crowd = self._gathered()
        if self._publisher is None:
            self._publisher = Publisher(publish)
        publisher, clients, first = self._publisher, len(crowd.socks), crowd.next
        window = Window(pids)
        for offset in range(first, first + messages, batch):
            publisher.publish(offset, batch)
            crowd.collect(batch * clients)
            publisher.confirm()
        answer = window.close()
        await self._rest()
        if crowd.next != first + messages:
            raise LoadError(f"the last offset is {crowd.next - 1}, not {first + messages - 1}")
        return {**answer, "deliveries": messages * clients, "message_bytes": crowd.message_bytes}

    async def neighbour(
        self, url: str, token_key: str | None, publish: dict[str, Any], seconds: float, pids: list[int]
    ) -> dict[str, Any]:
        """How long one who says ``ping`` without a pause waits for its ``pong`` at most (ms), so many seconds without,
        and as many with, a message to all others. Those read when that is over, so that they take no time from it."""
        crowd = self._gathered()
        if self._publisher is None:
            self._publisher = Publisher(publish)
        (sock,) = _knock([url], make_tokens(token_key, 1, prefix="neighbour-"), welcome=True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(WAIT_S)
        first = crowd.next
        with sock:
            alone_ms = _heartbeats(sock, seconds)
            window = Window(pids)
            self._publisher.publish(first, 1)
            beside_ms = _heartbeats(sock, seconds)
        crowd.collect(len(crowd.socks))
        answer = window.close()
        self._publisher.confirm()
        await self._rest()
        return {
            **answer,
            "alone_ms": max(alone_ms),
            "middle_ms": median(alone_ms),
            "beside_ms": max(beside_ms),
        }

    async def echo(self, count: int, connections: int, pids: list[int]) -> dict[str, Any]:
        """``count`` round trips over ``connections``, each of which has one under way."""
        crowd = self._gathered()
        each = count // connections
        window = Window(pids)
        crowd.echo(connections, each)
        answer = window.close()
        await self._rest()
        return {**answer, "round_trips": each * connections}

    def _gathered(self) -> Crowd:
        if self._crowd is None:
            raise LoadError("nobody has been gathered")
        return self._crowd

    async def posts(
        self, port: int, kind: str, count: int, parallel: int, batch: int, pids: list[int]
    ) -> dict[str, Any]:
        """``count`` pushes over ``parallel`` kept connections. ``kind``: ``empty`` (a POST of as much JSON to a server
        that does nothing), ``each`` (to one client after the other), ``one`` (to one and the same)."""
        audience = self._audience
        while len(self._https) < parallel:
            self._https.append(await Http.open(port))
        names = itertools.cycle(range(len(audience.clients) or 1))
        chosen = [0] * count if kind == "one" else [next(names) for _ in range(count)]
        data = b'"%b"' % (b"x" * 10)
        requests = iter(_pushes(kind, chosen, data, batch))
        if kind != "empty":
            audience.more(count)

        async def some(http: Http) -> None:
            for request in requests:
                status, body = await http.send(request)
                if status not in (200, 202) or b'"error"' in body:
                    raise LoadError(f"push: HTTP {status} {body[:200]!r}")

        window = Window(pids)
        await asyncio.gather(*(some(http) for http in self._https[:parallel]))
        if kind != "empty":
            await audience.all_arrived()
        answer = window.close()
        await self._rest()
        return {**answer, "pushes": count}

    async def idle(self, seconds: float, pids: list[int]) -> dict[str, Any]:
        """All stay connected and answer pings."""
        window = Window(pids)
        await asyncio.sleep(seconds)
        answer = window.close()
        self._check()
        return answer

    async def settle(self, pids: list[int]) -> dict[str, Any]:
        """Until the server is at rest."""
        await asyncio.sleep(0.2)
        come_to_rest(pids)
        return {}

    def _check(self) -> None:
        self._audience.check()
        if self._crowd is not None:
            self._crowd.check()

    async def _rest(self) -> None:
        """What should not come has time to, then all is checked."""
        await asyncio.sleep(0.05)
        self._check()

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


def _each(tokens: list[str], count: int) -> Sequence[str | None]:
    return tokens or [None] * count


def _knock(urls: list[str], tokens: Sequence[str | None], welcome: bool) -> list[socket.socket]:
    """One client for each token, connected to ``urls`` in turn."""
    requests = []
    for number, token in enumerate(tokens):
        host, port, path = split(urls[number % len(urls)])
        requests.append(((host, port), request_of(host, port, path, token)))
    return shake_hands(requests, WELCOME if welcome else b"")


def _heartbeats(sock: socket.socket, seconds: float) -> list[float]:
    """How long each took, in ms."""
    took_ms = []
    until_s = time.monotonic() + seconds
    while (began_s := time.monotonic()) < until_s:
        sock.sendall(_PING)
        answer = sock.recv(4096)
        if answer != _PONG:
            raise LoadError(f"a heartbeat was answered with {answer[:80]!r}")
        took_ms.append((time.monotonic() - began_s) * 1000)
    return took_ms


async def apply_order(load: Load) -> None:
    """Until there are no more orders."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    ticking = asyncio.create_task(_tick(load))
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
    ticking.cancel()


async def _tick(load: Load) -> None:
    while True:
        await asyncio.sleep(1)
        load.tick()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(apply_order(Load()))
