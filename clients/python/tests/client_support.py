"""A scripted gateway for one client, and what a test says to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.clients.gateway import Connection, Gateway
from tests.support import eventually
from tidegate_client import Client


class Script:
    """``comes`` gives the connections in their order."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.url = f"{gateway.url}?client=alice"
        self._seen = 0

    async def comes(self, **streams: Any) -> Connection:
        """The next one, welcomed, if streams are given or not: ``group_news=("e", 5)`` changes where it stands."""
        connection = await self.knocks()
        welcome(connection, **streams)
        return connection

    async def knocks(self) -> Connection:
        """The next one, unanswered."""
        self._seen += 1
        return await self.gateway.connection(self._seen, 5)

    async def nobody_comes(self, for_s: float = 0.1) -> None:
        await asyncio.sleep(for_s)
        assert len(self.gateway.connections) == self._seen


def welcome(connection: Connection, limits: dict[str, int] | None = None, **streams: Any) -> None:
    states: dict[str, Any] = {
        name: {"epoch": at[0], "offset": at[1], "top": at[1], "recovered": True, "missed": 0}
        for name, at in connection.positions.items()
    }
    for name in ["client:alice", "all", *(f"group:{group}" for group in connection.groups)]:
        states.setdefault(name, {"epoch": "e", "offset": 0, "top": 0})
    for key, at in streams.items():
        name = key.replace("_", ":")
        if at is None:
            states.pop(name, None)
        else:
            states[name] = {"epoch": at[0], "offset": at[1], "top": at[1]}
    if not connection.accepted:
        connection.accept()
    head = {"type": "welcome", "client": "alice", "connection": "n1-1", "node": "n1"}
    rest = {"ping_interval": 30, "ping_timeout": 60, "limits": limits or {}, "streams": states}
    connection.say(head | rest)


def push(connection: Connection, stream: str, *offsets: int, epoch: str = "e") -> None:
    for offset in offsets:
        connection.say(
            {"type": "message", "stream": stream, "epoch": epoch, "offset": offset, "time": 1, "data": offset}
        )


async def hears(connection: Connection, kind: str) -> dict[str, Any]:
    """The next command, which is of this kind."""
    await eventually(lambda: connection.commands)
    command = connection.commands.pop(0)
    assert command["type"] == kind, command
    return command


@contextlib.asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[tuple[Script, Client]]:
    """A gateway, and a client that was told nothing yet; both are gone at the end, and no task is left."""
    before = asyncio.all_tasks()
    async with Gateway() as gateway:
        script = Script(gateway)
        options = {"backoff_s": (0.01, 0.05)} | options
        client = Client(script.url, **options)
        try:
            yield script, client
        finally:
            async with asyncio.timeout(5):
                await client.close()
            ours = asyncio.all_tasks() - before - gateway._tasks
            assert not ours, ours


@contextlib.asynccontextmanager
async def connected(*groups: str, **options: Any) -> AsyncIterator[tuple[Script, Client, Connection]]:
    async with scripted(**options) as (script, client):
        for group in groups:
            client.group(group)
        client.connect()
        connection = await script.comes()
        async with asyncio.timeout(5):
            await client.ready()
        yield script, client, connection
