"""Fan-out, written like a transcript: what the broker says, and what each session then has queued."""

from __future__ import annotations

from service.hub import Audience, Hub
from service.model import Gap, History, Position
from service.session import Session
from tests.transcript import NEWS, message, new_session, told


def live(hub: Hub, audience: Audience, session: Session) -> Session:
    session.follow(audience, None)
    audience.joining.add(session)
    session.answer(audience.stream)
    session.begin(audience.stream)
    assert hub.settle(session, audience)
    return session


# Connections


def test_it_knows_every_connection_of_a_client() -> None:
    hub = Hub()
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
    hub = Hub()
    hub.add(new_session(number=1))
    hub.remove(new_session(number=2))
    hub.remove(new_session("bob", 1))
    assert hub.connections == 1


# Messages


def test_a_message_is_one_frame_for_everybody_who_follows_its_stream() -> None:
    hub = Hub()
    news, chat = hub.open(NEWS, Position("e1", 4)), hub.open("group:chat", Position("e1", 0))
    alice, bob, carol = new_session(), live(hub, news, new_session("bob")), live(hub, chat, new_session("carol"))
    live(hub, news, alice)
    hub.on_message(message(5))
    assert alice.outbox.frames[0] is bob.outbox.frames[0]
    assert hub.deliveries == 2
    assert hub.delivered_bytes == 2 * len(alice.outbox.frames[0])
    assert told(alice) == told(bob) == [5]
    assert told(carol) == []
    assert news.position == Position("e1", 5)


def test_nobody_hears_a_stream_that_nobody_follows() -> None:
    hub = Hub()
    hub.on_message(message(1))
    hub.on_gap(Gap(NEWS, "e1", 1, 2, "expired"), Position("e1", 2))
    assert hub.audiences == {}


def test_a_repeat_is_dropped() -> None:
    hub = Hub()
    audience = hub.open(NEWS, Position("e1", 4))
    alice = live(hub, audience, new_session())
    for offset in (5, 5, 4, 6, 1):
        hub.on_message(message(offset))
    assert told(alice) == [5, 6]


def test_a_hole_is_announced_even_where_the_broker_did_not() -> None:
    hub = Hub()
    alice = live(hub, hub.open(NEWS, Position("e1", 4)), new_session())
    hub.on_message(message(8))
    hub.on_message(message(9))
    assert told(alice) == [(5, 7, "expired"), 8, 9]


def test_another_epoch_is_announced_even_where_the_broker_did_not() -> None:
    hub = Hub()
    alice = live(hub, hub.open(NEWS, Position("e1", 4)), new_session())
    hub.on_message(message(2, epoch="e2"))
    assert told(alice) == [(None, 1, "reset"), 2]
    assert alice.position(NEWS) == Position("e2", 2)


def test_a_gap_moves_everybody_who_is_live() -> None:
    hub = Hub()
    audience = hub.open(NEWS, Position("e1", 4))
    alice = live(hub, audience, new_session())
    hub.on_gap(Gap(NEWS, "e1", 5, 7, "expired"), Position("e1", 7))
    hub.on_message(message(8))
    assert told(alice) == [(5, 7, "expired"), 8]
    assert audience.position == Position("e1", 8)


# Joining


def test_who_joins_holds_messages_and_goes_live_between_two_of_them() -> None:
    hub = Hub()
    audience = hub.open(NEWS, Position("e1", 4))
    alice = new_session()
    track = alice.follow(audience, Position("e1", 4))
    audience.joining.add(alice)
    track.page = History(Position("e1", 4), 4, [])
    hub.on_message(message(5))
    assert told(alice) == []
    alice.answer(NEWS)
    alice.begin(NEWS)
    assert not audience.live
    assert not audience.empty
    assert hub.settle(alice, audience)
    assert (audience.live, audience.joining) == ({alice}, set())
    hub.on_message(message(6))
    assert told(alice) == [5, 6]


def test_who_read_ahead_goes_live_when_the_hub_catches_up() -> None:
    hub = Hub()
    audience = hub.open(NEWS, Position("e1", 4))
    alice = new_session()
    track = alice.follow(audience, Position("e1", 6))
    audience.joining.add(alice)
    track.answered = True
    assert not hub.settle(alice, audience)
    for offset in (5, 6, 7):
        hub.on_message(message(offset))
    assert told(alice) == [7]
    assert audience.live == {alice}


def test_a_gap_stalls_who_read_ahead_and_somebody_is_told_to_read_on() -> None:
    hub = Hub()
    stalled: list[tuple[Session, str]] = []
    hub.on_stalled = lambda session, stream: stalled.append((session, stream))
    audience = hub.open(NEWS, Position("e1", 4))
    ahead, reading = new_session(), new_session("bob")
    ahead.follow(audience, Position("e1", 6))
    reading.follow(audience, Position("e1", 2))
    audience.joining |= {ahead, reading}
    assert not hub.settle(ahead, audience)
    hub.on_gap(Gap(NEWS, "e2", None, 0, "reset"), Position("e2", 0))
    assert stalled == [(ahead, NEWS)]
    assert told(ahead) == told(reading) == [], "they find the gap in the journal"
