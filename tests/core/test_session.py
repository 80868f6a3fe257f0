"""A session's tracks, written like a transcript: what it is told, and what it then has queued."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.transcript import NEWS, line, message, new_session, told
from tidegate.core.model import Gap, History, Position
from tidegate.core.session import PAGE_BYTES, Confirmations, Session, TrackState


class Heard:
    """A stream as the hub heard it."""

    def __init__(self, offset: int, epoch: str = "e1", stream: str = NEWS) -> None:
        self.stream = stream
        self.position = Position(epoch, offset)


def page(start: int, *offsets: int, top: int, epoch: str = "e1", gap: Gap | None = None) -> History:
    return History(Position(epoch, start), top, [message(offset, epoch) for offset in offsets], gap)


def joining(since: int | None, heard: Heard, first: History | None = None, epoch: str = "e1") -> Session:
    """A session that follows the stream; ``first`` is the page that was read."""
    session = new_session()
    track = session.follow(heard, None if since is None else Position(epoch, since))
    track.page = first
    return session


def answered(session: Session) -> dict[str, Any]:
    """The answer, after which the first page is queued."""
    fields = session.join_fields(NEWS)
    session.queue_first_page(NEWS)
    return fields


# From now on


def test_without_a_position_delivery_starts_where_the_hub_is_when_it_is_answered() -> None:
    heard = Heard(4)
    session = joining(None, heard)
    session.hold(message(5))
    heard.position = Position("e1", 5)
    assert answered(session) == {"epoch": "e1", "offset": 5, "top": 5}
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == []
    assert NEWS not in session.tracks


def test_without_a_position_a_gap_before_the_answer_is_no_concern_of_it() -> None:
    heard = Heard(4)
    session = joining(None, heard)
    assert not session.interrupt(NEWS)
    heard.position = Position("e2", 1)
    assert answered(session) == {"epoch": "e2", "offset": 1, "top": 1}
    assert session.catch_up(NEWS, heard.position)


def test_where_there_was_no_record_to_continue_from_it_says_reset() -> None:
    session = joining(None, Heard(7))
    session.tracks[NEWS].reset = True
    assert answered(session) == {"epoch": "e1", "offset": 7, "top": 7, "recovered": False, "missed": 0}
    assert told(session) == [(None, 7, "reset")]


# From a position


def test_missed_messages_come_then_what_was_held_without_the_repeats() -> None:
    heard = Heard(6)
    session = joining(3, heard, page(3, 4, 5, 6, 7, top=7))
    for offset in (6, 7, 8, 9):
        session.hold(message(offset))
    heard.position = Position("e1", 9)
    assert answered(session) == {"epoch": "e1", "offset": 3, "top": 7, "recovered": True, "missed": 4}
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [4, 5, 6, 7, 8, 9]


def test_a_page_that_does_not_reach_the_top_waits_for_the_next() -> None:
    heard = Heard(9)
    session = joining(3, heard, page(3, 4, 5, top=9))
    answered(session)
    assert not session.catch_up(NEWS, heard.position)
    assert session.tracks[NEWS].state is TrackState.WAITING
    session.hold(message(10))  # the next page will have it
    heard.position = Position("e1", 10)
    assert session.start_reading(NEWS) == Position("e1", 5)
    session.hold(message(11))
    heard.position = Position("e1", 11)
    session.queue_page(NEWS, page(5, 6, 7, 8, 9, 10, top=10))
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_held_messages_are_never_queued_behind_a_hole() -> None:
    heard = Heard(9)
    session = joining(3, heard, page(3, 4, 5, top=9))
    session.hold(message(10))
    heard.position = Position("e1", 10)
    answered(session)
    assert not session.catch_up(NEWS, heard.position)
    assert told(session) == [4, 5]
    assert session.position(NEWS) == Position("e1", 5)


def test_a_page_may_be_ahead_of_the_hub_and_then_nothing_comes_twice() -> None:
    heard = Heard(5)
    session = joining(3, heard, page(3, 4, 5, 6, 7, top=7))
    answered(session)
    assert not session.catch_up(NEWS, heard.position)
    assert session.tracks[NEWS].state is TrackState.AHEAD
    heard.position = Position("e1", 6)
    assert session.hold(message(6))
    assert not session.catch_up(NEWS, heard.position)
    heard.position = Position("e1", 7)
    assert session.hold(message(7))
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [4, 5, 6, 7]


def test_a_page_of_an_epoch_that_the_hub_has_not_heard_of_waits_for_it() -> None:
    heard = Heard(5)
    gap = Gap(NEWS, "e2", None, 0, "reset")
    session = joining(5, heard, page(0, 1, 2, top=2, epoch="e2", gap=gap))
    assert answered(session) == {"epoch": "e2", "offset": 0, "top": 2, "recovered": False, "missed": 2}
    assert not session.catch_up(NEWS, heard.position)
    assert session.tracks[NEWS].state is TrackState.AHEAD
    assert session.interrupt(NEWS), "the hub hears of the new epoch: read again"
    assert session.tracks[NEWS].state is TrackState.WAITING
    assert told(session) == [(None, 0, "reset"), 1, 2]


def test_the_hubs_epoch_is_not_taken_for_that_of_the_page() -> None:
    """Messages held of another epoch, and offsets that would even fit."""
    heard = Heard(2)
    session = joining(2, heard, page(2, top=2))
    session.hold(message(3, epoch="e2"))
    heard.position = Position("e2", 3)
    answered(session)
    assert not session.catch_up(NEWS, heard.position)
    assert told(session) == []


def test_a_gap_while_a_page_is_read_makes_it_read_again() -> None:
    heard = Heard(5)
    session = joining(3, heard, page(3, 4, 5, top=5))
    session.hold(message(6))
    assert not session.interrupt(NEWS), "the reading under way goes on"
    heard.position = Position("e1", 8)
    session.hold(message(9))
    heard.position = Position("e1", 9)
    answered(session)
    assert not session.catch_up(NEWS, heard.position)
    assert session.tracks[NEWS].state is TrackState.WAITING
    assert told(session) == [4, 5]


def test_it_holds_a_page_at_most() -> None:
    session = joining(3, Heard(5), page(3, 4, 5, top=5))
    track = session.tracks[NEWS]
    for offset in range(6, 12):
        session.hold(message(offset, data=b'"%b"' % (b"x" * 60_000)))
        assert track.held_bytes <= PAGE_BYTES
    assert track.interrupted
    assert track.held == []


def test_what_expired_is_announced_before_what_is_still_there() -> None:
    gap = Gap(NEWS, "e1", 4, 6, "expired")
    session = joining(3, Heard(8), page(6, 7, 8, top=8, gap=gap))
    assert answered(session) == {"epoch": "e1", "offset": 3, "top": 8, "recovered": False, "missed": 2}
    assert session.catch_up(NEWS, Position("e1", 8))
    assert told(session) == [(4, 6, "expired"), 7, 8]


def test_a_live_stream_may_fall_back_to_its_journal() -> None:
    heard = Heard(5)
    session = joining(None, heard)
    answered(session)
    session.catch_up(NEWS, heard.position)
    session.fall_back(NEWS, latest=False)
    assert session.positions() == {NEWS: Position("e1", 5)}, "its peer may come back there"
    session.hold(message(6))
    heard.position = Position("e1", 6)
    assert session.position(NEWS) == Position("e1", 5)
    assert session.start_reading(NEWS) == Position("e1", 5)
    session.queue_page(NEWS, page(5, 6, top=6))
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [6]


@pytest.mark.parametrize("gap", [None, Gap(NEWS, "e1", 4, 5, "expired")])
def test_a_first_page_for_which_there_is_no_room_is_read_again_after_its_gap(gap: Gap | None) -> None:
    heard = Heard(7)
    session = joining(3, heard, page(5 if gap else 3, 6, 7, top=7, gap=gap))
    line(session).put(b"x" * line(session).limit)
    answered(session)
    line(session).clear()
    assert not session.catch_up(NEWS, heard.position)
    assert session.tracks[NEWS].state is TrackState.WAITING
    assert session.start_reading(NEWS) == Position("e1", 5 if gap else 3)


def test_what_stands_of_a_stream_that_is_replayed_is_how_far_it_is_and_the_top() -> None:
    heard = Heard(7)
    session = joining(3, heard, page(3, 4, top=7))
    answered(session)
    assert session.standing(NEWS) == {"epoch": "e1", "offset": 4, "top": 7}
    heard.position = Position("e1", 2)  # of a page that was newer than what was heard
    assert session.standing(NEWS) == {"epoch": "e1", "offset": 4, "top": 4}


# Anew


def live(heard: Heard) -> Session:
    session = joining(None, heard)
    answered(session)
    assert session.catch_up(NEWS, heard.position)
    return session


def test_a_live_stream_starts_anew_where_a_join_says() -> None:
    heard = Heard(6)
    session = live(heard)
    track = session.start_anew(NEWS, Position("e1", 3))
    session.hold(message(7))
    heard.position = Position("e1", 7)
    assert session.positions() == {NEWS: Position("e1", 6)}, "until it is answered"
    track.page = page(3, 4, 5, 6, top=6)
    assert session.join_fields(NEWS) == {"epoch": "e1", "offset": 3, "top": 6, "recovered": True, "missed": 3}
    assert session.position(NEWS) == Position("e1", 3), "with the answer, before the page"
    session.queue_first_page(NEWS)
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [4, 5, 6, 7]


def test_a_page_that_cannot_be_read_leaves_the_stream_where_it_was() -> None:
    heard = Heard(6)
    session = live(heard)
    session.start_anew(NEWS, Position("e1", 3)).state = TrackState.WAITING
    session.hold(message(7))
    heard.position = Position("e1", 7)
    assert session.start_reading(NEWS) == Position("e1", 6)
    session.queue_page(NEWS, page(6, 7, top=7))
    assert session.catch_up(NEWS, heard.position)
    assert told(session) == [7]


def test_a_position_behind_what_was_told_is_where_it_starts_too() -> None:
    session = live(Heard(6))
    session.start_anew(NEWS, Position("e1", 9)).page = page(9, 10, top=10)
    assert answered(session) == {"epoch": "e1", "offset": 9, "top": 10, "recovered": True, "missed": 1}
    assert told(session) == [10]
    assert not session.catch_up(NEWS, Position("e1", 6))
    assert session.tracks[NEWS].state is TrackState.AHEAD, "what the hub is still to hear has been told"


def test_a_stream_that_stands_in_another_epoch_has_the_top_of_its_own() -> None:
    session = joining(3, Heard(9), page(3, 4, top=4, epoch="e2", gap=Gap(NEWS, "e2", None, 3, "reset")))
    answered(session)
    assert session.standing(NEWS) == {"epoch": "e2", "offset": 4, "top": 4}


# What it follows


def test_positions_are_those_of_answered_streams() -> None:
    session = joining(3, Heard(8), page(3, 4, 5, top=8))
    assert session.positions() == {}
    answered(session)
    assert session.positions() == {NEWS: Position("e1", 5)}
    session.follow(Heard(2, stream="all"), None)
    assert session.positions() == {NEWS: Position("e1", 5)}
    session.unfollow(NEWS)
    assert session.positions() == {}


def test_groups_are_the_streams_but_its_own() -> None:
    session = new_session()
    for stream in ("client:alice", "all", NEWS, "group:chat"):
        session.follow(Heard(0, stream=stream), None)
    assert list(session.groups) == ["news", "chat"]
    assert session.group_count == 2


def test_nothing_is_queued_after_the_end() -> None:
    session = new_session()
    session.ended = True
    session.send(b"{}")
    assert line(session).frames == []


# What is known to have arrived


def at(offset: int) -> dict[str, Position]:
    return {"all": Position("e1", offset)}


def test_a_pong_confirms_its_ping_and_all_earlier_ones() -> None:
    confirmations = Confirmations(at(0))
    for n in (1, 2, 3):
        confirmations.sent(b"%d" % n, at(n * 10))
    assert confirmations.pong(b"2")
    assert confirmations.confirmed == at(20)
    assert not confirmations.pong(b"1"), "confirmed already"
    assert confirmations.confirmed == at(20)
    assert confirmations.pong(b"3")
    assert confirmations.confirmed == at(30)


@pytest.mark.parametrize("mark", [b"", b"0", b"x", b"11"])
def test_a_pong_to_nothing_confirms_nothing(mark: bytes) -> None:
    confirmations = Confirmations(at(0))
    confirmations.sent(b"1", at(10))
    assert not confirmations.pong(mark)
    assert confirmations.confirmed == at(0)


def test_who_never_answers_pings_costs_a_few_positions() -> None:
    confirmations = Confirmations(at(0))
    for n in range(1000):
        confirmations.sent(b"%d" % n, at(n))
    assert len(confirmations._pings) == 8
    assert confirmations.pong(b"999")
    assert confirmations.confirmed == at(999)


def test_a_stream_that_was_left_stays_forgotten_by_the_pings_under_way() -> None:
    confirmations = Confirmations({})
    confirmations.start("all", Position("e1", 1))
    confirmations.start(NEWS, Position("e1", 1))
    confirmations.sent(b"1", {**at(5), NEWS: Position("e1", 5)})
    confirmations.forget(NEWS)
    confirmations.start(NEWS, Position("e2", 0))  # joined again
    assert confirmations.pong(b"1")
    assert confirmations.confirmed == {**at(5), NEWS: Position("e2", 0)}


def test_an_answer_sets_the_record_before_anything_was_confirmed() -> None:
    session = joining(3, Heard(8), page(6, 7, 8, top=8, gap=Gap(NEWS, "e1", 4, 6, "expired")))
    session.confirmations = Confirmations({})
    answered(session)
    assert session.confirmations.confirmed == {NEWS: Position("e1", 3)}
    session.unfollow(NEWS)
    assert session.confirmations.confirmed == {}


def test_pings_under_way_say_nothing_of_a_stream_that_started_anew() -> None:
    session = live(Heard(6))
    confirmations = session.confirmations = Confirmations({NEWS: Position("e1", 5)})
    confirmations.sent(b"1", session.positions())
    session.start_anew(NEWS, Position("e1", 2)).page = page(2, 3, 4, 5, 6, top=6)
    answered(session)
    assert confirmations.pong(b"1")
    assert confirmations.confirmed == {NEWS: Position("e1", 2)}
    confirmations.sent(b"2", session.positions())
    assert confirmations.pong(b"2")
    assert confirmations.confirmed == {NEWS: Position("e1", 6)}


def test_a_reset_that_may_not_have_arrived_is_told_again() -> None:
    """The record stays where it was, in an epoch that is gone, until a pong says that the gap is known."""
    session = joining(3, Heard(2, "e2"), page(0, 1, 2, top=2, epoch="e2", gap=Gap(NEWS, "e2", None, 0, "reset")))
    confirmations = session.confirmations = Confirmations({NEWS: Position("e1", 3)})
    answered(session)
    assert confirmations.confirmed == {NEWS: Position("e1", 3)}
    confirmations.sent(b"1", session.positions())
    assert confirmations.pong(b"1")
    assert confirmations.confirmed == {NEWS: Position("e2", 2)}


def test_a_record_never_starts_above_the_top() -> None:
    """The position would come to stand for messages that were not sent."""
    session = joining(99, Heard(5), page(2, 3, 4, 5, top=5, gap=Gap(NEWS, "e1", None, 2, "reset")))
    session.confirmations = Confirmations({})
    answered(session)
    assert session.confirmations.confirmed == {NEWS: Position("e1", 2)}
