"""What a node remembers is bounded, and what is kept of a message is little."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest

from tests.core.transcript import new_session
from tidegate.core import frames, protocol
from tidegate.core.errors import CloseCode, NotAllowed
from tidegate.core.hub import Audience, Hub, HubListener
from tidegate.core.model import Gap, Message, Position
from tidegate.core.session import Session
from tidegate.gateway import traced
from tidegate.gateway.traced import Traced
from tidegate.trace import REFUSALS, THINNED_AT_ONCE, Ring, Step, Trace, unsent_of


def trace(**changes: int) -> Trace:
    sizes = {"messages": 100, "steps": 100} | changes
    return Trace(**sizes, wall=lambda: 5.0)


def test_a_ring_is_full_by_what_its_steps_name() -> None:
    kept = trace(steps=30)
    starts = {f"group:g{number}": Position("e1", number) for number in range(9)}
    for number in range(5):
        kept.resumed(new_session(f"c{number}", number), starts)
    assert [step.connection for step in kept.connections] == ["n1-2", "n1-3", "n1-4"]
    assert kept.connections.since_ms == 5001, "and it says from when on it remembers all"


def test_who_joins_and_leaves_all_the_time_pushes_out_nobody_who_came() -> None:
    kept = trace(steps=10)
    kept.connected(new_session("alice"))
    mallory = new_session("mallory", 2)
    mallory.follow(Audience("group:a", Position("e1", 1)), None)
    for _ in range(100):
        kept.joined(mallory, "group:a")
        kept.left(mallory, "group:a", "by itself", Position("e1", 1))
        kept.join_refused(mallory, "x" * 1000, NotAllowed("y" * 1000))
    assert [step.client for step in kept.connections] == ["alice"]
    assert 5 <= len(list(kept.streams)) <= 10
    assert all(step.stream in (None, "group:a") for step in kept.streams), "a name that is none is not kept"


def test_a_flood_pushes_out_its_own_before_what_others_did() -> None:
    kept = trace(steps=1000)
    alice, mallory = new_session("alice", 1), new_session("mallory", 2)
    for session in (alice, mallory):
        session.follow(Audience("group:a", Position("e1", 1)), None)
    kept.joined(alice, "group:a")
    kept.gap(None, Gap("group:a", "e1", 1, 2, "expired"))
    kept.refused(NotAllowed("no"), "alice", "10.0.0.7")
    for _ in range(20_000):
        kept.joined(mallory, "group:a")
        kept.refused(NotAllowed("no"), "alice", "10.6.6.6")
    assert [step.client for step in kept.streams][:2] == ["alice", None]
    assert 500 <= len(kept.streams) <= 1000
    assert next(step.address for step in kept.refusals) == "10.0.0.7"
    assert kept.since_of("alice") == 5000, "of her nothing is missing"
    assert kept.since_of("mallory") == 5001
    for number in range(2000):
        kept.joined(_in_a(f"c{number}"), "group:a")
    assert {step.client for step in kept.streams}.isdisjoint({"alice", "mallory"})
    assert kept.since_of("mallory") == kept.since_of("alice") == 5001
    assert len(kept.streams._held) == 1000, "nothing is kept of those whose steps have gone"


def _in_a(client: str) -> Session:
    session = new_session(client)
    session.follow(Audience("group:a", Position("e1", 1)), None)
    return session


def test_a_flood_is_thinned_in_parts() -> None:
    """However large the ring: no step that is added costs more than some of it looked at."""
    sources = count()
    ring = Ring(20_000, 0, lambda step: (next(sources), step.client)[1])
    most = 0
    for number in range(60_000):
        before = next(sources)
        ring.add(Step(time_ms=number, kind="joined", client="mallory" if number % 3 else f"c{number % 99}"))
        most = max(most, next(sources) - before)
        assert len(ring) <= 20_000 + 20
    assert most < 2 * THINNED_AT_ONCE + 50  # those that go are looked at again
    steps = list(ring)
    assert [step.time_ms for step in steps] == sorted(step.time_ms for step in steps), "in their order all the while"
    assert next(step for step in steps if step.client != "mallory").time_ms < 60_000 - 20_000, "others' last longer"


async def test_what_went_out_is_gone_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = count(0.0, traced.SLICE_S / 4)  # what one of them takes
    monkeypatch.setattr(traced, "time", SimpleNamespace(monotonic=lambda: next(looked)))
    kept = trace()
    kept.fanned.extend(("group:b", Position("e1", number), 1, 1) for number in range(100))
    asked = Traced(kept, Hub(cast(HubListener, None), lambda call: None), "n1")
    for answer in (asked.heard("group:a", Position("e1", 1)), asked.place("group:a")):
        assert sum(1 for _ in answer.__await__()) >= 100 // 5


def test_refused_handshakes_are_bounded_too() -> None:
    kept = trace()
    for number in range(REFUSALS + 5):
        kept.refused(NotAllowed("z" * 1000), "alice", f"10.0.{number % 9}.7")
    assert len(list(kept.refusals)) == REFUSALS
    assert {len(str(step.message)) for step in kept.refusals} == {300}


async def test_a_message_is_found_among_those_of_its_turn_with_the_time_of_the_turn() -> None:
    kept = trace()
    kept.fanned.append(("group:a", Position("e1", 3), 3, 7))
    kept.fanned.append(("group:b", Position("e1", 9), 1, 1))
    kept.fanned.append(1000.0)
    kept.fanned.append(("group:a", Position("e1", 4), 1, 8))
    kept.fanned.append(2000.0)
    asked = Traced(kept, Hub(cast(HubListener, None), lambda call: None), "n1")
    found = await asked.heard("group:a", Position("e1", 1))
    assert found is not None
    assert (found.time_ms, found.followers) == (1000, 7)
    newest = await asked.heard("group:a", Position("e1", 4))
    assert newest is not None
    assert (newest.time_ms, newest.followers) == (2000, 8)
    assert await asked.heard("group:a", Position("e2", 1)) is None
    assert await asked.heard("group:a", Position("e1", 5)) is None


def test_of_the_frames_that_wait_the_first_message_of_each_stream_is_found() -> None:
    def message(stream: str, offset: int, data: bytes = b'"x"', client: str | None = None) -> bytes:
        return frames.text(protocol.encode_message(Message(stream, "e1", offset, 0, data, client)))

    gap = frames.text(protocol.encode_gap(Gap("group:a", "e1", 1, 2, "expired")))
    large = message("group:b", 7, b'"' + b"x" * 70_000 + b'"', "bob")
    waiting = [message("group:a", 2)[20:], gap, message("group:a", 3), large, message("group:a", 4)]
    assert unsent_of(waiting, ["group:a", "group:b", "all"]) == {
        "group:a": Position("e1", 3),
        "group:b": Position("e1", 7),
    }
    assert unsent_of(waiting, ["group:b"]) == {"group:b": Position("e1", 7)}
    many = [message("group:a", offset, b'"all"') for offset in range(3000)]
    assert unsent_of([*many, message("group:b", 7)], ["all", "group:a", "group:b"]) == {
        "group:a": Position("e1", 0),
        "group:b": Position("e1", 7),
    }, "behind however many of another stream"


def test_a_question_leaves_the_loop_its_turns_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = count(0.0, traced.SLICE_S / 4)  # what one step or connection takes
    monkeypatch.setattr(traced, "time", SimpleNamespace(monotonic=lambda: next(looked)))
    kept = trace()
    for _ in range(40):
        kept.node("n2", "came")
    asked = Traced(kept, Hub(cast(HubListener, None), lambda call: None), "n1")
    answer = asked.answer(traced.Question("message", 10, stream="group:a", epoch="e1", offset=1))
    assert sum(1 for _ in answer.__await__()) >= 40 // 5


def test_what_is_switched_off_keeps_nothing() -> None:
    kept = trace(messages=0, steps=0)
    session = new_session()
    session.welcomed = True
    kept.connected(session)
    kept.ended(session, CloseCode.DISCONNECTED)
    kept.closed(session, 4501, answered=True)
    kept.refused(NotAllowed("no"), None, None)
    kept.node("n2", "died")
    kept.fanned.append(1.0)
    assert list(kept.steps()) == []
    assert not kept.fanned
