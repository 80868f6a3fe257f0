"""The promises hold for clients on a trunk, also while they go from one node to another, in any order of events."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from tests.core.test_promises import Promises, names
from tests.support import Logs
from tests.trunk.world import LinkedWorld
from tidegate.core.model import Position
from tidegate.gateway import replay as replay_module
from tidegate.gateway.moves import Moves, Resumed
from tidegate.trunk.link import Link
from tidegate.trunk.transport import LinkedTransport


class LinkedPromises(Promises):
    new_world = LinkedWorld
    world: LinkedWorld

    @rule(name=names, drained=st.booleans())
    def move(self, name: str, drained: bool) -> None:
        self.world.moving[name].move(drained=drained)


@pytest.fixture(autouse=True)
def tries_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "RETRY_S", 0)


def test_no_order_of_events_makes_a_silent_hole_a_repeat_or_a_second_welcome() -> None:
    run_state_machine_as_test(LinkedPromises, settings=settings(max_examples=100, stateful_step_count=40))


def test_what_failed_when_a_fault_ends_a_world_is_not_told_to_the_log() -> None:
    world = LinkedWorld()
    for client in world.clients.values():
        client.connect(["news"], with_cursor=False)
    world.calm()
    world.push("group:news", 1)
    world.calm()
    world.moving["alice"].move(drained=False)
    world.broker.failing = 1
    while world.broker.waiting:
        world.release()
    assert world.moving["alice"].resuming is not None
    assert not world.broker.failing
    world.end()
    del client, world
    gc.collect()  # now asyncio would tell it


hear = Link.hear
go_on = Moves.go_on


def one_is_lost(self: Link, stream: str, before: Position, after: Position, waiting: Any) -> None:
    if after.offset % 5:
        hear(self, stream, before, after, waiting)


def one_is_repeated(self: Link, stream: str, before: Position, after: Position, waiting: Any) -> None:
    hear(self, stream, before, after, waiting)
    if after.offset % 5 == 0:
        hear(self, stream, before, after, waiting)


def follows_too_early(self: LinkedTransport, stream: str, position: Position) -> None:
    follow(self, stream, Position(position.epoch, max(position.offset - 1, 0)))


def welcomed_again(self: Moves, resumed: Resumed) -> None:
    resumed.session.refused = ()
    self._gateway.welcome(resumed.session)


def behind_is_live(self: Moves, resumed: Resumed) -> None:
    resumed.cursor.clear()
    go_on(self, resumed)


follow = LinkedTransport.follow


@pytest.mark.parametrize(
    ("fault", "plant"),
    [
        ("a HEARD that is lost", (Link, "hear", one_is_lost)),
        ("one that is repeated", (Link, "hear", one_is_repeated)),
        ("a FOLLOW before its position", (LinkedTransport, "follow", follows_too_early)),
        ("no UNTRACK", (LinkedTransport, "untrack", lambda self, stream: None)),
        ("a second welcome", (Moves, "go_on", welcomed_again)),
        ("who moves told that all is new", (Moves, "go_on", behind_is_live)),
    ],
)
def test_a_planted_fault_is_found(fault: str, plant: tuple[object, str, object], expected_logs: Logs) -> None:
    expected_logs.allow("stream.hole_found")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*plant)
        with pytest.raises((AssertionError, ExceptionGroup)):
            run_state_machine_as_test(
                LinkedPromises,
                settings=settings(max_examples=1000, stateful_step_count=40, database=None, phases=[Phase.generate]),
            )
