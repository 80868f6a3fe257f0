"""Waits that are all equally long."""

from __future__ import annotations

import asyncio
import time

from tests.support import eventually
from tidegate.process.deadlines import LATE_S, Deadlines

SECONDS = 0.1


async def test_each_is_due_after_its_own_time_in_the_order_in_which_they_began() -> None:
    due: list[tuple[str, float]] = []
    deadlines: Deadlines[str] = Deadlines(SECONDS, lambda key: due.append((key, time.monotonic())))
    began_s: dict[str, float] = {}
    for key in ("a", "b", "c"):
        began_s[key] = time.monotonic()
        deadlines.begin(key)
        await asyncio.sleep(SECONDS / 3)
    await eventually(lambda: len(due) == 3)
    assert [key for key, _ in due] == ["a", "b", "c"]
    assert all(at_s - began_s[key] >= SECONDS - 0.01 for key, at_s in due)


async def test_what_ended_before_is_never_due_and_the_next_is() -> None:
    due: list[str] = []
    deadlines = Deadlines(SECONDS, due.append)
    deadlines.begin("ended")
    deadlines.begin("left")
    deadlines.end("ended")
    assert len(deadlines) == 1
    await eventually(lambda: due)
    deadlines.begin("later")  # also when nothing was watched any more
    await eventually(lambda: len(due) == 2)
    assert due == ["left", "later"]


async def test_who_was_held_up_itself_gives_all_a_second_more() -> None:
    due: list[str] = []
    deadlines = Deadlines(SECONDS, due.append)
    deadlines.begin("a")
    time.sleep(SECONDS + LATE_S + 0.1)  # noqa: ASYNC251 - the loop is what is held up
    await asyncio.sleep(0.05)
    assert due == []
    await eventually(lambda: due == ["a"])


async def test_after_a_stop_nothing_is_due() -> None:
    due: list[str] = []
    deadlines = Deadlines(SECONDS, due.append)
    deadlines.begin("a")
    deadlines.stop()
    await asyncio.sleep(2 * SECONDS)
    assert due == []
