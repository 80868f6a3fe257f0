"""Calls through the OpenResty edge, to applications that are not as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator

import pytest

from tests.edges.edge import Stand, stand
from tests.edges.lua import calling, session
from tests.peer import PING, TEXT, Peer, frame
from tests.scripted import Handler, never, says, server
from tests.support import eventually


@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", {"type": "reply", "status": 204, "data": None}),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", {"type": "reply", "status": 304, "data": None}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", {"type": "reply", "status": 200, "data": None}),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            {"type": "reply", "status": 200, "data": None},
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n1",
            {"type": "reply", "status": 201, "data": 1},
        ),
        (
            b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: /healthz\r\nX-Accel-Limit-Rate: 1\r\nContent-Length: 1\r\n\r\n1",
            {"type": "reply", "status": 200, "data": 1},
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            {"type": "reply", "status": 302, "data": None},
        ),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\n{}", {"type": "reply", "status": 502, "data": {}}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", {"type": "error", "code": "call_bad_answer"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1", {"type": "error", "code": "call_bad_answer"}),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", {"type": "error", "code": "call_bad_answer"}),
        (b"nonsense\r\n\r\n", {"type": "error", "code": "call_bad_answer"}),
        (b"", {"type": "error", "code": "call_unavailable"}),
    ],
)
async def test_what_an_application_answers_is_told(answer: bytes, fields: dict[str, object]) -> None:
    async with calling(says(answer)) as (_, peer):
        event = await peer.ask(type="call", id="a", method="echo", data=1)
        assert fields.items() <= event.items()


async def test_a_call_over_a_kept_connection_that_breaks_is_made_once_more_under_its_id() -> None:
    requests: list[bytes] = []

    async def once_per_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % len(requests))
        requests.append(await reader.readuntil(b"\r\n\r\n"))  # and closes

    async with calling(once_per_connection) as (_, peer):
        assert (await peer.ask(type="call", id=1, method="echo", data=1))["data"] == 1
        await asyncio.sleep(0.02)  # until it is kept
        assert (await peer.ask(type="call", id=2, method="echo", data=2))["data"] == 3
    ids = [line for request in requests for line in request.split(b"\r\n") if line.startswith(b"X-Request-Id")]
    assert ids == [b"X-Request-Id: n-1-e1", b"X-Request-Id: n-1-e2", b"X-Request-Id: n-1-e2"]
    assert requests[0].startswith(b"POST /base/echo HTTP/1.1\r\nHost: 127.0.0.1:")
    for line in (b"X-Client-Id: alice", b"X-Connection-Id: n-1", b"X-Tidegate-Via: openresty", b"Content-Length: 1"):
        assert line in requests[0].split(b"\r\n")


async def test_calls_are_made_while_nginx_stops_until_the_session_ends() -> None:
    application = says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
    async with server(application) as port:
        url = f"http://127.0.0.1:{port}"
        async with session(CALLS__URL=url, EDGE__SHUTDOWN_TIMEOUT_S=60, lua={"spread_s": 1000}) as (_, peer, edge):
            edge.process.signal(signal.SIGQUIT)
            await edge.process.line("gracefully shutting down")
            for number in range(3):
                assert (await peer.ask(type="call", id=number, method="echo", data=1))["data"] == 1


async def test_answers_that_a_client_does_not_take_are_not_heaped_up() -> None:
    body = b'"%b"' % (b"x" * 200_000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n1")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with calling(answer) as (service, peer):
        peer.reading.clear()
        for number in range(200):
            peer.send(type="call", id=number, method="echo", data=1)
        await eventually(service.gone.is_set)
        peer.reading.set()
        assert await peer.ended() is None  # cut: there was no room for a close frame


def _fragments(text: bytes, size: int) -> bytes:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    last = len(pieces) - 1
    return b"".join(
        frame(0 if number else TEXT, piece, fin=number == last) + frame(PING) for number, piece in enumerate(pieces)
    )


def _call(number: int) -> bytes:
    """A call, each written in another way."""
    call = b'{"type":"call","id":%d,"method":"echo","data":1}' % number
    ways = [
        frame(TEXT, call),
        frame(TEXT, call.replace(b"call", b"\\u0063all")),
        frame(TEXT, call.replace(b"type", b"t\\u0079pe").replace(b"echo", b"\\u0065cho")),
        frame(TEXT, b"\n " + call),
        frame(TEXT, call.replace(b"{", b'{"id":"x","data":[],')),
        frame(TEXT, call.replace(b'"id":', b'"id":"\\u0069",  "id" : ')),
        _fragments(call, 7),
        frame(TEXT, fin=False) + frame(0, b" ", fin=False) + frame(0, call),
    ]
    return ways[number % len(ways)]


async def test_a_connection_cannot_have_more_calls_in_flight_however_they_are_written() -> None:
    async with calling(never) as (service, peer):
        for number in range(64):
            peer.send_raw(_call(number))
        errors = [await peer.event() for _ in range(64)]
        assert [error["code"] for error in errors] == 32 * ["too_many_calls"] + 32 * ["call_timeout"]
        assert not [frame for frame in service.received if frame[0] in (0, TEXT)]


async def test_fragments_that_are_no_call_reach_the_service_as_a_message() -> None:
    async with calling(never) as (service, peer):
        command = b'{"type":"ping","id":1,"call":"%b"}' % (b"x" * 1000)
        peer.send_raw(_fragments(command, 1))
        await eventually(lambda: (TEXT, True, command) in service.received)
        assert service.received.count((PING, True, b"")) == len(command)
        # One that grows too large goes on as it comes, for the service to say so; so does one that is broken off.
        large = b"{" + b" " * 131_072
        peer.send_raw(frame(TEXT, large[:-1], fin=False) + frame(0, large[-1:]))
        await eventually(lambda: service.received[-2:] == [(TEXT, False, large[:-1]), (0, True, large[-1:])])
        peer.send_raw(frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"))
        await eventually(lambda: service.received[-2:] == [(TEXT, False, b"{"), (TEXT, True, b"}")])


class HangingApplication:
    """Never answers the method ``hang`` nor the clients ``a1``, ``a2`` …"""

    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0
        self.hanging = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n1")
                if re.search(rb"POST /hang |X-Client-Id: a[0-9]\r", head):
                    self.hanging += 1
                    await reader.read()
                    self.hanging -= 1
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
        finally:
            self.open -= 1


@contextlib.asynccontextmanager
async def _hanging() -> AsyncIterator[tuple[Stand, HangingApplication]]:
    application = HangingApplication()
    async with server(application.handle) as port:
        settings = {"CALLS__ALLOW": ["echo", "hang"], "CALLS__CONNECTIONS": 40, "CALLS__TIMEOUT_S": 20}
        async with stand("openresty", CALLS__URL=f"http://127.0.0.1:{port}", **settings) as s:
            yield s, application


async def test_a_method_that_hangs_leaves_connections_to_the_others() -> None:
    async with _hanging() as (s, application), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(s.peer(f"b{number}")) for number in range(8)]
        for client in clients:
            await client.event()
            for number in range(31):
                client.send(type="call", id=number, method="hang", data=1)
            await client.ask(type="ping", id="all were read")
        await eventually(lambda: application.hanging >= 16)
        for client in clients:
            assert (await client.ask(type="call", id="x", method="echo", data=1))["data"] == 2
        assert application.most_open <= 40
        for client in clients[1:]:
            await client.cut()
        # Whoever ends gives back what it held, and what it waited for.
        await clients[0].cut()
        await eventually(lambda: application.hanging == 0)
        async with s.peer("b9") as client:
            for number in range(20):
                client.send(type="call", id=number, method="hang", data=1)
            await eventually(lambda: application.hanging >= 12)


async def test_clients_whose_calls_hang_leave_connections_to_the_others() -> None:
    async with _hanging() as (s, application), contextlib.AsyncExitStack() as stack:
        for client in [await stack.enter_async_context(s.peer(f"a{number}")) for number in range(4)]:
            for number in range(32):
                client.send(type="call", id=number, method="echo", data=1)
            await client.ask(type="ping", id="all were read")
        await eventually(lambda: application.hanging > 16)
        async with s.peer("other") as other:
            for number in range(20):
                assert (await other.ask(type="call", id=number, method="echo", data=1))["data"] == 2
        assert application.most_open <= 40


async def test_calls_that_wait_for_a_connection_get_one_in_turn_or_give_up_in_time() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n1")
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")

    async with calling(slow, CALLS__CONNECTIONS=3) as (_, peer):
        for number in range(30):
            peer.send(type="call", id=number, method="echo", data=1)
        events = await peer.events(30)
        answered = [event["id"] for event in events if event["type"] == "reply"]
        assert answered == list(range(len(answered)))
        assert 3 <= len(answered) <= 15
        assert {event["code"] for event in events if event["type"] == "error"} == {"call_timeout"}
        assert (await peer.ask(type="call", id="x", method="echo", data=1))["data"] == 2


# Answers that nobody asked for

STRAY = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"stray"'


def _with_strays(stray: bytes, delay_s: float | None) -> Handler:
    """An application that gives back the four bytes of a call's data, and then says something more; None: at once, in a
    segment of its own."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + await reader.readexactly(4))
            if delay_s is not None:
                await asyncio.sleep(delay_s)
            writer.write(stray)

    return answer


async def _is_own(peer: Peer, number: int) -> bool:
    reply = await peer.ask(type="call", id=number, method="echo", data=1000 + number)
    return bool(reply.get("data") == 1000 + number)


@pytest.mark.parametrize(
    ("stray", "delay_s"),
    [
        (STRAY, None),
        (STRAY, 0.01),
        (b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 0.01),
        (b"x", 0.01),
    ],
)
async def test_a_stray_answer_on_a_kept_connection_reaches_nobody(stray: bytes, delay_s: float | None) -> None:
    async with server(_with_strays(stray, delay_s)) as port:
        async with (
            stand("openresty", CALLS__URL=f"http://127.0.0.1:{port}") as s,
            s.peer("a") as one,
            s.peer("b") as other,
        ):
            for number in range(10):
                assert await _is_own(one, 2 * number)
                await asyncio.sleep(0.02)  # it comes while the connection is kept
                assert await _is_own(other, 2 * number + 1)
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_second_answer_right_behind_the_first_reaches_nobody() -> None:
    """While connections are taken as soon as they are free."""

    async def call(client: str) -> int:
        async with s.peer(client) as peer:
            return sum([await _is_own(peer, number) for number in range(2000)])

    async with server(_with_strays(STRAY, None)) as port:
        async with stand("openresty", CALLS__URL=f"http://127.0.0.1:{port}") as s:
            assert await asyncio.gather(*(call(f"c{number}") for number in range(10))) == [2000] * 10
