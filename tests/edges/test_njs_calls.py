"""Calls that the njs edge makes of applications that are not as they should be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.edges.edge import Stand, ask, stand
from tests.peer import PING, TEXT, Peer, frame
from tests.scripted import Handler, server
from tests.support import eventually, is_listening


@pytest.fixture(scope="module")
def s() -> Iterator[Stand]:
    """An edge, and a node that is never asked to make a call: its outcome would have another id."""
    it = Stand("njs", CALLS__ALLOW=["echo", "other"], CALLS__TIMEOUT_S=2)
    try:
        it.start()
        yield it
    finally:
        it.stop()


@pytest.fixture(autouse=True)
def quiet(s: Stand) -> Iterator[None]:
    yield
    assert s.complaints() == []


async def request(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """The headers and the body of the next request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return headers, await reader.readexactly(int(headers["content-length"]))


def answering(*parts: bytes) -> Handler:
    """Each request on a connection is answered with these bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            headers, _ = await request(reader)
            assert headers["x-tidegate-via"] == "njs"
            for part in parts:
                writer.write(part)
                await writer.drain()
            if b"Connection: close" in parts[0]:
                return

    return handle


@contextlib.asynccontextmanager
async def calling(s: Stand, application: Handler) -> AsyncIterator[Peer]:
    async with server(application, port=s.rest_port), s.peer("alice") as alice:
        await alice.event()
        yield alice


async def call(s: Stand, application: Handler) -> dict[str, Any]:
    async with calling(s, application) as alice:
        return await alice.ask(type="call", id=1, method="echo", data=1)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 201),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 200),
    ],
)
async def test_an_empty_answer_is_null(s: Stand, head: bytes, status: int) -> None:
    assert await call(s, answering(head)) == {"type": "reply", "id": 1, "status": status, "data": None}


@pytest.mark.parametrize(
    "header",
    [
        b"X-Accel-Redirect: /other",
        b"X-Accel-Redirect: /.failed/timeout",
        b"X-Accel-Limit-Rate: 1",
        b"X-Accel-Buffering: yes",
        b"X-Accel-Charset: koi8-r",
        b"X-Accel-Expires: 0",
        b"X-Tidegate-Failed: call_timeout",
        b"Refresh: 0; url=/",
    ],
)
async def test_an_application_gives_nginx_no_orders(s: Stand, header: bytes) -> None:
    body = json.dumps("x" * 100)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%b\r\nContent-Length: %d\r\n\r\n" % (header, len(body))
    reply = await call(s, answering(head + body.encode()))
    assert reply == {"type": "reply", "id": 1, "status": 200, "data": "x" * 100}


@pytest.mark.parametrize(
    "before",
    [
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"] * 20,
    ],
)
async def test_an_announced_answer_is_waited_for_or_ends_the_call_at_once(s: Stand, before: list[bytes]) -> None:
    """Never as a timeout. What njs makes of the bytes is in test_njs.py."""
    s.provoked("js exception: Error: an answer that begins with 10")
    answer = b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n[1]"
    for parts in ([*before, answer], [b"".join(before) + answer]):
        got = await call(s, answering(*parts))
        assert got.get("status") == 201 or got["code"] == "call_bad_answer"
        assert got.get("data") == [1] or got["message"] == "the answer ended too early"


async def test_no_other_protocol_is_spoken(s: Stand) -> None:
    s.provoked("js exception: Error: an answer that begins with 101")
    answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    assert (await call(s, answering(answer)))["code"] == "call_bad_answer"


async def test_an_answer_that_nobody_asked_for_reaches_nobody(s: Stand) -> None:
    """Two answers to one request, and late ones on connections that nginx keeps: they would be the next client's."""
    stray = b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"stray"'
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    requests: list[bytes] = []
    idle: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            idle.add(writer)
            _, body = await request(reader)
            idle.discard(writer)
            requests.append(body)
            twice = stray if len(requests) % 5 == 0 else b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body) + twice)

    async with server(handle, port=s.rest_port), contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(s.peer(f"p{n}")) for n in range(10)]
        for peer in peers:
            await peer.event()
        for number in range(20):
            for who, peer in enumerate(peers):
                peer.send(type="call", id=number, method="echo", data=[who, number])
            answers = await asyncio.gather(*(peer.event() for peer in peers))
            assert [(it["type"], it["data"]) for it in answers] == [("reply", [who, number]) for who in range(10)]
            for writer in sorted(idle, key=id)[::2]:
                writer.write(stray if number % 2 else late)
                idle.discard(writer)
    assert len(requests) == 200


async def test_while_nginx_quits_calls_are_the_services() -> None:
    """A worker that quits has closed the listener of its own server for calls."""
    async with stand("njs", rest=True, edge={"EDGE__SHUTDOWN_TIMEOUT_S": 3}) as s, s.peer("alice") as alice:
        s.provoked("Connection refused")
        await alice.event()
        assert (await alice.ask(type="call", id=1, method="echo", data=1))["data"] == 1
        s.edge.process.signal(signal.SIGQUIT)
        await eventually(lambda: "gracefully shutting down" in s.edge.process.stderr)
        await eventually(lambda: not is_listening(s.edge.config.edge.calls_port))
        # In the midst of a frame of the client's, which the one that could not be made must wait for.
        rest = frame(PING, b"x" * 100)
        alice.send_raw(frame(TEXT, call_text(2)) + rest[:50])
        for number in range(3, 13):
            rest += frame(TEXT, call_text(number))
        await asyncio.sleep(0.05)
        alice.send_raw(rest[50:])
        answers = [await alice.event() for _ in range(11)]
        assert sorted((it["type"], it["id"], it.get("data")) for it in answers) == [
            ("reply", number, number) for number in range(2, 13)
        ]
        assert alice.pongs == [b"x" * 100]
        requests = (await ask(s.rest_port, "GET", "/stats")).json["requests"]
        assert (requests["njs"], requests["service"]) == (1, 11)


def call_text(number: int) -> bytes:
    return b'{"type":"call","id":%d,"method":"echo","data":%d}' % (number, number)


@pytest.mark.parametrize("other", ["escaped", "fragmented"])
async def test_a_connection_has_no_more_calls_in_flight_however_they_are_written(other: str) -> None:
    async with stand("njs", CALLS__ALLOW=["echo"], LIMITS__CALLS_IN_FLIGHT=8) as s:
        in_flight = most = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal in_flight, most
            await request(reader)
            in_flight += 1
            most = max(in_flight, most)
            await asyncio.sleep(0.2)  # an application that takes its time
            in_flight -= 1  # before anybody can know that there is room for another
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1")

        async with server(handle, port=s.rest_port), s.peer("alice") as alice:
            await alice.event()
            for number in range(16):
                text = call_text(number)
                if number % 2 == 0:
                    alice.send_raw(frame(TEXT, text))
                elif other == "escaped":
                    alice.send_raw(frame(TEXT, text.replace(b"call", b"\\u0063all")))
                else:
                    alice.send_raw(frame(TEXT, text[:5], fin=False) + frame(0, text[5:]))
            answers = [await alice.event() for _ in range(16)]
            assert {answer.get("code", answer.get("status")) for answer in answers} <= {200, "too_many_calls"}
            assert most == 8


async def test_a_method_that_hangs_and_a_client_that_waits_leave_room_for_the_others() -> None:
    """One worker with 256 connections: 21 calls of a method, 5 of a client."""
    limits = {"LIMITS__CALLS_IN_FLIGHT": 4, "EDGE__WORKER_CONNECTIONS": 256}
    async with (
        stand("njs", CALLS__ALLOW=["echo", "other"], CALLS__TIMEOUT_S=30, edge=limits) as s,
        contextlib.AsyncExitStack() as stack,
    ):
        s.provoked("pending events|returned zero")
        hung = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal hung
            while True:
                _, body = await request(reader)
                if body == b'"hang"':
                    hung += 1
                    await reader.read()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")

        async def waiting(client: str, calls: int) -> Peer:
            peer: Peer = await stack.enter_async_context(s.peer(client))
            await peer.event()
            for number in range(calls):
                peer.send(type="call", id=number, method="echo", data="hang")
            return peer

        await stack.enter_async_context(server(handle, port=s.rest_port))
        other = await waiting("other", 0)
        greedy = [await waiting("greedy", 4) for _ in range(3)]
        await eventually(lambda: hung == 5 and sum(peer.pending() for peer in greedy) == 7)
        assert {(await peer.event())["code"] for peer in greedy[1:]} == {"too_many_calls"}
        assert (await other.ask(type="call", id=1, method="echo", data=1))["data"] == 1
        for number in range(5):
            await waiting(f"p{number}", 4)
        await eventually(lambda: hung == 21)
        assert (await other.ask(type="call", id=2, method="echo", data=1))["code"] == "too_many_calls"
        assert (await other.ask(type="call", id=3, method="other", data=1))["data"] == 1
