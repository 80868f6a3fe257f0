"""A node that follows streams in Redis: what it holds while it repairs, what it shares, what it is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.brokers.contract import Heard, info, push
from tests.brokers.nodes import Node, make, shorter, slow_beats
from tests.brokers.server import RedisServer
from tests.support import eventually
from tidegate.brokers.redis import pipeline, streams
from tidegate.brokers.redis.pipeline import Address, Pipeline
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Message, Position


async def test_what_comes_during_a_repair_and_is_too_much_to_hold_is_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "HELD_MESSAGES", 3)
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await node.broker.subscribe("group:a")
            read, has_read, go_on = node.broker.streams._read, asyncio.Event(), asyncio.Event()

            async def read_and_wait(*args: Any) -> Any:
                page = await read(*args)
                has_read.set()
                await go_on.wait()
                return page

            monkeypatch.setattr(node.broker.streams, "_read", read_and_wait)
            followed = node.broker.streams._followed["group:a"]
            await eventually(lambda: followed.held is None)
            node.broker.streams._repair(followed)
            await has_read.wait()
            await push(node.broker, "group:a", *[b"%d" % i for i in range(10)])
            await eventually(lambda: followed.overrun)
            assert node.heard.events == []
            go_on.set()
            await eventually(lambda: node.heard.offsets("group:a") == list(range(1, 11)))


async def test_messages_of_an_epoch_share_its_text():
    """What a trace remembers of each keeps its position; a text for each is a quarter more."""
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:
            await node.broker.subscribe("group:a")
            followed = node.broker.streams._followed["group:a"]
            await eventually(lambda: followed.held is None)
            for number in range(3):
                await push(node.broker, "group:a", b"%d" % number)
            await eventually(lambda: len(node.heard.offsets("group:a")) == 3)
            messages = [event for event in node.heard.of("group:a") if isinstance(event, Message)]
            assert all(message.epoch is messages[0].epoch for message in messages)


async def test_who_shares_a_read_that_is_given_up_is_told(monkeypatch: pytest.MonkeyPatch):
    with RedisServer() as server:
        async with Node(server, "n1", timing=slow_beats()) as node:

            async def never(*args: Any) -> Any:
                await asyncio.Event().wait()

            monkeypatch.setattr(node.broker.streams, "_read", never)
            ask = [
                asyncio.ensure_future(  # noqa: TID251 - held here, awaited below
                    node.broker.history("group:a", Position("e", 0), messages=10, size=100)
                )
                for _ in range(2)
            ]
            await asyncio.sleep(0)
            ask[0].cancel()
            with pytest.raises(BrokerDown, match="given up"):
                await ask[1]
            with pytest.raises(asyncio.CancelledError):
                await ask[0]


async def test_a_user_who_may_not_subscribe_is_refused():
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "weak", "on", ">word", "~*", "resetchannels", "+@all")
        broker = make(
            f"redis://weak:word@127.0.0.1:{server.port}/0", "n1", timing=shorter(start_s=0.6, operation_s=0.6)
        )
        with pytest.raises(BrokerDown):
            await broker.start(Heard(), info("n1"))


async def test_a_link_on_which_too_much_waits_takes_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "COMMANDS_WAITING", 2)
    with RedisServer() as server:
        link = Pipeline(await Address(server.url).connect(2.0), 5.0)
        answers = [link.call("PING"), link.call("PING")]
        with pytest.raises(BrokerDown, match="too slow"):
            link.call("PING")
        assert [await answer for answer in answers] == [b"PONG", b"PONG"]
        assert await link.call("PING") == b"PONG"
        link.end("enough")
