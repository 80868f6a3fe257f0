from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.journal import MESSAGE_OVERHEAD, Journal
from tidegate.core.model import Gap, History, Position

ALL_OF_IT = {"messages": 1000, "size": 1 << 20}


def journal_of(count: int, *, kept: int = 1000) -> Journal:
    """Messages 1 to ``count``, whose data is their offset."""
    journal = Journal("group:news", "e1")
    for n in range(1, count + 1):
        journal.append(b"%d" % n, now_ms=n * 1000)
    journal.trim(kept, -1)
    return journal


def offsets(history: History) -> list[int]:
    return [message.offset for message in history.messages]


def test_offsets_are_dense_and_start_at_1() -> None:
    journal = Journal("group:news", "e1")
    assert journal.position == Position("e1", 0)
    first = journal.append(b'{"n":1}', 5000)
    second = journal.append(b"2", 4000, "bob")  # the clock stepped back
    assert (first.offset, first.time_ms, first.data, first.client) == (1, 5000, b'{"n":1}', None)
    assert (second.offset, second.time_ms, second.client) == (2, 4000, "bob")
    assert (second.stream, second.epoch) == ("group:news", "e1")
    assert journal.position == Position("e1", 2)


@pytest.mark.parametrize(
    ("since", "expected"), [(0, [1, 2, 3, 4, 5]), (2, [3, 4, 5]), (4, [5]), (5, [])], ids=lambda value: str(value)
)
def test_what_follows_a_position_follows_without_a_hole(since: int, expected: list[int]) -> None:
    history = journal_of(5).since(Position("e1", since), **ALL_OF_IT)
    assert history.start == Position("e1", since)
    assert offsets(history) == expected
    assert (history.top, history.gap, history.complete) == (5, None, True)


def test_without_a_position_it_begins_at_the_oldest_and_that_is_no_gap() -> None:
    history = journal_of(5, kept=2).since(None, **ALL_OF_IT)
    assert history.start == Position("e1", 3)
    assert offsets(history) == [4, 5]
    assert history.gap is None


def test_a_position_before_the_oldest_meets_an_expired_gap() -> None:
    history = journal_of(9, kept=3).since(Position("e1", 2), **ALL_OF_IT)
    assert history.gap == Gap("group:news", "e1", 3, 6, "expired")
    assert history.start == Position("e1", 6)
    assert offsets(history) == [7, 8, 9]


def test_a_position_right_before_the_oldest_meets_none() -> None:
    history = journal_of(9, kept=3).since(Position("e1", 6), **ALL_OF_IT)
    assert history.gap is None
    assert offsets(history) == [7, 8, 9]


@pytest.mark.parametrize("since", [Position("e0", 2), Position("e0", 0), Position("e1", 10)], ids=str)
def test_a_position_of_another_epoch_or_above_the_top_meets_a_reset(since: Position) -> None:
    history = journal_of(9, kept=3).since(since, **ALL_OF_IT)
    assert history.gap == Gap("group:news", "e1", None, 6, "reset")
    assert offsets(history) == [7, 8, 9]


def test_the_top_is_continued_also_when_nothing_is_kept() -> None:
    journal = journal_of(9, kept=0)
    assert journal.since(Position("e1", 9), **ALL_OF_IT).gap is None
    assert journal.since(Position("e1", 8), **ALL_OF_IT).gap == Gap("group:news", "e1", 9, 9, "expired")


def test_an_empty_stream_continues_offset_0() -> None:
    history = Journal("all", "e1").since(Position("e1", 0), **ALL_OF_IT)
    assert (history.start, history.top, history.messages, history.gap) == (Position("e1", 0), 0, [], None)


def test_pages_are_cut_by_count_and_by_size_but_hold_one_message_at_least() -> None:
    journal = journal_of(9)
    assert offsets(journal.since(Position("e1", 0), messages=4, size=1000)) == [1, 2, 3, 4]
    assert offsets(journal.since(Position("e1", 0), messages=1000, size=3)) == [1, 2, 3]
    page = journal.since(Position("e1", 4), messages=1000, size=0)
    assert offsets(page) == [5]
    assert page.end == Position("e1", 5)
    assert not page.complete


def test_trimming_forgets_by_count_and_by_age_and_keeps_the_top() -> None:
    journal = journal_of(9)
    journal.trim(1000, 4000)
    assert offsets(journal.since(None, **ALL_OF_IT)) == [4, 5, 6, 7, 8, 9]
    journal.trim(2, 4000)
    assert offsets(journal.since(None, **ALL_OF_IT)) == [8, 9]
    journal.trim(2, 1e9)
    assert offsets(journal.since(None, **ALL_OF_IT)) == []
    assert journal.position == Position("e1", 9)


def test_a_clock_that_stepped_back_forgets_nothing_from_the_middle() -> None:
    journal = Journal("all", "e1")
    for now_ms in (9000, 1000, 9000):
        journal.append(b"1", now_ms)
    journal.trim(1000, 5000)
    assert offsets(journal.since(None, **ALL_OF_IT)) == [1, 2, 3]


def test_what_it_costs_is_counted() -> None:
    journal = Journal("all", "e1")
    journal.append(b"12345", 0)
    journal.append(b"1", 0)
    assert journal.size == 6 + 2 * MESSAGE_OVERHEAD
    journal.trim(1, -1)
    assert journal.size == 1 + MESSAGE_OVERHEAD
    journal.clear()
    assert journal.size == 0
    assert journal.position == Position("e1", 2)


@given(
    pushed=st.integers(0, 30),
    kept=st.integers(0, 30),
    since=st.none() | st.integers(0, 35),
    messages=st.integers(1, 10),
    size=st.integers(0, 40),
)
def test_reading_page_after_page_gives_everything_kept_once_and_names_what_is_lost(
    pushed: int, kept: int, since: int | None, messages: int, size: int
) -> None:
    journal = journal_of(pushed, kept=kept)
    position = None if since is None else Position("e1", since)
    got: list[int] = []
    lost: list[int] = []
    while True:
        page = journal.since(position, messages, size)
        if page.gap is not None:
            assert not got, "only the first page may have a gap"
            lost = [] if page.gap.first is None else list(range(page.gap.first, page.gap.last + 1))
        got += offsets(page)
        position = page.end
        if page.complete:
            break
    if since is None or since > pushed:
        assert got == list(range(max(0, pushed - kept) + 1, pushed + 1))
    else:
        assert lost + got == list(range(since + 1, pushed + 1))
    assert journal.since(position, messages, size).messages == []
