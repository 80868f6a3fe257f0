"""The handshake: who gets in, and what the others are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from tests.handshakes import KEY, connected, cursor, handshake, raw, refused, said
from tests.peer import PING, TEXT, Peer, frame
from tests.service_fixture import running
from tests.support import eventually, scaled
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Position, Publication

ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # to that key: RFC 6455, section 1.3


# Let in


async def test_the_answer_says_who_came_in_and_on_which_connection() -> None:
    async with running() as app, connected(app, {"Sec-WebSocket-Key": KEY}) as alice:
        answer = alice.answer_headers
        assert answer["sec-websocket-accept"] == ACCEPT
        assert answer["tidegate-client"] == "alice"
        assert answer["tidegate-connection"] == f"{app.node}-1" == alice.seen[0]["connection"]
        assert "sec-websocket-protocol" not in answer
        assert "sec-websocket-extensions" not in answer
        async with connected(app) as second:
            assert second.answer_headers["tidegate-connection"] == f"{app.node}-2"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("tidegate.v1", "tidegate.v1"),
        ("tidegate.v2, tidegate.v1", "tidegate.v1"),
        ("other,tidegate.v1 ,bearer.x", "tidegate.v1"),
        ("other", None),
        ("bearer.x", None),
    ],
)
async def test_the_subprotocol_is_chosen_where_it_is_offered(offered: str, chosen: str | None) -> None:
    async with running() as app, connected(app, {"Sec-WebSocket-Protocol": offered}) as alice:
        assert alice.answer_headers.get("sec-websocket-protocol") == chosen


@pytest.mark.parametrize(
    "offer",
    ["permessage-deflate", "permessage-deflate; server_max_window_bits=99", "x; y=", ",", "permessage-deflate; ;"],
)
async def test_extensions_are_never_chosen_however_they_are_offered(offer: str) -> None:
    async with running() as app, connected(app, {"Sec-WebSocket-Extensions": offer}) as alice:
        assert "sec-websocket-extensions" not in alice.answer_headers


@pytest.mark.parametrize(
    "query",
    ["client=alice&x=1&y&z=&%C3%BC=%C3%BC", "client=alice&cursors=x&Client=bob", "client=%61lice", "client=alice&"],
)
async def test_unknown_query_keys_are_ignored(query: str) -> None:
    async with running() as app, connected(app, raw_query=query) as alice:
        assert alice.answer_headers["tidegate-client"] == "alice"


async def test_a_request_line_may_have_8_kib() -> None:
    async with running() as app:
        start = "client=alice&x="
        line = len(f"GET /ws-notifications/?{start} HTTP/1.1")
        async with connected(app, raw_query=start + "x" * (8192 - line)) as alice:
            assert alice.answer_headers["tidegate-client"] == "alice"


async def test_groups_are_joined_once_each() -> None:
    async with running() as app, connected(app, groups="news,chat,news") as alice:
        assert list(alice.seen[0]["streams"]) == ["client:alice", "all", "group:chat", "group:news"]
        async with connected(app, groups="") as other:
            assert list(other.seen[0]["streams"]) == ["client:alice", "all"]


async def test_what_comes_with_the_handshake_is_not_lost() -> None:
    async with running() as app:
        early = frame(TEXT, b'{"type":"ping","id":1}') + frame(TEXT, b"ping") + frame(PING, b"hello")
        cut = frame(TEXT, b'{"type":"ping","id":2}')
        reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        writer.write(handshake() + early + cut[:9])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        writer.write(cut[9:])
        back = b""
        while b'"id":2' not in back:
            back += await asyncio.wait_for(reader.read(4096), scaled(5))
        wanted = [
            b'"type":"welcome"',
            b'"type":"pong","id":1',
            b"\x81\x04pong",
            b"\x8a\x05hello",
            b'"type":"pong","id":2',
        ]
        assert [back.index(part) for part in wanted] == sorted(back.index(part) for part in wanted)
        writer.close()


# Refused: what the gateway says


async def test_groups_and_cursors_must_be_ones_own() -> None:
    async with running(GROUPS={"hall": {"join": "nobody"}}) as app:
        assert await said(app, cursor=cursor("client:bob")) == (403, "not_allowed")
        assert app.hub.audiences == {}
        async with connected(app, cursor=cursor("client:alice", "group:hall"), groups="hall") as alice:
            assert "group:hall" not in alice.seen[0]["streams"]
            assert await alice.event() == {"type": "left", "stream": "group:hall", "reason": "not_allowed"}
            await app.gateway.push([Publication("group:hall", b"1")])
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
            assert [event["type"] for event in alice.seen] == ["welcome", "left", "gap", "pong"]


@pytest.mark.parametrize("resume", ["cursor", "last"])
async def test_memberships_made_meanwhile_do_not_lock_a_client_out(resume: str) -> None:
    """Its groups and the new ones are more than a connection may have: some are left, and said to be."""
    async with running(LIMITS__GROUPS_PER_CONNECTION=3) as app:
        async with connected(app, groups="a,b,c", cursor="last") as alice:
            await app.gateway.add_member("vip", "alice")
            assert (await alice.until(lambda event: event["type"] == "joined"))["stream"] == "group:vip"
            token = (await alice.ask(type="ping", id=1))["cursor"]
        await app.gateway.add_member("vip2", "alice")
        streams = {"client:alice", "all", "group:a", "group:vip", "group:vip2"}
        async with connected(app, cursor=token if resume == "cursor" else "last") as alice:
            assert set(alice.seen[0]["streams"]) == streams
            assert [event["stream"] for event in await alice.events(2)] == ["group:b", "group:c"]
            assert {event["type"] for event in alice.seen[1:]} == {"left"}
            assert (await alice.ask(type="join", id=1, group="b"))["code"] == "too_many_groups"
        await eventually(lambda: not app.hub.connections)
        if resume == "last":
            async with connected(app, cursor="last") as alice:
                assert set(alice.seen[0]["streams"]) == streams
                assert (await alice.ask(type="ping", id=1))["type"] == "pong"
                assert len(alice.seen) == 2, "what was left is forgotten"


async def test_a_client_has_so_many_connections_and_no_more() -> None:
    async with running(LIMITS__CONNECTIONS_PER_CLIENT=2) as app:
        async with connected(app), connected(app) as second:
            refusal = await refused(app)
            assert (refusal.status, refusal.code) == (429, "too_many_connections")
            assert int(refusal.headers["retry-after"]) > 0
            async with connected(app, client="bob"):
                pass
            second.close()
            await second.ended()
            await eventually(lambda: len(app.hub.of_client("alice")) == 1)
            async with connected(app):
                pass


async def test_a_node_has_so_many_connections_and_no_more() -> None:
    async with running(LIMITS__CONNECTIONS=2) as app:
        async with connected(app), connected(app, client="bob"):
            refusal = await refused(app, client="carol")
            assert (refusal.status, refusal.code) == (503, "full")
            assert int(refusal.headers["retry-after"]) > 0
        await eventually(lambda: not app.hub.connections)
        async with connected(app, client="carol"):
            pass


async def test_a_node_that_stops_lets_nobody_in() -> None:
    async with running() as app, connected(app) as alice:
        draining = asyncio.ensure_future(app.drain(0))  # noqa: TID251 - awaited below
        assert await alice.ended() == 1012
        assert alice.close_reason == "service restart"
        refusal = await refused(app)
        assert (refusal.status, refusal.code) == (503, "draining")
        assert int(refusal.headers["retry-after"]) > 0
        await draining


async def test_a_broker_that_is_down_is_said_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: Any, **kwargs: Any) -> Any:
        raise BrokerDown("no answer")

    async with running() as app:
        for method in ("subscribe", "memberships", "presence_join", "history", "claim"):
            with monkeypatch.context() as patch:
                patch.setattr(app.broker, method, fail)
                resume = "last" if method == "claim" else cursor("all")
                refusal = await refused(app, cursor=resume, groups="news")
                assert (refusal.status, refusal.code) == (503, "broker_down")
                assert int(refusal.headers["retry-after"]) > 0
            await eventually(lambda: not app.hub.audiences)
            assert not app.hub.connections
        async with connected(app):
            pass


# Nasty


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /ws-notifications/?client=alice HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws-notifications/?client=alice HTTP/1.1\r\n\r\n",
        b"GET /ws-notifications/?client=alice HTTP/1.1\r\nHost: a b\r\n\r\n",
        handshake("Host: localhost"),
        handshake("Content-Length: x"),
        handshake("Content-Length: 99999999"),
        handshake("X: " + "x" * 80_000),
        handshake(target="/ws-notifications/?client=alice&x=" + "x" * 80_000),
        b"\r\n" * 10_000,
        b"\x00" * 80_000,
    ],
    ids=lambda request: request[:24],
)
async def test_what_is_hardly_http_is_answered_in_the_same_words(request_: bytes) -> None:
    async with running() as app, connected(app, client="bystander") as bystander:
        answer = await raw(app, request_)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        code = {400: "bad_request", 431: "headers_too_large"}[status]
        assert json.loads(body)["error"]["code"] == code
        assert app.metrics.handshakes[code,] == 1
        assert app.hub.connections == 1
        assert (await bystander.ask(type="ping", id=1))["type"] == "pong"


async def test_who_sends_its_headers_too_slowly_is_cut() -> None:
    async with running(SERVER__HEADER_TIMEOUT_S=1) as app, connected(app, client="bystander") as bystander:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        request, sent, answer = handshake(*["X: y"] * 50), 0, b""

        async def drip() -> bool:
            """Some bytes now and then, which would take ten seconds."""
            nonlocal sent, answer
            writer.write(request[sent : sent + 1])
            sent += 1
            with contextlib.suppress(TimeoutError):
                answer += await asyncio.wait_for(reader.read(1000), 0.01)
            return reader.at_eof()

        await eventually(drip, 8)
        assert sent < len(request)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"too_slow"' in answer
        writer.close()
        assert (await bystander.ask(type="ping", id=1))["type"] == "pong"


async def test_who_goes_before_it_is_let_in_leaves_nothing_behind() -> None:
    """The broker takes its time, and the peer does not wait."""
    async with running() as app:
        entered, gate = asyncio.Event(), asyncio.Event()
        subscribe = app.broker.subscribe

        async def late(stream: str) -> Position:
            entered.set()
            await gate.wait()
            return await subscribe(stream)

        app.broker.subscribe = late  # type: ignore[method-assign]
        _, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        writer.write(handshake())
        await asyncio.wait_for(entered.wait(), scaled(5))
        writer.transport.abort()
        gate.set()
        await eventually(lambda: not app.hub.connections and not app.hub.audiences)
        assert app.metrics.open_connections == 0
        assert await app.gateway.connections("alice") == []


async def test_who_is_disconnected_before_it_is_let_in_may_come_back() -> None:
    async with running() as app:
        presence_join = app.broker.presence_join

        async def late(info: Any) -> None:
            await app.gateway.disconnect("alice", None)
            await presence_join(info)

        app.broker.presence_join = late  # type: ignore[method-assign]
        async with Peer(app.public_port, client="alice") as alice:
            assert await alice.ended() == 4501
        app.broker.presence_join = presence_join  # type: ignore[method-assign]
        await eventually(lambda: not app.hub.audiences)
        assert await app.gateway.connections("alice") == []
        async with connected(app):
            pass


async def test_what_was_pushed_before_a_disconnection_of_the_same_turn_arrives_before_the_end() -> None:
    async with running() as app, connected(app) as alice:
        await app.gateway.push([Publication("client:alice", b"1"), Publication("all", b"2")])
        await app.gateway.disconnect("alice", None)
        await app.gateway.push([Publication("client:alice", b"3")])
        assert [event["data"] for event in await alice.events(2)] == [1, 2]
        assert await alice.ended() == 4501
