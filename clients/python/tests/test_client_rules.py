"""What the client knows of the protocol, and does no I/O: cursors, delays, what an event is."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from tests.client_machine import VECTORS
from tests.support import eventually
from tidegate_client.client import back_off, cursor, timing
from tidegate_client.client.back_off import BackOff
from tidegate_client.client.connection import parsed
from tidegate_client.client.model import Position


def plain(positions: dict[str, Position]) -> dict[str, list[Any]]:
    return {stream: list(at) for stream, at in positions.items()}


# Cursors


@pytest.mark.parametrize("vector", VECTORS["cursors"])
def test_cursors_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    positions = {stream: Position(*at) for stream, at in vector["positions"].items()}
    assert cursor.encode(positions) == vector["cursor"]
    if vector["cursor"] is not None:
        assert plain(cursor.decode(vector["cursor"])) == vector["positions"]


@pytest.mark.parametrize("text", VECTORS["not_cursors"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        cursor.decode(text)


def test_what_fits_makes_a_cursor_that_is_not_too_long() -> None:
    for length in range(1, 128, 7):
        positions = [(f"group:{'g' * length}-{n}", Position("e" * (1 + n % 64), 10**n)) for n in range(15)] * 9
        fitting = cursor.fit(positions)
        assert 0 < len(cursor.encode(fitting) or "") <= cursor.MAX_CHARS


# Coming back


@pytest.mark.parametrize("vector", VECTORS["closes"])
def test_close_codes_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    plan = back_off.after_close(vector["code"])
    assert plan.reason.again is vector["again"]
    assert plan.reason.code == vector["code"]
    assert plan.token is (vector.get("first") == "token")
    if vector["again"]:
        # After 4009 the first one is made at once, the next ones grow.
        assert plan.delay == ("none" if vector["code"] == 4009 else vector["delay"])


@pytest.mark.parametrize("vector", VECTORS["refusals"])
def test_refusals_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    plan = back_off.after_status(vector["status"])
    assert plan.reason.again is vector["again"]
    assert plan.token is (vector.get("first") == "token")
    if vector["again"]:
        assert plan.delay == vector["delay"]


def test_delays_stay_within_their_bounds() -> None:
    for _ in range(50):
        growing = BackOff(0.5, 30.0)
        for longest_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
            assert 0 <= growing.delay_s("growing") <= longest_s
        growing.rest()
        assert growing.delay_s("growing") <= 0.5
        assert 30 <= growing.delay_s("longer") <= 60
        assert 4 <= growing.delay_s("retry-after", 4.0) <= 6
        assert BackOff(0.5, 30).delay_s("random") <= 5
        assert BackOff(0.5, 30).delay_s("none") == 0.0


def test_delays_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def longest(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", longest)
    off = BackOff(0.5, 30)
    off.delay_s("random")
    off.delay_s("random")
    off.delay_s("retry-after", None)
    assert asked == [(0, 5.0), (0, 5.0), (0, 2.0)]


# What comes


@pytest.mark.parametrize(
    ("text", "event"),
    [("pong", None), ("[1]", None), ("{", None), ('{"type":"x"}', {"type": "x"}), ("[" * 100_000, None)],
)  # fmt: skip
def test_what_is_no_event_is_passed_over(text: str, event: Any) -> None:
    assert parsed(text) == event


def test_an_integer_of_any_length_is_data() -> None:
    event = parsed('{"data":' + "9" * 6000 + "}")
    assert event is not None
    assert event["data"].bit_length() == 19932


# Timers


async def test_a_timer_that_comes_late_judges_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LATE_S", 0.1)
    told: list[str] = []
    timing.Deadline(0.05, lambda: told.append("dead"), late=lambda: told.append("late"))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - the whole program stands still
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == ["late"]
    await eventually(lambda: told == ["late", "dead"])


async def test_a_timer_lets_the_loop_read_before_it_judges() -> None:
    told: list[str] = []
    deadline = timing.Deadline(0.05, lambda: told.append("dead"))
    await asyncio.sleep(0.01)
    time.sleep(0.08)  # noqa: ASYNC251 - it is due, and the answer may be in the socket
    for _ in range(3):
        await asyncio.sleep(0)
    deadline.cancel()
    await asyncio.sleep(0.1)
    assert told == []
