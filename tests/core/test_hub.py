"""Fan-out, written like a transcript: what the broker says, and what each session then has queued."""

from __future__ import annotations

import pytest

from tests.core.transcript import NEWS, Reports, line, message, new_hub, new_session, told
from tidegate.core import protocol
from tidegate.core.hub import Audience, Hub
from tidegate.core.model import Gap, History, Message, Position
from tidegate.core.session import Session, TrackState, Transport


def hear(hub: Hub, *messages: Message) -> None:
    """A turn in which the broker says these."""
    for each in messages:
        hub.on_message(each)
    hub.deliver()


def live(hub: Hub, audience: Audience, session: Session) -> Session:
    session.follow(audience, None)
    audience.joining.add(session)
    session.join_fields(audience.stream)
    session.queue_first_page(audience.stream)
    assert audience.settle(session)
    return session


# Connections


def test_it_knows_every_connection_of_a_client() -> None:
    hub = new_hub()
    first, second, other = new_session(number=1), new_session(number=2), new_session("bob", 3)
    for session in (first, second, other):
        hub.add(session)
    assert hub.of_client("alice") == [first, second]
    assert list(hub.sessions()) == [first, second, other]
    assert hub.connections == 3
    hub.remove(first)
    hub.remove(first)
    assert hub.of_client("alice") == [second]
    assert hub.connections == 2
    hub.remove(second)
    assert hub.of_client("alice") == []
    assert hub.clients.keys() == {"bob"}


def test_removing_who_was_never_there_is_nothing() -> None:
    hub = new_hub()
    hub.add(new_session(number=1))
    hub.remove(new_session(number=2))
    hub.remove(new_session("bob", 1))
    assert hub.connections == 1


# Messages


def test_a_message_is_one_frame_for_everybody_who_follows_its_stream() -> None:
    hub = new_hub()
    news, chat = hub.open_audience(NEWS, Position("e1", 4)), hub.open_audience("group:chat", Position("e1", 0))
    alice, bob, carol = new_session(), live(hub, news, new_session("bob")), live(hub, chat, new_session("carol"))
    live(hub, news, alice)
    hear(hub, message(5))
    assert (frame := line(alice).frames[0]) is line(bob).frames[0]
    assert hub.deliveries == 2
    assert hub.delivered_bytes == 2 * len(frame)
    assert told(alice) == told(bob) == [5]
    assert told(carol) == []
    assert news.position == Position("e1", 5)


def test_nobody_hears_a_stream_that_nobody_follows() -> None:
    hub = new_hub()
    hear(hub, message(1))
    hub.on_gap(Gap(NEWS, "e1", 1, 2, "expired"), Position("e1", 2))
    assert hub.audiences == {}


def test_a_repeat_is_dropped() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 4))
    alice = live(hub, audience, new_session())
    hear(hub, *map(message, (5, 5, 4, 6, 1)))
    assert told(alice) == [5, 6]


def test_a_hole_is_announced_even_where_the_broker_did_not() -> None:
    reports = Reports()
    hub = new_hub(reports)
    alice = live(hub, hub.open_audience(NEWS, Position("e1", 4)), new_session())
    hear(hub, message(8), message(9))
    assert told(alice) == [(5, 7, "expired"), 8, 9]
    assert reports.holes == [Gap(NEWS, "e1", 5, 7, "expired")]


def test_another_epoch_is_announced_even_where_the_broker_did_not() -> None:
    reports = Reports()
    hub = new_hub(reports)
    alice = live(hub, hub.open_audience(NEWS, Position("e1", 4)), new_session())
    hear(hub, message(2, epoch="e2"))
    assert told(alice) == [(None, 1, "reset"), 2]
    assert reports.holes == [Gap(NEWS, "e2", None, 1, "reset")]
    assert alice.position(NEWS) == Position("e2", 2)


def test_a_gap_moves_everybody_who_is_live() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 4))
    alice = live(hub, audience, new_session())
    hub.on_gap(Gap(NEWS, "e1", 5, 7, "expired"), Position("e1", 7))
    hear(hub, message(8))
    assert told(alice) == [(5, 7, "expired"), 8]
    assert audience.position == Position("e1", 8)


# Turns


def test_what_the_broker_says_is_delivered_when_the_turn_ends() -> None:
    reports = Reports()
    hub = new_hub(reports)
    audience = hub.open_audience(NEWS, Position("e1", 4))
    alice = live(hub, audience, new_session())
    hub.on_message(message(5))
    hub.on_message(message(6))
    assert reports.turns == 1
    assert told(alice) == []
    assert alice.positions() == {NEWS: Position("e1", 4)}, "as if it were still under way"
    hub.deliver()
    assert told(alice) == [5, 6]
    assert alice.positions() == {NEWS: Position("e1", 6)}
    hub.on_message(message(7))
    assert reports.turns == 2


def test_a_gap_comes_after_what_was_said_before_it() -> None:
    hub = new_hub()
    alice = live(hub, hub.open_audience(NEWS, Position("e1", 4)), new_session())
    hub.on_message(message(5))
    hub.on_gap(Gap(NEWS, "e2", None, 0, "reset"), Position("e2", 0))
    hub.on_message(message(1, epoch="e2"))
    hub.deliver()
    assert told(alice) == [5, (None, 0, "reset"), 1]


def test_what_was_said_in_an_earlier_subscription_is_not_heard_in_a_later_one() -> None:
    hub = new_hub()
    hub.open_audience(NEWS, Position("e1", 4))
    hub.on_message(message(5))
    hub.close_audience(NEWS)
    alice = live(hub, hub.open_audience(NEWS, Position("e2", 0)), new_session())
    hear(hub, message(1, epoch="e2"))
    assert told(alice) == [1]


def test_what_was_not_delivered_by_a_fault_is_no_silent_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = new_hub()
    alice = live(hub, hub.open_audience(NEWS, Position("e1", 4)), new_session())
    with monkeypatch.context() as broken:
        broken.setattr(protocol, "encode_message", lambda message: b"{}" if message.offset < 6 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hear(hub, message(5), message(6))
    hear(hub, message(7))
    assert told(alice) == [(5, 6, "expired"), 7]


def test_messages_that_came_together_are_written_together() -> None:
    written: list[tuple[list[Transport], int]] = []
    hub = new_hub(write=lambda wires, waiting: written.append((list(wires), len(waiting))))
    alice = live(hub, hub.open_audience(NEWS, Position("e1", 4)), new_session())
    hear(hub, message(5), message(6), message(7))
    assert written == [([alice.wire], 3)]
    assert hub.deliveries == 3


def test_who_follows_several_streams_of_a_turn_is_written_to_once() -> None:
    hub = new_hub(write=lambda wires, waiting: pytest.fail("now, and again for the next stream"))
    news, chat = hub.open_audience(NEWS, Position("e1", 4)), hub.open_audience("group:chat", Position("e1", 0))
    alice = live(hub, chat, live(hub, news, new_session()))
    hear(hub, message(5), Message("group:chat", "e1", 1, 0, b"null"), message(6))
    assert told(alice) == [5, 6, 1], "in the order of each stream"


def test_who_waits_for_a_page_hears_nothing_and_does_not_hold_up_the_others() -> None:
    written = []
    hub = new_hub(write=lambda wires, waiting: written.append((list(wires), len(waiting))))
    news = hub.open_audience(NEWS, Position("e1", 4))
    alice, bob = live(hub, news, new_session()), live(hub, news, new_session("bob"))
    news.suspend(bob)
    news.joining.add(bob)
    bob.fall_back(NEWS, latest=True)
    hear(hub, message(5), message(6))
    assert written == [([line(alice)], 2)]
    assert not bob.tracks[NEWS].held
    bob.start_reading(NEWS)
    hear(hub, message(7))
    assert (len(written), [each.offset for each in bob.tracks[NEWS].held]) == (1, [7])


def test_clients_own_streams_are_written_at_once_since_nobody_follows_two() -> None:
    written: list[list[Transport]] = []
    hub = new_hub(write=lambda wires, waiting: written.append(list(wires)))
    streams = [f"client:{name}" for name in ("alice", "bob")]
    alice, bob = (live(hub, hub.open_audience(stream, Position("e1", 0)), new_session()) for stream in streams)
    hear(hub, *(Message(stream, "e1", offset, 0, b"null") for offset in (1, 2) for stream in streams))
    assert written == [[alice.wire], [bob.wire]]


# Joining


def test_who_joins_holds_messages_and_goes_live_between_two_of_them() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 4))
    alice = new_session()
    track = alice.follow(audience, Position("e1", 4))
    audience.joining.add(alice)
    track.page = History(Position("e1", 4), 4, [])
    hear(hub, message(5))
    assert told(alice) == []
    alice.join_fields(NEWS)
    alice.queue_first_page(NEWS)
    assert not audience.live
    assert not audience.empty
    assert audience.settle(alice)
    assert (audience.live, audience.joining) == ({alice: alice.wire}, set())
    hear(hub, message(6))
    assert told(alice) == [5, 6]


def test_who_read_ahead_goes_live_when_the_hub_catches_up() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 4))
    alice = new_session()
    track = alice.follow(audience, Position("e1", 6))
    audience.joining.add(alice)
    track.answered = True
    assert not audience.settle(alice)
    hear(hub, *map(message, (5, 6, 7)))
    assert told(alice) == [7]
    assert audience.live == {alice: alice.wire}


def test_who_goes_live_amid_a_turn_hears_what_follows() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 4))
    bob, alice = live(hub, audience, new_session("bob")), new_session()
    alice.follow(audience, Position("e1", 5)).answered = True
    audience.joining.add(alice)
    assert not audience.settle(alice)
    hear(hub, message(5), message(6), message(7))
    assert told(alice) == [6, 7]
    assert told(bob) == [5, 6, 7]
    assert hub.deliveries == 5


def test_a_gap_stalls_who_read_ahead_and_somebody_is_told_to_read_on() -> None:
    reports = Reports()
    hub = new_hub(reports)
    audience = hub.open_audience(NEWS, Position("e1", 4))
    ahead, reading = new_session(), new_session("bob")
    ahead.follow(audience, Position("e1", 6))
    reading.follow(audience, Position("e1", 2))
    audience.joining |= {ahead, reading}
    assert not audience.settle(ahead)
    hub.on_gap(Gap(NEWS, "e2", None, 0, "reset"), Position("e2", 0))
    assert reports.stalled == [(ahead, NEWS)]
    assert told(ahead) == told(reading) == [], "they find the gap in the journal"


def test_who_is_in_an_epoch_that_the_hub_has_left_is_told_to_read_on_by_the_next_message() -> None:
    reports = Reports()
    hub = new_hub(reports)
    audience = hub.open_audience(NEWS, Position("e2", 4))
    alice = new_session()
    alice.follow(audience, Position("e1", 6))
    audience.joining.add(alice)
    assert not audience.settle(alice)
    hear(hub, message(5, "e2"))
    assert reports.stalled == [(alice, NEWS)]
    assert alice.tracks[NEWS].state is TrackState.WAITING


# A stream without a message


def test_who_was_told_an_earlier_beginning_hears_of_the_new_one_before_the_first_message() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 0))
    alice, gone = live(hub, audience, new_session()), live(hub, audience, new_session("gone", 2))
    hub.on_moved(NEWS, Position("e2", 0))
    hub.on_moved("group:nobody", Position("e2", 0))
    bob = live(hub, audience, new_session("bob", 3))
    audience.live.pop(gone)
    audience.unaware.discard(gone)
    assert (told(alice), told(bob)) == ([], [])
    assert alice.positions() == bob.positions() == {NEWS: Position("e2", 0)}
    hear(hub, message(1, "e2"))
    assert (told(alice), told(bob), told(gone)) == ([(None, 0, "reset"), 1], [1], [])
    hear(hub, message(2, "e2"))
    assert (told(alice), told(bob)) == ([2], [2])


def test_a_gap_after_the_beginning_has_moved_names_both() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 0))
    alice = live(hub, audience, new_session())
    hub.on_moved(NEWS, Position("e2", 0))
    hub.on_gap(Gap(NEWS, "e2", 1, 3, "expired"), Position("e2", 3))
    assert told(alice) == [(None, 0, "reset"), (1, 3, "expired")]
    hub.on_moved(NEWS, Position("e2", 3))
    hub.on_gap(Gap(NEWS, "e3", None, 0, "reset"), Position("e3", 0))
    hear(hub, message(1, "e3"))
    assert told(alice) == [(None, 0, "reset"), 1]


def test_who_reads_while_the_beginning_moves_reads_again_and_is_told() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e1", 0))
    alice = new_session()
    alice.follow(audience, Position("e1", 0)).page = History(Position("e1", 0), 0, [])
    audience.joining.add(alice)
    alice.join_fields(NEWS)
    hub.on_moved(NEWS, Position("e2", 0))
    alice.queue_first_page(NEWS)
    assert not audience.settle(alice)
    alice.start_reading(NEWS)
    alice.queue_page(NEWS, History(Position("e2", 0), 0, []))
    assert audience.settle(alice)
    hear(hub, message(1, "e2"))
    assert told(alice) == [(None, 0, "reset"), 1]


def test_who_is_ahead_when_the_beginning_moves_reads_again_at_once() -> None:
    reports = Reports()
    hub = new_hub(reports)
    audience = hub.open_audience(NEWS, Position("e1", 0))
    alice = new_session()
    alice.follow(audience, Position("e1", 0)).page = History(Position("e2", 0), 0, [])
    audience.joining.add(alice)
    alice.join_fields(NEWS)
    alice.queue_first_page(NEWS)
    assert not audience.settle(alice)
    hub.on_moved(NEWS, Position("e2", 0))
    assert reports.stalled == [(alice, NEWS)]


def test_who_comes_back_with_an_earlier_beginning_is_answered_with_the_new_one() -> None:
    hub = new_hub()
    audience = hub.open_audience(NEWS, Position("e2", 0))
    alice = new_session()
    alice.follow(audience, Position("e1", 0)).page = History(Position("e2", 0), 0, [])
    audience.joining.add(alice)
    answer = alice.join_fields(NEWS)
    assert answer == {"epoch": "e2", "offset": 0, "top": 0, "recovered": True, "missed": 0}
    alice.queue_first_page(NEWS)
    assert audience.settle(alice)
    hear(hub, message(1, "e2"))
    assert told(alice) == [1]
