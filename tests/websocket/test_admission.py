"""How fast handshakes are let in, and in which order, on a loop whose clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Logs
from tests.websocket.hand import HandLoop
from tidegate.config.settings import LimitsSettings
from tidegate.core.errors import BadRequest, Busy, Full, Refused
from tidegate.websocket.admission import Admission
from tidegate.websocket.lag import BEAT_S, BEATS, Lag

CROWDED, LAGS = "handshakes.refused", "loop.lagged"


class Door(HandLoop):
    """A loop with an admission on it. ``let_in``: who, and when. ``asks``: an application, which ``says`` in so many
    seconds whether who has had its turn is let in."""

    def __init__(self, rate: int = 100, wait_s: float = 5, room: int = 10**9, *, asks: bool = False) -> None:
        super().__init__()
        self.lag = Lag(0.25, lambda seconds: None)
        limits = LimitsSettings(handshakes_per_second=rate, handshake_wait_s=wait_s)
        self.room = room
        self.asks = asks
        self.says: Callable[[int], tuple[float, bool]] = lambda number: (0.0, True)
        self.admission = Admission(limits, self.lag, self.check_room, asks=asks)
        self.admission.start(cast(Any, self))
        self.let_in: list[tuple[int, float]] = []
        self.refused: dict[int, Refused] = {}
        self.gone: set[int] = set()
        self._number = 0

    def create_future(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    def check_room(self, waiting: int) -> None:
        if waiting + len(self.let_in) >= self.room:
            raise Full("no room")

    async def come(self, count: int = 1, *, tells: Callable[[], None] = lambda: None) -> list[asyncio.Task[None]]:
        """So many more. ``tells`` is what one says when it has its turn; it may raise."""
        tasks = []
        for _ in range(count):
            self._number += 1
            tasks.append(asyncio.create_task(self._knock(self._number, tells)))  # noqa: TID251 - awaited by the loop
        await settle()
        return tasks

    async def _knock(self, number: int, tells: Callable[[], None]) -> None:
        try:
            async with self.admission.turn(lambda: number in self.gone):
                tells()
                if self.asks:
                    await self._ask(number)
                async with self.admission.entry():
                    self.let_in.append((number, self.now_s))
        except Refused as error:
            self.refused[number] = error

    async def _ask(self, number: int) -> None:
        seconds, lets_in = self.says(number)
        answer = self.create_future()
        self.call_later(seconds, answer.set_result, None)
        await answer
        if not lets_in:
            raise BadRequest("no")

    async def passes(self, seconds: float, step_s: float = 0.005) -> None:
        for _ in range(round(seconds / step_s)):
            self.run(step_s)
            await settle()


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def most_in_a_second(let_in: list[tuple[int, float]]) -> int:
    """Of all seconds that begin with somebody."""
    times = [at_s for _, at_s in let_in]
    return max(sum(since <= at_s < since + 1 - 1e-6 for at_s in times) for since in times)


async def test_a_few_come_in_at_once_and_wait_for_nothing() -> None:
    door = Door(rate=100)
    await door.come(2)
    assert door.let_in == [(1, 1000.0), (2, 1000.0)]
    assert door.admission.waiting == 0


@pytest.mark.parametrize("rate", [1, 7, 50, 120, 1000])
async def test_a_crowd_comes_in_at_the_rate_and_in_order(rate: int) -> None:
    door = Door(rate=rate, wait_s=60)
    count = min(3 * rate, 600)
    await door.come(count)
    await door.passes(count / rate * 1.2 + 1)
    assert [number for number, _ in door.let_in] == list(range(1, count + 1))
    assert most_in_a_second(door.let_in) <= rate
    assert door.refused == {}
    late_s = door.let_in[-1][1] - 1000.0
    assert late_s <= count / rate * 1.2


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.01, 0.2, 1.1])), max_size=12))
def test_there_are_never_more_in_a_second_however_they_come(crowds: list[tuple[int, float]]) -> None:
    async def play() -> None:
        door = Door(rate=20, wait_s=60)
        for count, pause_s in crowds:
            await door.come(count)
            await door.passes(pause_s)
        await door.passes(20, step_s=0.05)
        assert len(door.let_in) == sum(count for count, _ in crowds)
        assert not door.let_in or most_in_a_second(door.let_in) <= 20

    asyncio.run(play())


async def test_nobody_waits_in_vain(expected_logs: Logs) -> None:
    expected_logs.expect(CROWDED)
    door = Door(rate=100, wait_s=1)
    await door.come(500)
    assert door.admission.waiting in range(97, 101)
    await door.passes(2)
    assert len(door.let_in) + len(door.refused) == 500
    assert len(door.let_in) == pytest.approx(102, abs=3)
    assert all(isinstance(error, Busy) for error in door.refused.values())


async def test_those_who_are_refused_are_told_to_come_back_one_after_the_other(expected_logs: Logs) -> None:
    expected_logs.expect(CROWDED)
    door = Door(rate=100, wait_s=1)
    await door.come(500)
    again = [error.retry_after_s or 0 for _, error in sorted(door.refused.items())]
    assert again == sorted(again)
    assert (again[0], again[-1]) == (2, 6)  # as many seconds as 500 take
    assert max(again.count(seconds) for seconds in set(again)) <= 100
    await door.passes(10)
    await door.come(1)
    assert len(door.refused) == len(again)


async def test_without_a_wait_a_crowd_is_refused_at_once(expected_logs: Logs) -> None:
    expected_logs.expect(CROWDED)
    door = Door(rate=100, wait_s=0)
    await door.come(5)
    assert (len(door.let_in), len(door.refused)) == (2, 3)


async def test_who_is_refused_for_what_it_says_takes_no_place() -> None:
    def bad_token() -> None:
        raise BadRequest("no")

    door = Door(rate=10)
    await door.come(200, tells=bad_token)
    await door.come(1)
    await door.passes(0.1)
    assert [number for number, _ in door.let_in] == [201]
    assert len(door.refused) == 200


async def test_who_is_refused_late_takes_no_place_and_nobody_comes_in_faster_for_it() -> None:
    """An application that takes a second to refuse: 20 of whom it refuses come in each, and then 100 others."""
    door = Door(rate=20, wait_s=60, asks=True)
    door.says = lambda number: (1.0, number > 100)
    for _ in range(5):
        await door.come(20)
        await door.passes(1)
    assert door.let_in == []
    begun_s = door.now_s
    await door.come(100)
    await door.passes(8)
    assert [number for number, _ in door.let_in] == list(range(101, 201))
    assert most_in_a_second(door.let_in) <= 20
    assert door.let_in[-1][1] - begun_s <= 1 + 100 / 20 * 1.2, "as long as without the others, and the question"


async def test_those_who_are_refused_late_hold_up_nobody_for_longer_than_they_would_have_had_to_wait_for() -> None:
    """100 of whom the application refuses each within a second stand before one whom it lets in."""
    door = Door(rate=20, wait_s=60, asks=True)
    door.says = lambda number: (1.0, number > 100)
    await door.come(101)
    await door.passes(5)
    ((number, at_s),) = door.let_in
    assert number == 101
    assert at_s - 1000.0 <= 1 + 100 / 20 * 0.8, "who was refused gives its turn to the next"


async def test_answers_that_come_at_once_let_nobody_in_at_once() -> None:
    door = Door(rate=20, wait_s=60, asks=True)
    door.says = lambda number: (1002.0 - door.now_s, True)  # it hangs until then
    await door.come(40)
    await door.passes(5)
    assert len(door.let_in) == 40
    assert most_in_a_second(door.let_in) <= 20
    assert door.admission.waiting == 0


async def test_who_goes_while_it_waits_is_passed_over() -> None:
    door = Door(rate=9)
    tasks = await door.come(4)
    tasks[1].cancel()
    await settle()
    await door.passes(0.25)
    assert [number for number, _ in door.let_in] == [1, 3, 4]


async def test_those_who_have_gone_leave_their_places_to_those_who_come() -> None:
    door = Door(rate=10, wait_s=3)
    await door.come(25)
    door.gone = set(range(8, 25))  # 25 waits behind them
    await door.passes(0.6)
    assert door.admission.waiting == 1
    await door.passes(0.2)
    assert [number for number, _ in door.let_in] == [1, 2, 3, 4, 5, 6, 7, 25]
    assert {str(error) for error in door.refused.values()} == {"the peer has gone"}
    assert sorted(door.refused) == sorted(door.gone)


async def test_nobody_is_refused_for_those_who_have_gone() -> None:
    door = Door(rate=1, wait_s=20, room=12)
    await door.come(12)
    door.gone = set(range(2, 13))
    await door.passes(0.6)
    await door.come(5)
    assert sorted(door.refused) == sorted(door.gone)
    await door.passes(6)
    assert [number for number, _ in door.let_in] == [1, 13, 14, 15, 16, 17]


async def test_where_there_is_no_room_for_those_who_wait_nobody_waits() -> None:
    door = Door(rate=10, room=5)
    await door.come(8)
    assert {type(error) for error in door.refused.values()} == {Full}
    await door.passes(2)
    assert len(door.let_in) == 5


async def test_who_moves_here_waits_for_nobody_and_others_wait_for_it() -> None:
    door = Door(rate=10)
    for _ in range(100):
        door.admission.moved()
    await door.come(1)
    assert door.let_in == []
    await door.passes(1.05)  # of a hundred no more than a second's are owed
    assert door.let_in == []
    await door.passes(0.1)
    assert len(door.let_in) == 1


async def test_a_node_that_stops_lets_those_who_wait_hear_it() -> None:
    door = Door(rate=10)
    await door.come(40)
    door.admission.end()
    await settle()
    assert len(door.let_in) == 40  # as far as this is concerned: the gateway refuses


# The loop lags


async def beat(door: Door, late_s: float, times: int = BEATS) -> None:
    for _ in range(times):
        door.hold_up(BEAT_S + late_s)
        await settle()


async def test_while_the_loop_lags_nobody_comes_in(expected_logs: Logs) -> None:
    expected_logs.expect(LAGS)
    door = Door(rate=1, wait_s=5)
    door.lag.start(cast(Any, door))
    await door.come(3)
    await beat(door, 0.3)
    assert door.lag.exceeds
    await beat(door, 0.3)
    assert [number for number, _ in door.let_in] == [1, 2]
    await door.come(1)
    assert [(number, error.code, error.status) for number, error in door.refused.items()] == [(4, "busy", 503)]
    assert door.refused[4].retry_after_s == 5
    await beat(door, 0.0, 2)
    assert door.lag.seconds == 0
    await door.passes(0.1)
    assert [number for number, _ in door.let_in] == [1, 2, 3]


async def test_who_waits_while_the_loop_lags_waits_no_longer_than_said(expected_logs: Logs) -> None:
    expected_logs.expect(LAGS)
    expected_logs.expect(CROWDED)
    door = Door(rate=1, wait_s=3)
    door.lag.start(cast(Any, door))
    await door.come(3)
    await beat(door, 0.3, 9)
    assert door.let_in[1:] == [(2, door.let_in[1][1])]
    assert sorted(door.refused) == [3]


async def test_one_long_turn_is_no_lag() -> None:
    door = Door()
    door.lag.start(cast(Any, door))
    await beat(door, 3.0, 1)
    await beat(door, 0.01)
    await beat(door, 3.0, BEATS - 1)
    assert not door.lag.exceeds
