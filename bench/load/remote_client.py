"""Clients of a running Tidegate, and what they measure from outside: each thing at a fixed rate, whatever comes back,
and timed from when it was due, so that waiting is in it. Everything that comes is checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import picows

from bench.load.orders import PERCENTILES, percentile
from bench.report.comparison import Cell

WAIT_S = 10.0  # for what has not come when the last was sent
QUIET_S = 0.2  # in which what should not come has time to
DATA_BYTES = 100


class RemoteError(Exception):
    """Nothing can be measured there; the text says why, and what might help."""


@dataclass(frozen=True)
class Target:
    """Where to connect, and as whom: query and ``headers`` of each connection. ``push_url``: the internal API, or
    empty; ``api_headers`` go with it. ``run``: a word that is in all names that this run makes up."""

    url: str
    queries: Sequence[str]
    headers: Sequence[dict[str, str]]
    run: str
    push_url: str = ""
    api_headers: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None


@dataclass
class Tally:
    """What comes back: ``expected`` things, of which each is known by its number and comes to a connection once."""

    expected: int = 0
    due_s: dict[int, float] = field(default_factory=dict)
    took_ms: list[float] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    wrong: str = ""
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, number: int, connection: int) -> None:
        if number not in self.due_s:
            self.fail("something came that nobody asked for")
        elif (number, connection) in self.seen:
            self.fail("something came twice")
        else:
            self.seen.add((number, connection))
            self.took_ms.append(1000 * (time.monotonic() - self.due_s[number]))
            if len(self.seen) == self.expected:
                self.complete.set()

    def fail(self, what: str) -> None:
        """The first fault is kept; nothing more is awaited."""
        self.wrong = self.wrong or what
        self.complete.set()


class Client(picows.WSListener):
    """One connection. ``name``: the client that the service took it for."""

    def __init__(self, number: int, run: str) -> None:
        super().__init__()
        self.number = number
        self.name = ""
        self.tally = Tally()
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._run = run
        self._beats: deque[int] = deque()
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._offsets: dict[str, tuple[str, int]] = {}
        self._transport: Any = None
        self._leaving = False

    # What is sent

    def heartbeat(self, number: int) -> None:
        self._beats.append(number)
        self._send("ping")

    def ping(self, number: int) -> None:
        self._send(json.dumps({"type": "ping", "id": number}))

    def call(self, number: int, method: str) -> None:
        self._send(json.dumps({"type": "call", "id": number, "method": method, "data": _data(self._run, number)}))

    async def command(self, **command: Any) -> dict[str, Any]:
        """The answer, which may be an error."""
        future = asyncio.get_running_loop().create_future()
        self._replies[command["id"]] = future
        self._send(json.dumps(command))
        return await asyncio.wait_for(future, WAIT_S)

    async def leave(self) -> None:
        self._leaving = True
        self._transport.send_close(picows.WSCloseCode.OK)
        await self._transport.wait_disconnected()

    def _send(self, text: str) -> None:
        self._transport.send(picows.WSMsgType.TEXT, text.encode())

    # What comes

    def on_ws_connected(self, transport: Any) -> None:
        self._transport = transport

    def on_ws_disconnected(self, transport: Any) -> None:
        self._lost("the connection was cut")

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            self._lost(f"closed with {frame.get_close_code()}")
            transport.disconnect()
        elif frame.msg_type is picows.WSMsgType.TEXT:
            text = frame.get_payload_as_utf8_text()
            if text == "pong":
                self.tally.count(self._beats.popleft() if self._beats else -1, self.number)
            else:
                self._event(json.loads(text))

    def _lost(self, what: str) -> None:
        if self._leaving:
            return
        self.tally.fail(what)
        if not self.welcomed.done():
            self.welcomed.set_exception(RemoteError(f"{what} before the welcome"))
            self.welcomed.exception()  # seen, also where nobody waits any more

    def _event(self, event: dict[str, Any]) -> None:
        kind, id_ = event.get("type"), event.get("id")
        if kind == "welcome":
            self.name = event["client"]
            self._offsets = {name: (each["epoch"], each["offset"]) for name, each in event["streams"].items()}
            self.welcomed.set_result(None)
        elif kind == "message":
            self._message(event)
        elif kind == "gap":
            self.tally.fail(f"a gap in {event['stream']}: {event['reason']}")
        elif isinstance(id_, str) and id_ in self._replies:
            if kind == "reply" and "stream" in event:
                self._offsets[event["stream"]] = (event["epoch"], event["offset"])
            self._replies.pop(id_).set_result(event)
        elif kind == "pong":
            self.tally.count(id_ or 0, self.number)
        elif kind == "reply":
            if event.get("status") == 200 and event.get("data") == _data(self._run, id_ or 0):
                self.tally.count(id_ or 0, self.number)
            else:
                self.tally.fail(f"a call was answered with {json.dumps(event)[:120]}")
        elif kind == "error":
            self.tally.fail(f"{event.get('code')}: {event.get('message')}")

    def _message(self, event: dict[str, Any]) -> None:
        """Each offset of a stream in its turn; of what others push, no more than that is known."""
        epoch, last = self._offsets.get(event["stream"], (event["epoch"], event["offset"] - 1))
        if (epoch, last + 1) != (event["epoch"], event["offset"]):
            self.tally.fail(f"{event['stream']}: offset {event['offset']} after {last}")
        self._offsets[event["stream"]] = (event["epoch"], event["offset"])
        data = event["data"]
        if isinstance(data, dict) and data.get("bench") == self._run:
            self.tally.count(data["n"], self.number)


def _data(run: str, number: int) -> dict[str, Any]:
    """``DATA_BYTES`` as JSON."""
    data = {"bench": run, "n": number, "pad": ""}
    data["pad"] = "x" * max(0, DATA_BYTES - len(json.dumps(data)))
    return data


class Crew:
    """All clients of one run. Each measurement gives a cell: its figures, or its fault."""

    def __init__(self, target: Target, rate: float, seconds: float) -> None:
        self._target = target
        self._rate = rate
        self._count = max(1, round(rate * seconds))
        self._seconds = seconds
        self._group = f"bench-{target.run}"
        self._refusal: RemoteError | None = None
        self.clients: list[Client] = []

    @property
    def size(self) -> int:
        return len(self._target.queries)

    async def connect(self) -> Cell:
        """All connect; latency is until the welcome. Raises RemoteError when one of them is refused."""
        target, tally = self._target, Tally(self.size)

        async def one(number: int) -> None:
            client = Client(number, target.run)
            try:
                await picows.ws_connect(
                    lambda: client,
                    f"{target.url}{target.queries[number]}",
                    extra_headers=target.headers[number],
                    websocket_handshake_timeout=WAIT_S,
                    ssl_context=target.tls,
                )
                await asyncio.wait_for(client.welcomed, WAIT_S)
            except (picows.WSError, OSError, TimeoutError, RemoteError) as exc:
                self._refusal = self._refusal or refused(target.url, exc)
                tally.fail(str(self._refusal))
                return
            tally.count(number, number)
            self.clients.append(client)

        async with asyncio.TaskGroup() as group:
            found = await self._measure(tally, self.size, lambda n: _spawn(group, one(n)))
        if self._refusal:
            raise self._refusal
        return found

    async def heartbeats(self) -> Cell:
        return await self._ask(lambda client, number: client.heartbeat(number))

    async def pings(self) -> Cell:
        return await self._ask(lambda client, number: client.ping(number))

    async def calls(self, method: str) -> Cell:
        return await self._ask(lambda client, number: client.call(number, method))

    async def push_to_clients(self) -> Cell:
        """To one client after the other; each of its connections gets the message."""
        names = sorted({client.name for client in self.clients})
        each = [sum(client.name == name for client in self.clients) for name in names]
        count = min(self._count, 100_000 // max(each))
        expected = sum(each[number % len(names)] for number in range(count))
        return await self._push([f"/api/clients/{name}/push" for name in names], count, expected, self._rate)

    async def push_to_group(self) -> Cell:
        """To all connections at once, a tenth as often."""
        answers = [
            await client.command(type="join", id=f"join-{client.number}", group=self._group) for client in self.clients
        ]
        if refusals := [answer for answer in answers if answer["type"] == "error"]:
            return Cell(fault=f"joining {self._group}: {refusals[0]['code']}: {refusals[0]['message']}")
        rate = self._rate / 10
        count = max(5, round(rate * self._seconds))
        return await self._push([f"/api/groups/{self._group}/push"], count, count * len(self.clients), rate)

    async def leave(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(client.leave() for client in self.clients)), WAIT_S)

    async def _ask(self, send: Callable[[Client, int], None]) -> Cell:
        tally = Tally(self._count)
        self._listen(tally)
        return await self._measure(tally, self._count, lambda n: send(self.clients[n % len(self.clients)], n))

    async def _push(self, paths: Sequence[str], count: int, expected: int, rate: float) -> Cell:
        target, tally = self._target, Tally(expected)
        self._listen(tally)

        async def push(number: int) -> None:
            url, data = target.push_url + paths[number % len(paths)], {"data": _data(target.run, number)}
            try:
                async with http.post(url, json=data, headers=target.api_headers) as answer:
                    if answer.status != 202:
                        tally.fail(f"push: HTTP {answer.status} {in_words(await answer.read())}")
            except (aiohttp.ClientError, TimeoutError) as exc:
                tally.fail(f"push: {exc or type(exc).__name__}")

        timeout = aiohttp.ClientTimeout(total=WAIT_S)
        connector = aiohttp.TCPConnector(limit=10, ssl=target.tls or True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http, asyncio.TaskGroup() as group:
            return await self._measure(tally, count, lambda n: _spawn(group, push(n)), rate)

    def _listen(self, tally: Tally) -> None:
        for client in self.clients:
            client.tally = tally

    async def _measure(self, tally: Tally, count: int, send: Callable[[int], None], rate: float | None = None) -> Cell:
        """``send`` is called for 0 to ``count`` - 1, each when it is due."""
        began_s, cpu_s = time.monotonic(), time.process_time()
        for number in range(count):
            due_s = began_s + number / (rate or self._rate)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if tally.wrong:
                break
            tally.due_s[number] = due_s
            send(number)
        try:
            await asyncio.wait_for(tally.complete.wait(), WAIT_S)
        except TimeoutError:
            tally.fail(f"{tally.expected - len(tally.seen)} of {tally.expected} did not come")
        wall_s, used_s = time.monotonic() - began_s, time.process_time() - cpu_s
        await asyncio.sleep(QUIET_S)
        share = used_s / wall_s
        if tally.wrong:
            return Cell(fault=tally.wrong, client_share=share)
        ordered = sorted(tally.took_ms)
        values = {"p50_ms": percentile(ordered, 50), "p99_ms": percentile(ordered, 99), "rate": len(ordered) / wall_s}
        curve = [(float(each), percentile(ordered, each)) for each in PERCENTILES]
        return Cell(values, {"latency": curve}, share, notes={"count": len(ordered), "sent": count})


def _spawn(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    group.create_task(work)


def refused(url: str, exc: Exception) -> RemoteError:
    """What went wrong with a handshake, and what might help."""
    if isinstance(exc, picows.WSHandshakeError) and exc.response is not None:
        status = int(exc.response.status)
        words = f"{url} answered HTTP {status} {in_words(exc.raw_body or b'')}".rstrip()
        return RemoteError(f"{words}{HELP.get(status, '')}")
    if isinstance(exc, TimeoutError):
        return RemoteError(f"{url}: no welcome within {WAIT_S:g} s; is it a Tidegate?")
    return RemoteError(f"cannot connect to {url}: {exc or type(exc).__name__}")


HELP = {
    400: "; does it want a token (--token, --token-key), or none?",
    401: "; give --token or --token-key",
    403: "; is its host name among server.hosts?",
    404: "; is it the path of the WebSocket?",
    429: "; its limits for one address, or for one client, are below --connections or --rate",
    503: "; it is full, or stops",
}


def in_words(body: bytes) -> str:
    """Of a refusal as the service writes it; else its beginning."""
    try:
        error = json.loads(body)["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return body[:80].decode(errors="replace").split("\n")[0]
