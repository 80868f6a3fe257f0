"""Readers that take nothing fill the memory of a node together: they go, and their neighbours notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.test_slow import flood
from tests.peer import Peer, Refusal
from tests.service_fixture import running
from tests.support import Logs, eventually
from tests.trunk.worker import linked
from tidegate.app import App
from tidegate.websocket import unsent

KIB = 1024
SMALL: dict[str, Any] = {"LIMITS__OUTBOX_BYTES": 512 * KIB, "LIMITS__ALL_OUTBOX_BYTES": 2048 * KIB}


async def fill(app: App, client: str, pieces: int) -> None:
    """So many pieces of 32 KiB that wait for nobody else."""
    await flood(app, f"client:{client}", pieces, 32 * KIB)


async def wait_in_memory(app: App, client: str) -> int:
    (session,) = app.hub.of_client(client)
    return session.wire.size


async def test_readers_that_take_nothing_go_before_a_node_is_full_of_what_waits_for_them(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "LOOK_S", 0.02)
    monkeypatch.setattr(unsent, "SHORT_S", 0.2)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("outboxes.overflowed")
    async with contextlib.AsyncExitStack() as stack:
        app = await stack.enter_async_context(running(**SMALL))
        alice = await stack.enter_async_context(Peer(app.public_port, client="alice"))
        await alice.event()
        mute = []
        for number in range(10):
            peer = Peer(app.public_port, client=f"m{number}", rcvbuf=4 * KIB, answer_close=False)
            mute.append(await stack.enter_async_context(peer))
            await peer.event()
            peer.reading.clear()
        for number in range(10):
            await fill(app, f"m{number}", 18)
        await eventually(lambda: app.metrics.unsent_ended["connection",])
        await eventually(lambda: not app.gateway.short)
        assert app.unsent.bytes <= 1536 * KIB
        await fill(app, "alice", 3)
        assert [(await alice.event())["offset"] for _ in range(3)] == [1, 2, 3]
        assert 0 < app.metrics.unsent_ended["connection",] < 10
        async with Peer(app.public_port, client="bob") as bob:
            assert (await bob.event())["type"] == "welcome"


async def test_while_too_much_waits_nobody_is_let_in(expected_logs: Logs) -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        app.gateway.short = True
        with pytest.raises(Refusal) as refused:
            async with Peer(app.public_port, client="bob"):
                pass
        assert (refused.value.status, refused.value.code) == (503, "full")
        assert "retry-after" in refused.value.headers
        assert not app.gateway.takes_handshakes  # an edge that asks goes elsewhere
        assert (await alice.ask(type="ping", id=1))["type"] == "pong"


async def test_a_trunk_that_is_not_read_counts_and_the_other_one_goes_on(
    tmp_path: Path, expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsent, "LOOK_S", 0.02)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("trunk.overflowed")
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path, **SMALL) as app, linked(path) as stuck, linked(path) as other:
        await stuck.welcome("client=mallory&groups=news")
        alice, _ = await other.welcome("client=alice&groups=news")
        stuck.transport.pause_reading()
        for _ in range(10):
            await flood(app, "group:news", 10, 32 * KIB)
            for _ in range(10):
                await alice.gets("message")
        await eventually(lambda: app.metrics.unsent_ended["trunk",])
        await eventually(lambda: len(app.hub.clients) == 1)
        await flood(app, "group:news", 1, 32 * KIB)
        assert (await alice.gets("message"))["offset"] == 101
        alice.gone()
        await eventually(lambda: not app.metrics.open_connections)
        await asyncio.sleep(0)
