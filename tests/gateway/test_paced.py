"""Who sends more than a connection may is read more slowly; a neighbour notices nothing, and nothing is lost."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.peer import PING, PONG, TEXT, Peer, frame
from tests.service_fixture import running
from tests.support import Logs, eventually
from tests.trunk.worker import linked
from tidegate.websocket.wire import PACED

FEW: dict[str, Any] = {"LIMITS__MESSAGES_PER_SECOND": 20}
LITTLE: dict[str, Any] = {"LIMITS__BYTES_PER_SECOND": 20_000}


@pytest.mark.parametrize(
    ("settings", "sent", "what"),
    [
        (FEW, frame(TEXT, b"ping") * 400, "messages"),
        (FEW, frame(PING, b"p") * 400, "messages"),
        (FEW, frame(PONG, b"p") * 400, "messages"),
        (FEW, frame(TEXT, b"p", fin=False) + frame(0, fin=False) * 400, "messages"),
        (LITTLE, frame(TEXT, b'{"type":"ping","id":1}'.ljust(60_000)) * 4, "bytes"),
        (LITTLE, frame(TEXT, b"x" * 120_000, fin=False), "bytes"),
    ],
    ids=["texts", "pings", "pongs", "fragments", "large messages", "a message that does not end"],
)
async def test_who_sends_too_much_is_not_read_for_a_while(settings: dict[str, Any], sent: bytes, what: str) -> None:
    async with (
        running(**settings) as app,
        Peer(app.public_port, client="mallory") as mallory,
        Peer(app.public_port, client="alice") as alice,
    ):
        await mallory.event()
        await alice.event()
        mallory.send_raw(sent)
        await eventually(lambda: app.metrics.paced[what,])
        (session,) = app.hub.of_client("mallory")
        wire: Any = session.wire
        assert wire.paused & PACED
        for number in range(20):
            begun_s = monotonic()
            assert (await alice.ask(type="ping", id=number))["type"] == "pong"
            assert monotonic() - begun_s < 1
        assert not app.metrics.closes.total()
        await app.gateway.disconnect("mallory", None)
        assert await mallory.ended() == 4501
        await eventually(lambda: app.metrics.open_connections == 1)


async def test_what_it_sent_is_taken_later_and_nothing_is_lost() -> None:
    async with running(LIMITS__MESSAGES_PER_SECOND=100) as app, Peer(app.public_port, client="mallory") as mallory:
        await mallory.event()
        begun_s = monotonic()
        for number in range(550):
            mallory.send(type="ping", id=number)
        assert [(await mallory.event())["id"] for _ in range(550)] == list(range(550))
        assert monotonic() - begun_s > 0.4
        assert app.metrics.paced["messages",] >= 2


async def test_who_is_not_read_is_not_taken_for_dead_and_may_be_closed() -> None:
    settings: dict[str, Any] = {
        "LIMITS__MESSAGES_PER_SECOND": 1,
        "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 0.1,
        "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 0.2,
    }
    async with running(**settings) as app, Peer(app.public_port, client="mallory", pong=False) as mallory:
        await mallory.event()
        mallory.send_raw(frame(PONG) * 8)
        await eventually(lambda: app.metrics.paced["messages",])
        await eventually(lambda: len(mallory.pings) >= 5)  # for longer than its silence would be borne
        assert mallory.close_code is None
        await app.gateway.disconnect("mallory", None)
        assert await mallory.ended() == 4501
        await eventually(lambda: not app.metrics.open_connections)


async def test_on_a_trunk_its_edge_is_told_to_read_no_more_of_it(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(TRUNK__SOCKET=path, **FEW) as app, linked(path) as worker:
        mallory, _ = await worker.welcome("client=mallory")
        alice, _ = await worker.welcome("client=alice")
        for _ in range(110):
            mallory.says("ping")
        await eventually(lambda: not mallory.reading)
        assert app.metrics.paced["messages",] == 1
        assert alice.reading
        alice.says({"type": "ping", "id": 1})
        assert (await alice.gets("pong"))["id"] == 1
        await eventually(lambda: mallory.reading)
        mallory.says({"type": "ping", "id": 2})
        await eventually(lambda: mallory.done == 111)
        for client in (mallory, alice):
            client.gone()
        await eventually(lambda: not app.metrics.open_connections)


async def test_who_sends_too_much_again_and_again_is_named_in_the_log(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.websocket.peer.FLOOD_PAUSES", 3)
    expected_logs.expect("connection.flooding")
    async with running(LIMITS__MESSAGES_PER_SECOND=1000) as app, Peer(app.public_port, client="mallory") as mallory:
        await mallory.event()
        mallory.send_raw(frame(PONG) * 6000)
        await eventually(lambda: expected_logs.seen("connection.flooding"))
        (record,) = expected_logs.seen("connection.flooding")
        assert "mallory" in str(vars(record))
        assert "messages per second" in str(vars(record))
        await app.gateway.disconnect("mallory", None)
        await eventually(lambda: not app.metrics.open_connections)
