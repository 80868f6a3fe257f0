"""Connections that are ended while they are admitted: they hear what ended them, not that the node is sick."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.handshakes import refused
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import eventually
from tidegate.app import App
from tidegate.core.errors import BrokerDown


@contextlib.asynccontextmanager
async def held(app: App, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """The broker's method waits, as for a Redis that takes its time, until the event is set."""
    goes_on = asyncio.Event()
    method: Callable[..., Awaitable[Any]] = getattr(app.broker, name)

    async def wait(*args: Any, **options: Any) -> Any:
        await goes_on.wait()
        return await method(*args, **options)

    monkeypatch.setattr(app.broker, name, wait)
    try:
        yield goes_on
    finally:
        goes_on.set()


async def ended(peer: Peer) -> tuple[int | None, list[Any]]:
    """Its close code, and the events before it."""
    code = await peer.ended()
    return code, peer.seen


@pytest.mark.parametrize("step", ["memberships", "claim", "subscribe", "presence_join"])
@pytest.mark.parametrize(("by", "code"), [("application", 4501), ("stop", 1012)])
async def test_who_is_ended_while_it_is_admitted_is_let_in_and_hears_why(
    step: str, by: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as app:
        async with held(app, step, monkeypatch) as goes_on:
            peer = Peer(app.public_port, client="alice", cursor="last")
            connecting = asyncio.ensure_future(peer.connect())  # noqa: TID251
            await eventually(lambda: app.hub.connections == 1)
            if by == "application":
                await app.gateway.disconnect("alice", None)
            else:
                await app.drain(0)
            goes_on.set()
            await connecting
            assert await ended(peer) == (code, [])
        await eventually(lambda: not app.metrics.open_connections)
        assert app.hub.connections == 0
        assert app.metrics.closes[str(code),] == 1
        assert not app.hub.audiences
        await peer.cut()


async def test_of_three_tabs_that_come_at_once_with_last_two_hear_that_another_took_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as app:
        peers = [Peer(app.public_port, client="alice", cursor="last") for _ in range(3)]
        async with held(app, "presence_join", monkeypatch) as goes_on:
            connecting = asyncio.gather(*(peer.connect() for peer in peers))
            await eventually(lambda: app.hub.connections == 1)  # two have been ended
            goes_on.set()
            await connecting
        codes = [await peer.ended() for peer in peers if not await is_welcome(peer)]
        assert codes == [4502, 4502]
        for peer in peers:
            await peer.cut()


async def is_welcome(peer: Peer) -> bool:
    await eventually(lambda: peer.seen or peer.close_code is not None or not peer._queue.empty())
    if peer.close_code is not None:
        return False
    return (await peer.event())["type"] == "welcome"


async def test_a_close_frame_that_gets_no_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.websocket.peer.CLOSE_S", 0.1)
    async with running() as app:
        async with held(app, "presence_join", monkeypatch) as goes_on:
            peer = Peer(app.public_port, client="alice", answer_close=False)
            connecting = asyncio.ensure_future(peer.connect())  # noqa: TID251
            await eventually(lambda: app.hub.connections == 1)
            await app.gateway.disconnect("alice", None)
            goes_on.set()
            await connecting
        await eventually(lambda: not app.metrics.open_connections)
        await peer.cut()


async def test_what_ended_it_counts_more_than_a_broker_that_is_lost_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as app:

        async def lost(*args: Any) -> None:
            await app.gateway.disconnect("alice", None)
            raise BrokerDown("gone")

        monkeypatch.setattr(app.broker, "presence_join", lost)
        async with Peer(app.public_port, client="alice") as peer:
            assert await ended(peer) == (4501, [])
        refusal = await refused(app, client="bob")
        assert (refusal.status, refusal.code) == (503, "broker_down")
