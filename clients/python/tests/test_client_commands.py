"""Commands and tokens of the asyncio client, over real sockets."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from tests.client_support import connected, hears, scripted, welcome
from tests.support import Logs, eventually
from tidegate_client import (
    AnswerTimeout,
    Client,
    CommandRefused,
    Gap,
    Message,
    NotAllowed,
    UnknownOutcome,
)

# Commands


async def test_commands_give_what_the_gateway_answers() -> None:
    async with connected("news") as (_, client, connection):

        async def answered(kind: str, asking: Any, **reply: Any) -> Any:
            task = asyncio.get_running_loop().create_task(asking)
            command = await hears(connection, kind)
            connection.say({"type": "reply", "id": command["id"]} | reply)
            return await task

        published = await answered(
            "publish", client.publish("news", {"é": 1}), stream="group:news", epoch="e", offset=4
        )
        assert published.offset == 4
        answer = await answered("call", client.call("echo", [1]), status=201, data={"n": 1})
        assert (answer.status, answer.data) == (201, {"n": 1})
        presence = await answered(
            "presence", client.presence("news"), stream="group:news", clients=["alice"], connections=2, more=False
        )
        assert (presence.clients, presence.connections) == (["alice"], 2)
        history = await answered(
            "history", client.history("news", position=("e", 1), limit=5), stream="group:news", epoch="e", offset=1,
            top=3, messages=[{"offset": 2, "time": 9, "data": "a", "client": "bob"}], more=True,
            gap={"epoch": "e", "from": None, "to": 1, "reason": "reset"},
        )  # fmt: skip
        assert history.messages == [Message("group:news", "e", 2, 9, "a", "bob", True)]
        assert history.gap == Gap("group:news", "e", None, 1, "reset")
        assert history.more
        assert await answered("refresh", client.refresh("t2"), expires=99) == 99
        assert await client.ping() < 5


async def test_commands_that_fail_raise() -> None:
    async with connected(answer_timeout_s=0.2) as (_, client, connection):
        with pytest.raises(AnswerTimeout):
            await client.presence("news")
        asking = asyncio.get_running_loop().create_task(client.presence("news"))
        await hears(connection, "presence")
        command = await hears(connection, "presence")
        connection.say({"type": "error", "id": command["id"], "code": "not_allowed", "message": "no"})
        with pytest.raises(CommandRefused, match="not_allowed: no"):
            await asking
        with pytest.raises(CommandRefused, match="too_large"):
            await client.publish("news", "x" * 65_535)
        with pytest.raises(ValueError, match="JSON"):
            await client.publish("news", float("nan"))
        with pytest.raises(ValueError, match="surrogates"):
            await client.publish("news", "\ud83d")
        assert connection.commands == []


async def test_after_a_cut_a_call_is_unknown_and_a_publish_is_sent_again() -> None:
    async with connected() as (script, client, connection):
        loop = asyncio.get_running_loop()
        call, publish = loop.create_task(client.call("pay")), loop.create_task(client.publish("news", 1))
        await hears(connection, "call")
        first = await hears(connection, "publish")
        connection.reset()
        connection = await script.comes()
        with pytest.raises(UnknownOutcome):
            await call
        assert await hears(connection, "publish") == first
        connection.say({"type": "reply", "id": first["id"], "stream": "group:news", "epoch": "e", "offset": 4})
        assert (await publish).offset == 4


async def test_the_gateways_limits_are_kept() -> None:
    async with scripted() as (script, client):
        client.connect()
        welcome(await script.knocks(), limits={"data_bytes": 10, "message_bytes": 131_072})
        await client.ready()
        with pytest.raises(CommandRefused, match="data has 12 bytes; the limit is 10"):
            await client.publish("news", "x" * 10)


async def test_nothing_that_was_raised_is_never_retrieved(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with connected() as (_, client, connection):
            loop = asyncio.get_running_loop()
            asking = [loop.create_task(client.call("pay")) for _ in range(3)]
            await eventually(lambda: len(connection.commands) == 3)
            asking[0].cancel()
            closing = loop.create_task(client.close())
            await asyncio.sleep(0)
            asking[1].cancel()  # when its error is there already
            results = await asyncio.gather(*asking, return_exceptions=True)
            await closing
            assert isinstance(results[2], UnknownOutcome)
            del asking, results
        gc.collect()
    assert not caplog.records


# Tokens, and refusals that one can see


async def test_a_token_goes_where_no_log_finds_it_and_is_asked_for_again_after_401() -> None:
    tokens = iter(["t1", "t2", "t3"])
    async with scripted(token=lambda: next(tokens)) as (script, client):
        client.connect()
        first = await script.knocks()
        assert first.headers["authorization"] == "Bearer t1"
        assert "t1" not in first.target
        first.refuse(401, "unauthorized", None)
        (await script.knocks()).refuse(401, "unauthorized", None)
        reason = await client.wait_closed()
        assert (reason.word, reason.code) == ("unauthorized", 401)
        client.connect()
        third = await script.comes()
        assert third.headers["authorization"] == "Bearer t3"
        await client.ready()


async def test_who_may_not_is_told_so_and_not_asked_again() -> None:
    async def no() -> str:
        raise NotAllowed("logged out")

    async with scripted(token=no) as (script, client):
        client.connect()
        reason = await client.wait_closed()
        assert (reason.word, reason.message) == ("not_allowed", "logged out")
        await script.nobody_comes()


async def test_a_token_function_whose_work_was_cancelled_is_asked_again(expected_logs: Logs) -> None:
    expected_logs.expect("no token: the function raised RuntimeError")
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise asyncio.CancelledError
        return "t2"

    async with scripted(token=token) as (script, client):
        client.connect()
        assert (await script.comes()).tokens == ["t2"]


@pytest.mark.parametrize(
    ("status", "word", "again"),
    [(400, "refused", False), (404, "refused", False), (302, "refused", True), (502, "refused", True)],
)
async def test_refusals_end_or_are_tried_again(status: int, word: str, again: bool) -> None:
    async with scripted() as (script, client):
        client.connect()
        (await script.knocks()).refuse(status, "said", None)
        if again:
            await script.comes()
            await client.ready()
            assert client.reason is not None
            assert client.reason.code == status
        else:
            assert (await client.wait_closed()).word == word


async def test_a_token_does_not_follow_a_redirect() -> None:
    async def send_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 302 Found\r\nLocation: {script.url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        writer.close()

    server = await asyncio.start_server(send_away, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with scripted() as (script, _), server:
        client = Client(f"ws://127.0.0.1:{port}/", token="t1")
        client.connect()
        await eventually(lambda: client.reason)
        await script.nobody_comes()
        assert client.reason is not None
        assert (client.reason.word, client.reason.code) == ("refused", 302)
        await client.close()


async def test_retry_after_is_kept() -> None:
    async with scripted() as (script, client):
        client.connect()
        loop = asyncio.get_running_loop()
        (await script.knocks()).refuse(503, "draining", 1)
        began = loop.time()
        await script.knocks()
        assert 0.99 < loop.time() - began < 2.5


async def test_an_end_of_a_token_asks_for_one_new_one() -> None:
    tokens = iter(["t1", "t2"])
    async with scripted(token=lambda: next(tokens)) as (script, client):
        client.connect()
        connection = await script.comes()
        await client.ready()
        connection.say({"type": "expiring", "seconds": 60})
        connection.say({"type": "expiring", "seconds": 30})
        command = await hears(connection, "refresh")
        assert command["token"] == "t2"
        connection.say({"type": "reply", "id": command["id"], "expires": 1})
        await client.ping()
        assert connection.commands == []
