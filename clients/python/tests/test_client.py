"""The asyncio client over real sockets: what is Python's own. What all libraries share is played in tests/clients."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.client_support import connected, hears, push, scripted, welcome
from tests.clients.gateway import Gateway
from tests.support import ROOT, Logs, eventually
from tidegate_client import (
    Client,
    Closed,
    FileStorage,
    Gap,
    Joined,
    Left,
    Message,
    NotJoined,
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


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost/", "ws://", "ws://localhost:port/"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"no URL of a gateway|Port could not be cast"):
        Client(url)


async def test_an_option_that_is_none_is_said_in_the_log(expected_logs: Logs) -> None:
    expected_logs.expect("a connection failed")
    async with scripted(websocket_options={"colour": "blue"}) as (_, client):
        client.connect()
        await eventually(lambda: client.reason)
        assert client.reason is not None
        assert client.reason.word == "fault"


async def test_who_gives_up_after_a_while_is_told_so(expected_logs: Logs) -> None:
    async with scripted(give_up_after_s=0.2) as (script, client):
        await script.gateway.stop()
        client.connect()
        with pytest.raises(Closed, match="unreachable"):
            await client.ready()


async def test_of_two_who_listen_the_second_is_not_told_of_a_state_that_the_first_has_changed() -> None:
    async with scripted() as (script, client):
        told: list[str] = []
        client.on("state", lambda state, reason: client.connect() if state == "disconnected" else None)
        client.on("state", lambda state, reason: told.append(state))
        client.connect()
        await script.comes()
        await client.ready()
        await client.disconnect()
        await script.comes()
        await client.ready()
        assert told == ["connecting", "connected", "connecting", "connected"]


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


async def test_a_loop_that_ends_with_the_client_has_dealt_with_its_last_message(tmp_path: Path) -> None:
    async with scripted(storage=FileStorage(tmp_path)) as (script, client):
        told = []

        async def follow() -> None:
            async for message in client.group("news"):
                told.append(message.data)

        following = asyncio.get_running_loop().create_task(follow())
        await asyncio.sleep(0)
        client.connect()
        push(await script.comes(), "group:news", 1, 2)
        await eventually(lambda: told == [1, 2])
        await client.close()
        await following
        assert '"group:news":["e",2]' in (tmp_path / "tidegate.json").read_text()


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
        await connection.gone.wait()
        assert connection.close_code == 1000
