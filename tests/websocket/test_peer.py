"""What a peer's frames mean, between its wire and the gateway."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.peer import PING, TEXT, Peer, frame
from tests.service_fixture import running
from tests.support import eventually
from tests.tokens import SECRET, make_token
from tidegate.app import App
from tidegate.core.model import Position, Publication


async def push(app: App, data: bytes) -> None:
    [position] = await app.gateway.push([Publication("client:alice", data)])
    assert isinstance(position, Position)


async def test_text_heartbeats_are_answered_in_their_own_letters_and_answers_by_nothing() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        for text in ("ping", "pong", "Ping", "Pong", "ping"):
            alice.send_text(text)
        assert [await alice.raw() for _ in range(3)] == [b"pong", b"Pong", b"pong"]
        assert (await alice.ask(type="ping", id=1))["type"] == "pong", "and nothing else came before it"


async def test_control_pings_are_answered_by_control_pongs_with_their_payload() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        alice.send_raw(frame(PING, b"one") + frame(PING, b""))
        await eventually(lambda: alice.pongs == [b"one", b""])


@pytest.mark.parametrize("text", ["PING", "pingg", "pin", '"ping"', ""])
async def test_what_only_looks_like_a_heartbeat_is_not_understood(text: str) -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        alice.send_text(text)
        answer = await alice.event()
        assert (answer["type"], answer["id"], answer["code"]) == ("error", None, "bad_request")
        assert (await alice.ask(type="ping", id=1))["type"] == "pong"


async def test_ten_commands_that_are_not_understood_within_a_minute_are_enough() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        for number in range(9):
            answer = await alice.ask(type="dance", id=number)
            assert (answer["type"], answer["code"]) == ("error", "unknown_command")
        assert (await alice.ask(type="join", id=9, group="news"))["type"] == "reply"
        alice.send_text("{")
        assert await alice.ended() == 4500


async def test_binary_is_refused_with_1003() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        alice.send_raw(frame(2, b"{}"))
        assert await alice.ended() == 1003


async def test_nothing_of_a_stream_follows_our_close_frame() -> None:
    async with running() as app, Peer(app.public_port, client="alice", answer_close=False) as alice:
        await alice.event()
        await push(app, b'"before"')
        assert (await alice.event())["data"] == "before"
        alice.send_raw(frame(TEXT, b"not masked", mask=None))
        await eventually(lambda: alice.close_code)
        assert app.metrics.open_connections == 1, "it has not ended yet"
        await push(app, b'"after"')
        assert await alice.ended() == 1002
        assert alice.pending() == 1, "the end, and no message"


async def test_a_connection_that_is_closing_is_not_present_any_more() -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups="news", answer_close=False) as alice:
        await alice.event()
        alice.send_raw(frame(TEXT, b"not masked", mask=None))
        await eventually(lambda: alice.close_code)
        hub: Any = app.hub
        assert not hub.clients.get("alice")
        assert not list(hub.sessions())


# Tokens end

JWT = {
    "AUTH__MODE": "jwt",
    "AUTH__KEY": SECRET,
    "AUTH__EXPIRING_S": "1",
    "AUTH__LEEWAY_S": "0",
    "HEARTBEAT__WEBSOCKET_PING_INTERVAL": "2",  # ticks of 0.1 s
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "4",
}


async def test_the_end_of_a_token_is_announced_once_and_then_closes_with_4009() -> None:
    async with running(**JWT) as app:
        end_s = time.time() + 1.6
        async with Peer(app.public_port, token=make_token(exp=end_s)) as alice:
            await alice.event()
            assert await alice.event() == {"type": "expiring", "seconds": 1}
            assert end_s - 1 <= time.time() < end_s
            assert await alice.ended() == 4009
            assert time.time() >= end_s
            assert alice.pending() == 1, "the end, and no second announcement"


async def test_a_new_token_carries_on_and_its_end_is_announced_too() -> None:
    async with running(**JWT) as app:
        first_s = time.time() + 0.8
        async with Peer(app.public_port, token=make_token(exp=first_s)) as alice:
            assert (await alice.events(2))[1]["type"] == "expiring"
            end_s = first_s + 1
            answer = await alice.ask(type="refresh", id=1, token=make_token(exp=end_s))
            assert (answer["type"], answer["expires"]) == ("reply", int(end_s))
            assert (await alice.event())["type"] == "expiring"
            assert await alice.ended() == 4009
            assert time.time() >= end_s


async def test_a_connection_ends_its_leeway_after_its_token_as_a_handshake_would_be_refused() -> None:
    async with running(**{**JWT, "AUTH__LEEWAY_S": "2"}) as app:
        end_s = time.time() - 0.5  # over, but within the leeway
        async with Peer(app.public_port, token=make_token(exp=end_s)) as alice:
            assert (await alice.event())["type"] == "welcome"
            assert await alice.ended() == 4009
            assert time.time() >= end_s + 2


async def test_a_new_token_that_ends_sooner_is_noticed_before_the_next_ping() -> None:
    slow = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": "20", "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "40"}
    async with running(**{**JWT, **slow}) as app:
        async with Peer(app.public_port, token=make_token(exp=time.time() + 600)) as alice:
            await alice.event()
            await alice.ask(type="refresh", id=1, token=make_token(exp=time.time() + 1))
            assert await alice.ended() == 4009
