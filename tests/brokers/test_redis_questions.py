"""What a node asks of all others, and who is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from tests.brokers.contract import connection
from tests.brokers.nodes import Node
from tests.brokers.server import RedisServer
from tests.support import eventually
from tidegate.brokers.contract import NodeChange
from tidegate.brokers.redis import questions
from tidegate.core.model import ConnectionInfo


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


class Neighbour:
    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.nodes: list[tuple[str, NodeChange]] = []
        self.lost: list[ConnectionInfo] = []

    async def on_question(self, question: bytes) -> bytes:
        self.asked.append(question)
        if self.answer is None:
            raise msgspec.ValidationError("not understood")
        return self.answer

    def on_node(self, node: str, what: NodeChange) -> None:
        self.nodes.append((node, what))

    def on_lost(self, info: ConnectionInfo) -> None:
        self.lost.append(info)


def met(node: Node, answer: bytes | None) -> Neighbour:
    neighbour = Neighbour(answer)
    node.broker.meet(neighbour)
    return neighbour


async def test_all_others_are_asked_and_who_does_not_answer_is_named(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three, four = (Node(server, f"n{number}", prefix="ask") for number in range(1, 5))
    asker, understands, does_not = met(one, b'"me"'), met(two, b'{"n":2}'), met(three, None)
    async with one, two:
        assert await one.broker.ask(b'{"a":1}') == {"n2": b'{"n":2}'}
        assert await two.broker.ask(b"2") == {"n1": b'"me"'}
        assert (asker.asked, understands.asked) == ([b"2"], [b'{"a":1}'])
        async with three, four:  # the fourth is as one of an earlier version
            await eventually(lambda: {"n3", "n4"} <= one.broker.membership.members.keys())
            monkeypatch.setattr(questions, "ANSWER_S", 0.3)
            answers = await asyncio.gather(*(one.broker.ask(b"3") for _ in range(5)))
            assert answers == [{"n2": b'{"n":2}', "n3": None, "n4": None}] * 5
            assert does_not.asked == [b"3"] * 5
            assert one.heard.orders == four.heard.orders == []


async def test_who_came_stopped_or_died_is_told_and_whom_it_left_behind(server: RedisServer) -> None:
    one, two, three = (Node(server, f"n{number}", prefix="come") for number in range(1, 4))
    neighbour = met(one, None)
    async with one:
        async with two:
            await eventually(lambda: ("n2", "came") in neighbour.nodes)
        await eventually(lambda: ("n2", "stopped") in neighbour.nodes)
        async with three:
            await three.broker.presence_join(connection("n3-1", "alice"))
            await eventually(lambda: ("n3", "came") in neighbour.nodes)
            await three.die()
            await eventually(lambda: ("n3", "died") in neighbour.nodes, 15)
            assert await one.broker.connections("alice") == []
            assert [info.connection for info in neighbour.lost] == ["n3-1"]
