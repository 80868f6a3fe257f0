"""The asyncio client over real sockets: what is Python's own. What all libraries share is played in tests/clients."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.client_support import connected, hears, push, scripted, welcome
from tests.clients.gateway import Gateway
from tests.support import ROOT, Logs, eventually
from tidegate_client import (
    AnswerTimeout,
    Client,
    Closed,
    CommandRefused,
    FileStorage,
    Gap,
    Joined,
    Left,
    Message,
    NotAllowed,
    NotJoined,
    UnknownOutcome,
)

# Entering and leaving


async def test_entering_waits_for_the_welcome_and_leaving_says_goodbye() -> None:
    async with Gateway() as gateway:

        async def answer() -> None:
            welcome(await gateway.connection(1, 5))

        answering = asyncio.get_running_loop().create_task(answer())
        async with Client(f"{gateway.url}?client=alice") as client:
            states = [client.state]
            assert client.client == "alice"
        assert [*states, client.state] == ["connected", "closed"]
        await answering
        connection = gateway.connections[0]
        await connection.gone.wait()
        assert connection.close_code == 1000


async def test_entering_raises_where_one_may_not_connect() -> None:
    async with Gateway() as gateway:

        async def answer() -> None:
            (await gateway.connection(1, 5)).refuse(403, "host_not_allowed", None)

        answering = asyncio.get_running_loop().create_task(answer())
        with pytest.raises(Closed, match=r"refused: host_not_allowed: said") as caught:
            async with Client(gateway.url):
                pass
        await answering
        assert caught.value.reason.code == 403


async def test_entering_may_be_given_up_and_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with Gateway() as gateway:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), Client(gateway.url):
                pass
        assert not asyncio.all_tasks() - before - gateway._tasks


def test_a_client_may_be_made_and_given_handlers_before_there_is_a_loop() -> None:
    async def main() -> list[int]:
        async with Gateway() as gateway:
            client._connector._url = Client(f"{gateway.url}?client=alice")._connector._url
            client.connect()
            connection = await gateway.connection(1, 5)
            welcome(connection)
            push(connection, "group:news", 1, 2)
            await eventually(lambda: len(told) == 2)
            await client.close()
            return told

    told: list[int] = []
    client = Client("ws://127.0.0.1:1/")
    client.group("news", lambda message: told.append(message.data))
    assert asyncio.run(main()) == [1, 2]


def test_a_url_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="begins with ws"):
        Client("localhost:8000")


async def test_who_gives_up_after_a_while_is_told_so(expected_logs: Logs) -> None:
    async with scripted(give_up_after_s=0.2) as (script, client):
        await script.gateway.stop()
        client.connect()
        with pytest.raises(Closed, match="unreachable"):
            await client.ready()


# Iterating


async def test_messages_come_one_by_one_and_are_done_when_the_next_is_asked_for(tmp_path: Path) -> None:
    async with scripted(storage=FileStorage(tmp_path)) as (script, client):
        news = client.group("news")
        client.connect()
        connection = await script.comes()
        push(connection, "group:news", 1, 2, 3)
        assert (await anext(news)).data == 1
        assert (await anext(news)).data == 2
        await client.disconnect()
        assert '"group:news":["e",1]' in (tmp_path / "tidegate.json").read_text()


async def test_iteration_ends_after_close_and_after_leave() -> None:
    async with connected() as (_, client, connection):
        news, chat = client.group("news"), client.group("chat")
        told: list[int] = []

        async def follow(subscription: Any) -> None:
            async for message in subscription:
                told.append(message.data)

        tasks = [asyncio.get_running_loop().create_task(follow(one)) for one in (news, chat)]
        await eventually(lambda: len(connection.commands) == 2)
        for command in connection.commands:
            stream = f"group:{command['group']}"
            connection.say(
                {"type": "reply", "id": command["id"], "stream": stream, "epoch": "e", "offset": 0, "top": 0}
            )
            push(connection, stream, 1)
        await eventually(lambda: told == [1, 1])
        news.leave()
        await tasks[0]
        assert not tasks[1].done()
        await client.close()
        await tasks[1]
        with pytest.raises(Closed):
            client.group("late")


async def test_iteration_raises_closed_after_what_was_queued() -> None:
    async with connected("news") as (_, client, connection):
        news = client._subscriptions["group:news"]
        push(connection, "group:news", 1, 2)
        connection.close(4501, "disconnected by the application")
        told = []
        try:
            async for message in news:
                told.append(message.data)
        except Closed as exc:
            told.append(exc.reason.word)
        assert told == [1, 2, "disconnected"]
        assert client.state == "closed"


async def test_a_plain_loop_is_told_when_the_group_is_ended_and_may_go_on() -> None:
    async with connected("news") as (_, client, connection):
        news = client._subscriptions["group:news"]
        connection.say({"type": "left", "stream": "group:news", "reason": "removed"})
        with pytest.raises(NotJoined, match="removed"):
            await anext(news)
        connection.say({"type": "joined", "stream": "group:news", "epoch": "e", "offset": 7, "top": 7})
        push(connection, "group:news", 8)
        assert (await anext(news)).offset == 8


async def test_a_gap_that_nobody_asked_for_is_logged(expected_logs: Logs) -> None:
    expected_logs.expect("messages 2 to 4 are missing .expired., and nobody listens to gaps")
    async with connected("news") as (_, client, connection):
        push(connection, "group:news", 1)
        connection.say({"type": "gap", "stream": "group:news", "epoch": "e", "from": 2, "to": 4, "reason": "expired"})
        push(connection, "group:news", 5)
        news = client._subscriptions["group:news"]
        assert [(await anext(news)).offset for _ in range(2)] == [1, 5]


async def test_a_plain_loop_passes_gaps_to_who_listens() -> None:
    gaps: list[Gap] = []
    async with scripted() as (script, client):
        news = client.group("news", on_gap=gaps.append)
        client.on("gap", gaps.append)
        client.connect()
        push(await script.comes(group_news=("e", 3)), "group:news", 5)
        assert (await anext(news)).offset == 5
    assert gaps == [Gap("group:news", "e", 4, 4, "hole")] * 2


async def test_events_gives_everything_in_its_place() -> None:
    async with connected("news") as (_, client, connection):
        push(connection, "group:news", 1)
        connection.say({"type": "gap", "stream": "group:news", "epoch": "e", "from": 2, "to": 4, "reason": "expired"})
        push(connection, "group:news", 5)
        connection.say({"type": "left", "stream": "group:news", "reason": "removed"})
        kinds = []
        async for item in client._subscriptions["group:news"].events():
            kinds.append(type(item))
            if isinstance(item, Left):
                break
        assert kinds == [Joined, Message, Gap, Message, Left]


async def test_who_is_cancelled_while_it_waits_loses_no_message() -> None:
    async with connected("news") as (_, client, connection):
        news = client._subscriptions["group:news"]
        told = []
        for offset in range(1, 40):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await anext(news)
                    pytest.fail("there was none")
            push(connection, "group:news", offset)
            told.append((await anext(news)).offset)
        assert told == list(range(1, 40))


async def test_two_tasks_may_not_share_an_iteration() -> None:
    async with connected("news") as (_, client, _connection):
        news = client._subscriptions["group:news"]
        first = asyncio.get_running_loop().create_task(anext(news))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await anext(news)
        first.cancel()


async def test_a_group_has_one_subscription_at_a_time() -> None:
    async with connected("news") as (_, client, connection):
        with pytest.raises(ValueError, match="already"):
            client.group("news")
        client.leave("news")
        client.group("news")
        with pytest.raises(ValueError, match="no name"):
            client.group("a b")
        command = await hears(connection, "leave")
        connection.say({"type": "reply", "id": command["id"], "stream": "group:news"})
        await hears(connection, "join")


# Handlers


async def test_handlers_of_one_stream_wait_for_each_other_and_for_nobody_else() -> None:
    told: list[str] = []
    free = asyncio.Event()

    async def slow(message: Message) -> None:
        told.append(f"{message.group} begins {message.data}")
        await free.wait()
        told.append(f"{message.group} ends {message.data}")

    async with scripted() as (script, client):
        client.group("slow", slow)
        client.group("quick", lambda message: told.append(f"quick {message.data}"))
        client.connect()
        connection = await script.comes()
        push(connection, "group:slow", 1, 2)
        push(connection, "group:quick", 1, 2)
        await eventually(lambda: "quick 2" in told)
        assert [line for line in told if "slow" in line] == ["slow begins 1"]
        free.set()
        await eventually(lambda: told[-1] == "slow ends 2")
        assert told[-4:] == ["slow begins 1", "slow ends 1", "slow begins 2", "slow ends 2"] or told.index(
            "slow ends 1"
        ) < told.index("slow begins 2")


async def test_a_handler_that_fails_or_whose_work_was_cancelled_has_dealt_with_its_message() -> None:
    told: list[int] = []
    errors: list[Exception] = []

    async def fail(message: Message) -> None:
        told.append(message.offset)
        if message.offset == 1:
            raise LookupError("no such thing")
        if message.offset == 2:
            other = asyncio.get_running_loop().create_task(asyncio.sleep(60))
            other.cancel()
            await other

    async with scripted() as (script, client):
        client.group("news", fail, on_error=errors.append)
        client.connect()
        push(await script.comes(), "group:news", 1, 2, 3)
        await eventually(lambda: told == [1, 2, 3])
    assert [type(error) for error in errors] == [LookupError, RuntimeError]


async def test_an_error_that_nobody_takes_is_logged(expected_logs: Logs) -> None:
    expected_logs.expect("a handler of group:news failed")

    def fail(message: Message) -> None:
        raise LookupError("no such thing")

    async with scripted() as (script, client):
        client.group("news", fail)
        client.connect()
        push(await script.comes(), "group:news", 1)
        await eventually(lambda: expected_logs.records)


@pytest.mark.parametrize("todo", ["close", "disconnect", "leave", "publish"])
async def test_a_handler_may_do_anything(todo: str) -> None:
    told: list[int] = []
    done = asyncio.Event()

    async def handle(message: Message) -> None:
        told.append(message.offset)
        match todo:
            case "close":
                await client.close()
            case "disconnect":
                await client.disconnect()
            case "leave":
                news.leave()
            case "publish":
                with contextlib.suppress(AnswerTimeout):
                    await news.publish(1)
        done.set()

    async with scripted(answer_timeout_s=0.1) as (script, client):
        news = client.group("news", handle)
        client.connect()
        push(await script.comes(), "group:news", 1, 2)
        async with asyncio.timeout(2):
            await done.wait()
        if todo in ("close", "leave"):
            await asyncio.sleep(0.05)
            assert told == [1]


async def test_a_handler_at_work_may_end_when_the_client_is_closed(tmp_path: Path) -> None:
    ended: list[int] = []
    begun = asyncio.Event()

    async def work(message: Message) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        ended.append(message.offset)

    async with scripted(storage=FileStorage(tmp_path)) as (script, client):
        client.group("news", work)
        client.connect()
        push(await script.comes(), "group:news", 1, 2)
        await begun.wait()
        await client.close()
        assert ended == [1]
        assert '"group:news":["e",1]' in (tmp_path / "tidegate.json").read_text()


async def test_the_state_is_set_before_it_is_told() -> None:
    seen: list[tuple[str, str]] = []
    async with scripted() as (script, client):
        client.on("state", lambda state, reason: seen.append((state, client.state)))
        off = client.on("state", lambda state, reason: seen.append(("off", "")))
        off()
        client.connect()
        connection = await script.comes()
        await client.ready()
        connection.reset()
        await script.comes()
        await client.ready()
    assert seen == [(state, state) for state in ("connecting", "connected", "connecting", "connected", "closed")]


async def test_what_a_listener_raises_ends_nothing() -> None:
    errors: list[Exception] = []

    def fail(state: str, reason: object) -> None:
        raise LookupError(state)

    async with scripted() as (script, client):
        client.on("state", fail)
        client.on("error", errors.append)
        client.connect()
        await script.comes()
        await client.ready()
    assert [str(error) for error in errors] == ["connecting", "connected", "closed"]


# State, then stream


async def test_state_is_loaded_in_the_loop_itself_and_again_after_a_gap() -> None:
    loads: list[int] = []

    async def load() -> dict[str, Any]:
        loads.append(len(loads))
        await asyncio.sleep(0.02)
        return {"position": {"epoch": "e", "offset": 6 if len(loads) == 1 else 9}}

    async with scripted() as (script, client):
        news = client.group("news", state=load)
        client.connect()
        connection = await script.comes(group_news=("e", 5))
        push(connection, "group:news", 6, 7)
        assert (await anext(news)).offset == 7
        connection.say({"type": "gap", "stream": "group:news", "epoch": "e", "from": 8, "to": 8, "reason": "expired"})
        push(connection, "group:news", 9, 10)
        assert (await anext(news)).offset == 10
        assert loads == [0, 1]


async def test_a_loop_that_is_cancelled_while_it_loads_loads_again() -> None:
    loads: list[int] = []

    async def load() -> None:
        loads.append(1)
        if len(loads) == 1:
            await asyncio.sleep(60)

    async with scripted() as (script, client):
        news = client.group("news", state=load)
        client.connect()
        push(await script.comes(), "group:news", 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(news)
        assert (await anext(news)).offset == 1
        assert len(loads) == 2


async def test_a_state_that_fails_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate_client.client.subscription._STATE_FIRST_S", 0.01)
    errors: list[Exception] = []
    loads: list[int] = []

    def load() -> None:
        loads.append(1)
        if len(loads) < 3:
            raise OSError("the database is away")

    async with scripted() as (script, client):
        news = client.group("news", state=load, on_error=errors.append)
        client.connect()
        push(await script.comes(), "group:news", 1)
        assert (await anext(news)).offset == 1
        assert len(errors) == 2


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


# A process of its own


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_program_ends_by_itself_and_without_a_word(loop: str) -> None:
    program = f"""
import asyncio, {loop}
from tidegate_client import Client

async def main(url):
    async with Client(url) as client:
        news = client.group("news")
        async for message in news:
            if message.data == 3:
                break
    print(sum(task is not asyncio.current_task() for task in asyncio.all_tasks()))

import sys
{loop}.run(main(sys.argv[1]))
"""
    async with Gateway() as gateway:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", "-c", program, f"{gateway.url}?client=alice",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT / "clients/python",
        )  # fmt: skip
        connection = await gateway.connection(1, 10)
        welcome(connection)
        command = await hears(connection, "join")
        reply = {"type": "reply", "id": command["id"], "stream": "group:news", "epoch": "e", "offset": 0, "top": 0}
        connection.say(reply)
        push(connection, "group:news", 1, 2, 3, 4)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"0\n", b"")
        assert connection.close_code == 1000
