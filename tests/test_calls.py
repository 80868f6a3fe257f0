"""Calls against servers that behave, and against servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random

import aiohttp
import pytest

from tests.callee import Exchange, Peer, answering, calling, serving
from tests.support import eventually, free_port
from tidegate.calls import CallResult, check_answer
from tidegate.core.errors import CallBadAnswer, CallTimeout, CallUnavailable, NotAllowed
from tidegate.slots import Slots

# What is sent


async def test_a_request_says_who_calls_and_offers_no_compression():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"1", b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n")
        await peer.request()
        await peer.answer(b"2")

    async with serving(exchange) as server, contextlib.AsyncExitStack() as stack:
        host = server.url.removeprefix("http://").replace("127.0.0.1", "localhost")  # addresses get no cookies anyway
        call = await stack.enter_async_context(calling(f"http://{host}/api/v1", allow=["orders.create"]))
        await call(b'{"n":1}', method="orders.create", request_id="n1k4-7-1")
        await call(b'{"n":2}', method="orders.create", request_id="n1k4-7-2")
        first, second = server.requests
        assert (server.accepted, first.body, second.body) == (1, b'{"n":1}', b'{"n":2}')
        assert first.line == "POST /api/v1/orders.create HTTP/1.1"
        assert first.headers == {
            "host": host,
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "tidegate",
            "content-type": "application/json",
            "content-length": "7",
            "x-client-id": "alice",
            "x-connection-id": "n1k4-7",
            "x-request-id": "n1k4-7-1",
            "x-tidegate-via": "service",
        }
        assert second.headers == first.headers | {"x-request-id": "n1k4-7-2"}, "no cookie comes back"


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(answering(b"1")) as server, calling(server.url) as call:
        assert await call() == CallResult(200, b"1")


@pytest.mark.parametrize(
    "method", ["fail", "", "echo.", ".echo", "a..b", "../echo", "echo/x", "echo?x", "ECHO", "echo\n"]
)
async def test_a_method_that_is_not_allowed_is_not_called(method: str):
    async with serving(answering(b"1")) as server, calling(server.url) as call:
        with pytest.raises(NotAllowed):
            await call(method=method)
        assert (server.accepted, call.outcomes) == (0, [])


async def test_calls_share_the_connections_that_are_configured():
    waiting: list[Peer] = []

    async def exchange(peer: Peer) -> None:
        while True:
            await peer.request()
            waiting.append(peer)
            await eventually(lambda: peer not in waiting)
            await peer.answer(b"1")

    async with serving(exchange) as server, calling(server.url, connections=3) as call:
        calls = [asyncio.create_task(call(client=f"c{n}")) for n in range(9)]  # noqa: TID251 - awaited below
        for _ in range(3):
            await eventually(lambda: len(waiting) == 3)
            waiting.clear()
        assert await asyncio.gather(*calls) == [CallResult(200, b"1")] * 9
        assert (server.accepted, server.most_open, len(server.requests)) == (3, 3, 9)


class Hanging:
    """An application whose method ``hang`` never answers; nor does any, for the client ``mallory``."""

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.line.startswith("POST /hang ") or request.headers["x-client-id"] == "mallory":
                await peer.reader.read()
            await peer.answer(b"1")


@pytest.mark.parametrize("hung", ["client", "method"])
async def test_what_hangs_takes_only_a_part_of_the_connections(hung: str):
    async with serving(Hanging()) as server, calling(server.url, connections=20, allow=["echo", "hang"]) as call:
        if hung == "client":
            running = [call(client="mallory") for _ in range(128)]
        else:
            running = [call(client=f"c{n}", method="hang") for n in range(128)]
        tasks = [asyncio.create_task(each) for each in running]  # noqa: TID251 - cancelled below
        most = 10 if hung == "client" else 15
        await eventually(lambda: len(server.requests) == most)
        for n in range(40):
            assert (await call(client=f"d{n}")).status == 200
        assert len(server.requests) == most + 40
        assert server.most_open == most + 1
        assert call.caller.slots.waiting == 128 - most
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert call.caller.slots.waiting == 0
        await asyncio.gather(*(call() for _ in range(20)))


async def test_who_waits_for_a_connection_gets_one_in_turn():
    answered: list[str] = []
    gate = asyncio.Event()

    async def exchange(peer: Peer) -> None:
        while True:
            request = await peer.request()
            await gate.wait()
            answered.append(request.headers["x-client-id"])
            await peer.answer(b"1")

    async with serving(exchange) as server, calling(server.url, connections=1) as call:
        asked = ["first", *["greedy"] * 5, *["modest"] * 2, "late"]
        tasks = [asyncio.create_task(call(client=client)) for client in asked]  # noqa: TID251 - awaited below
        await eventually(lambda: server.requests and call.caller.slots.waiting == 8)
        gate.set()
        await asyncio.gather(*tasks)
        assert answered == ["first", "greedy", "modest", "late", "greedy", "modest", "greedy", "greedy", "greedy"]


async def test_one_method_alone_may_use_all_connections():
    async with serving(Hanging()) as server, calling(server.url, connections=4, allow=["hang"]) as call:
        tasks = [asyncio.create_task(call(client=f"c{n}", method="hang")) for n in range(9)]  # noqa: TID251
        await eventually(lambda: len(server.requests) == 4)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_slots_are_neither_lost_nor_made_up_when_waiting_is_cancelled():
    async def work(seed: int) -> None:
        chance, slots, held = random.Random(seed), Slots(4, methods=2), 0

        async def use(client: str, method: str) -> None:
            nonlocal held
            async with slots.of(client, method):
                held += 1
                assert held <= 4
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                held -= 1

        tasks = []
        for _ in range(200):
            task = asyncio.create_task(use(chance.choice("abc"), chance.choice("xy")))  # noqa: TID251 - awaited below
            tasks.append(task)
            if chance.random() < 0.4:
                chance.choice(tasks).cancel()
            if chance.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (slots.waiting, slots._free, slots._waiting, +slots._of_client, +slots._of_method) == (0, 4, {}, {}, {})

    for seed in range(30):
        asyncio.run(work(seed))


# What comes back


@pytest.mark.parametrize(
    ("head", "body", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", b"", CallResult(200, b"null")),
        (b"HTTP/1.1 204 No Content\r\n", b"", CallResult(204, b"null")),
        (b"HTTP/1.1 304 Not Modified\r\n", b"", CallResult(304, b"null")),
        (b"HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n", b"", CallResult(302, b"null")),
        (b"HTTP/1.1 307 Again\r\nLocation: /echo\r\nContent-Length: 2\r\n", b"{}", CallResult(307, b"{}")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", b" \t[1, 2]\r\n", CallResult(200, b"[1, 2]")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            b"2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n",
            CallResult(200, b"[1]"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n",
            b"[1]",
            CallResult(200, b"[1]"),
        ),  # ends with the connection
        (b"HTTP/1.0 418 Teapot\r\n", b"1e999", CallResult(418, b"1e999")),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n", b"7", CallResult(201, b"7")),
    ],
    ids=["empty", "204", "304", "302", "307", "whitespace", "chunked", "until-close", "1.0", "103"],
)
async def test_an_answer_comes_back_with_its_status_and_its_bytes(head: bytes, body: bytes, answer: CallResult):
    async with serving(answering(body, head=head)) as server, calling(server.url) as call:
        assert await call() == answer
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n", b"<html>"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", gzip.compress(b"[1]")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n", b"[1]"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"3\r\n[1]\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"x\r\n[1]\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n", b"[1]"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n", b"[1]"),
        (b"HTTP/1.1 2000 OK\r\n", b"[1]"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", b""),
    ],
    ids=["html", "gzip", "cut", "chunked-cut", "bad-chunk", "bad-length", "long-head", "bad-status", "ssh"],
)
async def test_an_answer_that_is_not_http_with_json_is_a_bad_one(head: bytes, body: bytes):
    async with serving(answering(body, head=head)) as server, calling(server.url) as call:
        with pytest.raises(CallBadAnswer):
            await call()
        assert (call.outcomes, len(server.requests)) == (["call_bad_answer"], 1)


@pytest.mark.parametrize(
    "body",
    [
        b" ",
        b"{",
        b"[1,]",
        b"1 2",
        b"01",
        b"NaN",
        b"'a'",
        b'"\x01"',
        b'"\xff"',
        b'{"\xff":1}',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
    ],
)
def test_what_is_not_json_in_utf8_is_no_answer(body: bytes):
    with pytest.raises(CallBadAnswer, match="not JSON"):
        check_answer(body)


def test_an_answer_nests_64_levels_at_most():
    assert check_answer(b'{"a":' * 64 + b"1" + b"}" * 64)
    assert check_answer(b'"' + b"[" * 100 + b'"')
    for depth in (65, 100_000):
        with pytest.raises(CallBadAnswer, match="64 levels"):
            check_answer(b"[" * depth + b"]" * depth)


async def test_an_answer_of_just_the_allowed_size_is_let_through_and_one_byte_more_is_not():
    async def exchange(peer: Peer) -> None:
        for size in (100, 101):
            await peer.request()
            await peer.answer(b'"' + b"x" * (size - 2) + b'"')

    async with serving(exchange) as server, calling(server.url, answer_bytes=100) as call:
        assert len((await call()).data) == 100
        with pytest.raises(CallBadAnswer, match="larger than 100 bytes"):
            await call()


async def test_an_answer_without_end_is_cut():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.send(b"x" * 65536)

    async with serving(exchange) as server, calling(server.url) as call:
        with pytest.raises(CallBadAnswer, match="larger than 229376 bytes"):
            await call()
        await eventually(lambda: server.open == 0)


# What does not come


async def test_nobody_listening_is_unavailable():
    async with calling(f"http://127.0.0.1:{free_port()}") as call:
        with pytest.raises(CallUnavailable, match="could not connect"):
            await call()
        assert call.outcomes == ["call_unavailable"]


async def test_an_application_that_never_answers_times_out_and_its_connection_is_closed():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(exchange) as server, calling(server.url, timeout_s=0.2) as call:
        with pytest.raises(CallTimeout, match=r"0\.2 s"):
            await call()
        await eventually(lambda: server.open == 0)
        assert (call.outcomes, len(server.requests)) == (["call_timeout"], 1)


async def test_an_answer_that_trickles_is_not_waited_for_longer():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await peer.send(b" ")
            await asyncio.sleep(0.02)  # its pace

    async with serving(exchange) as server, calling(server.url, timeout_s=0.3) as call:
        with pytest.raises(CallTimeout):
            await call()
        assert len(server.requests) == 1


async def test_waiting_for_a_connection_counts_against_the_time():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(exchange) as server, calling(server.url, connections=1, timeout_s=0.2) as call:
        results = await asyncio.gather(call(), call(), return_exceptions=True)
        assert [type(result) for result in results] == [CallTimeout, CallTimeout]
        assert len(server.requests) == 1


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("reads", [False, True])
async def test_a_new_connection_that_breaks_is_unavailable_and_nothing_is_sent_twice(reads: bool, reset: bool):
    async def exchange(peer: Peer) -> None:
        if reads:
            await peer.request()
        if reset:
            peer.reset()

    async with serving(exchange) as server, calling(server.url) as call:
        with pytest.raises(CallUnavailable):
            await call()
        assert server.accepted == 1
        assert call.outcomes == ["call_unavailable"]


def breaking(*, times: int, reset: bool = False) -> Exchange:
    """A first request is answered. What comes next on a connection that has served is read, and the connection
    breaks: so it looks where an idle one is closed in the very moment. ``times`` connections do so, at most."""
    broken = 0

    async def exchange(peer: Peer) -> None:
        nonlocal broken
        await peer.request()
        await peer.answer(b"1")
        await peer.request()
        if broken < times:
            broken += 1
            if reset:
                peer.reset()
            return
        await peer.answer(b"2")

    return exchange


@pytest.mark.parametrize("reset", [False, True])
async def test_a_kept_connection_that_breaks_without_an_answer_is_replaced_once_under_the_same_id(reset: bool):
    async with serving(breaking(times=1, reset=reset)) as server, calling(server.url) as call:
        await call(request_id="r1")
        assert await call(b"7", request_id="r2") == CallResult(200, b"1")
        assert [request.headers["x-request-id"] for request in server.requests] == ["r1", "r2", "r2"]
        assert [request.body for request in server.requests] == [b"{}", b"7", b"7"]
        assert (server.accepted, call.outcomes) == (2, ["reply", "reply"])


async def test_a_request_is_never_made_a_third_time():
    async with serving(breaking(times=2)) as server, calling(server.url) as call:
        await asyncio.gather(call(request_id="r1"), call(request_id="r2"))  # two connections that have served
        with pytest.raises(CallUnavailable, match="broke before its answer"):
            await call(request_id="r3")
        assert [request.headers["x-request-id"] for request in server.requests[2:]] == ["r3", "r3"]


async def test_a_kept_connection_that_says_nothing_times_out_and_the_request_is_not_repeated():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"1")
        await peer.request()
        await peer.reader.read()

    async with serving(exchange) as server, calling(server.url, timeout_s=0.3) as call:
        await call()
        with pytest.raises(CallTimeout):
            await call()
        assert len(server.requests) == 2


async def test_a_connection_that_was_closed_while_idle_is_not_used_again():
    async with serving(answering(b"1")) as server, calling(server.url) as call:
        for n in (1, 2, 3):
            assert await call() == CallResult(200, b"1")
            await eventually(lambda: server.open == 0)
            assert len(server.requests) == n


# Answers that nobody asked for


@pytest.mark.parametrize(
    "stray",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"stray"',
        b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTT",
        b"H",
    ],
    ids=["whole", "408", "head", "part", "three", "one"],
)
@pytest.mark.parametrize("when", ["behind", "idle", "unread"])
async def test_an_answer_that_nobody_asked_for_answers_nobody(stray: bytes, when: str):
    """It comes in one write with the answer; or when the connection is idle; or then, and the loop has not read it."""
    idle: list[Peer] = []

    async def exchange(peer: Peer) -> None:
        request = await peer.request()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(request.body), request.body)
        await peer.send(answer, stray if when == "behind" else b"")
        idle.append(peer)
        await peer.request()  # would be taken for the answer to this one
        await peer.send(stray)

    async with serving(exchange) as server, calling(server.url) as call:
        for number in range(3):
            assert await call(b"%d" % number) == CallResult(200, b"%d" % number)
            if when != "behind":
                idle[-1].writer.write(stray)
            if when == "idle":
                for _ in range(10):
                    await asyncio.sleep(0)
        assert (server.accepted, len(server.requests)) == (3, 3)
        assert call.outcomes == ["reply"] * 3


async def test_a_connection_on_which_nothing_more_came_is_used_again():
    """Where this fails, aiohttp has changed what ``tidegate.aiohttp_seam`` builds on."""

    async def exchange(peer: Peer) -> None:
        for head in (b"200 OK", b"103 Early\r\n\r\nHTTP/1.1 201 Created", b"404 Not Found"):
            await peer.request()
            await peer.answer(b"1", b"HTTP/1.1 %b\r\n" % head)
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n")
        await peer.request()
        await peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        await peer.request()
        await peer.answer(b"1")

    async with serving(exchange) as server, calling(server.url) as call:
        statuses = [(await call()).status for _ in range(6)]
        assert statuses == [200, 201, 404, 200, 204, 200]
        assert server.accepted == 1, f"aiohttp {aiohttp.__version__}: connections are no longer kept"
        connector = call.caller._http._session.connector  # type: ignore[union-attr]
        kept = [protocol for connections in connector._conns.values() for protocol, _ in connections]  # type: ignore[union-attr]
        names = [type(protocol).__name__ for protocol in kept]
        assert names == ["_Kept"], f"aiohttp {aiohttp.__version__}: connections are made in another way"


# Its end


async def test_stopping_ends_calls_in_flight_and_later_ones():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(exchange) as server, calling(server.url) as call:
        running = asyncio.create_task(call())  # noqa: TID251 - awaited below
        await eventually(lambda: server.requests)
        await call.caller.stop()
        for ended in (running, call()):
            with pytest.raises(CallUnavailable):
                await ended
        await eventually(lambda: server.open == 0)


async def test_a_call_that_nobody_waits_for_any_more_gives_its_connection_up():
    async def exchange(peer: Peer) -> None:
        await peer.request()
        await peer.reader.read()

    async with serving(exchange) as server, calling(server.url, connections=1) as call:
        running = asyncio.create_task(call())  # noqa: TID251 - awaited below
        await eventually(lambda: server.requests)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await eventually(lambda: server.open == 0)
        assert call.outcomes == []
