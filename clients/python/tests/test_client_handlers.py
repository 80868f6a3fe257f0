"""Handlers of the asyncio client, over real sockets: functions for messages, listeners, and a state to load."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.client_support import push, scripted
from tests.support import Logs, eventually
from tidegate_client import (
    AnswerTimeout,
    FileStorage,
    Message,
)

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
