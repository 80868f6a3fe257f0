"""A hole that the broker left without a word: clients hear of it, and so do those who run the node."""

from __future__ import annotations

import pytest

from tests.peer import Peer
from tests.service_fixture import running
from tests.support import Logs
from tidegate.app import App
from tidegate.core.model import Gap, Message, Position


def counted(app: App) -> list[float | None]:
    """Holes, gaps that the broker announced, gaps of single connections."""
    names = ("tidegate_holes_total", "tidegate_broker_gaps_total", "tidegate_gaps_total")
    return [app.metrics.registry.get_sample_value(name) for name in names]


@pytest.mark.parametrize(("epoch", "reason"), [(None, "expired"), ("another", "reset")])
async def test_a_hole_that_the_broker_left_is_an_error_and_counted(
    expected_logs: Logs, epoch: str | None, reason: str
) -> None:
    expected_logs.expect("stream.hole_found")
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        told = (await alice.event())["streams"]["group:news"]["epoch"]
        app.gateway.on_message(Message("group:news", epoch or told, 4, 0, b"1"))
        gap, message = await alice.events(2)
        assert (gap["type"], gap["reason"], gap["to"], message["offset"]) == ("gap", reason, 3, 4)
        assert len(expected_logs.seen("stream.hole_found")) == 1
        assert counted(app) == [1, 0, 0]


async def test_a_gap_that_the_broker_announces_is_no_fault() -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        told = (await alice.event())["streams"]["group:news"]["epoch"]
        app.gateway.on_gap(Gap("group:news", told, 1, 3, "expired"), Position(told, 3))
        assert (await alice.event())["to"] == 3
        assert counted(app) == [0, 1, 0]
