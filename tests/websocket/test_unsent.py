"""All outboxes together: what is counted, when nobody is let in, and who goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support import Logs
from tests.wires import Line
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.metrics import Metrics
from tidegate.turn import WriteBatch
from tidegate.websocket.unsent import SHORT_S, Unsent, own_bytes
from tidegate.websocket.wire import WireState

KIB = 1024
SMALL = 8192  # of kernel buffers
HEADER = 4  # of a frame of some KiB


class SlowLink:
    def __init__(self, unsent: int) -> None:
        self.unsent = unsent

    def overflow(self) -> None:
        self.unsent = 0


class Scene:
    """Sockets that take nothing, and what is found of them."""

    def __init__(self, lines: Callable[..., Line]) -> None:
        self._lines = lines
        self.batch = WriteBatch(asyncio.get_running_loop().call_soon)
        self.links: list[SlowLink] = []
        self.metrics = Metrics()
        self.short: list[bool] = []
        self.now_s = 100.0
        self.unsent = Unsent(
            1000 * KIB,
            self.batch.blocked,
            lambda: self.links,
            self.metrics,
            self.short.append,
            clock=lambda: self.now_s,
        )

    async def slow(self, size: int, *, closes: bool = True) -> Line:
        """So many bytes wait for it. ``closes``: its policy is to close it."""
        line = self._lines(self.batch, buffers=SMALL, outbox_bytes=2**21)
        if closes:
            line.heard.on_slow_do = lambda: line.wire.close(CloseCode.SLOW_CONSUMER)
        while not line.wire.stalled_since:
            line.put(bytes(SMALL))
            await asyncio.sleep(0)
        while line.wire.size < size - 10 * KIB:
            line.put(bytes(10 * KIB))
        line.put(bytes(size - line.wire.size - HEADER))
        assert line.wire.size == size
        return line


def closed(*lines: Line) -> list[bool]:
    return [line.wire.state is not WireState.OPEN for line in lines]


async def test_little_is_counted_and_nobody_hears_of_it(lines: Callable[..., Line]) -> None:
    scene = Scene(lines)
    few = [await scene.slow(100 * KIB) for _ in range(5)]
    scene.unsent.look()
    assert scene.unsent.bytes == 500 * KIB
    assert scene.short == []
    assert not any(closed(*few))
    assert [line.heard.slow for line in few] == [0] * 5


async def test_what_waits_for_many_counts_once(lines: Callable[..., Line]) -> None:
    scene = Scene(lines)
    frame = frames.text(bytes(100 * KIB))
    few = [await scene.slow(15 * KIB) for _ in range(40)]
    for line in few:
        line.wire.put(frame)
    assert sum(line.wire.size for line in few) > 4000 * KIB
    assert own_bytes(few[0].wire) < 20 * KIB
    scene.unsent.look()
    assert not any(closed(*few))
    assert scene.unsent.bytes < 1000 * KIB


async def test_over_three_quarters_nobody_is_let_in_until_it_is_less(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    few = [await scene.slow(100 * KIB) for _ in range(9)]
    scene.unsent.look()
    assert scene.short == [True]
    assert not any(closed(*few))
    for line in few[:4]:
        line.wire.abort()
    scene.unsent.look()
    assert scene.short == [True, False]


async def test_over_the_most_those_go_of_whom_most_waits(lines: Callable[..., Line], expected_logs: Logs) -> None:
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("outboxes.overflowed")
    large = [await scene.slow(300 * KIB) for _ in range(2)]
    small = [await scene.slow(60 * KIB) for _ in range(10)]
    scene.unsent.look()
    assert closed(*large) == [True, True]
    assert not any(closed(*small))
    assert scene.metrics.unsent_ended["connection",] == 2
    scene.unsent.look()
    assert scene.short == [True, False]


async def test_those_go_whose_end_makes_room(lines: Callable[..., Line], expected_logs: Logs) -> None:
    """Not those who wait for a message to many."""
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("outboxes.overflowed")
    hoarders = [await scene.slow(240 * KIB) for _ in range(4)]
    others = [await scene.slow(15 * KIB) for _ in range(3)]
    broadcast = frames.text(bytes(500 * KIB))
    for line in others:
        line.wire.put(broadcast)
    scene.unsent.look()
    assert sum(closed(*hoarders)) == 3
    assert not any(closed(*others))


async def test_who_may_read_on_from_the_journal_is_closed_only_if_that_does_not_help(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("outboxes.overflowed")
    patient = await scene.slow(700 * KIB, closes=False)
    other = await scene.slow(200 * KIB, closes=False)
    hasty = [await scene.slow(60 * KIB) for _ in range(4)]
    scene.unsent.look()
    assert (patient.heard.slow, other.heard.slow) == (1, 1)
    assert closed(patient, other) == [False, False]
    assert all(closed(*hasty))
    scene.now_s += SHORT_S
    scene.unsent.look()
    assert closed(patient, other) == [True, False]  # what was left was still short


async def test_a_node_does_not_stay_short_for_as_long_as_some_like(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    expected_logs.expect("outboxes.overflowed")
    few = [await scene.slow(100 * KIB) for _ in range(9)]
    scene.unsent.look()
    scene.now_s += SHORT_S - 1
    scene.unsent.look()
    assert not any(closed(*few))
    scene.now_s += 1
    scene.unsent.look()
    assert 1 <= sum(closed(*few)) <= 3
    scene.unsent.look()
    assert scene.short == [True, False]


async def test_trunks_count_and_the_fullest_goes_where_they_hold_more_than_half(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    scene = Scene(lines)
    expected_logs.expect("outboxes.short")
    few = [await scene.slow(100 * KIB) for _ in range(3)]
    scene.links = [SlowLink(200 * KIB), SlowLink(550 * KIB)]
    scene.unsent.look()
    assert [link.unsent for link in scene.links] == [200 * KIB, 0]
    assert not any(closed(*few))
    assert scene.metrics.unsent_ended["trunk",] == 1
