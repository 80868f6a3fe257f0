"""Promises 2 to 4: every stream in offset order without a silent hole; whoever comes back with a cursor, or joins with
a position, gets exactly what it missed, once and in order, then live messages; who leaves its cursor to the gateway
skips nothing; who is slow under the policy ``latest`` is told what it is not sent, and ends with the newest of each
word. For any order of push, connect, drop, join, leave, slowness, membership, expiry and late or failed answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.core.world import Client, World, same
from tests.support import Logs
from tidegate.core import hub as hub_module
from tidegate.core import journal as journal_module
from tidegate.core import protocol
from tidegate.core.hub import Audience
from tidegate.core.model import Gap, History, Message, Position
from tidegate.core.newest import Newest
from tidegate.core.session import PAGE_BYTES, Session, StreamView, Track
from tidegate.gateway import replay as replay_module
from tidegate.gateway.commands import Commands
from tidegate.gateway.recovery import Recovery

GROUPS = ("news", "chat")
STREAMS = ("client:alice", "all", "group:news", "group:chat")

names = st.sampled_from(("alice", "bob", "carol"))
groups = st.sampled_from(GROUPS)
streams = st.sampled_from(STREAMS)
words = st.sampled_from((None, "a", "b", "c"))


class Promises(RuleBasedStateMachine):
    new_world: Callable[[], World] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = type(self).new_world()
        self.patch = pytest.MonkeyPatch()
        self.number = 0

    @initialize(followed=st.lists(groups, unique=True), kept=st.sampled_from((400, PAGE_BYTES)))
    def begin(self, followed: list[str], kept: int) -> None:
        """Both are there, as most clients are most of the time. ``kept``: bytes, of what is newest."""
        self.patch.setattr(replay_module, "PAGE_BYTES", kept)
        for client in self.world.clients.values():
            client.connect(followed, with_cursor=False)
        self.world.calm()

    def client(self, name: str) -> Client:
        return self.world.clients[name]

    @rule(stream=streams, spoken=st.lists(words, min_size=1, max_size=6))
    def push(self, stream: str, spoken: list[str | None]) -> None:
        for word in spoken:
            self.number += 1
            self.world.push(stream, self.number, word)
        self.world.run()

    @rule(name=names, asked=st.lists(groups, unique=True), with_cursor=st.booleans())
    def connect(self, name: str, asked: list[str], with_cursor: bool) -> None:
        client = self.client(name)
        if client.session is None and client.admission is None:
            client.connect(asked, with_cursor=with_cursor)
            self.world.run()

    @rule(name=names)
    def open(self, name: str) -> None:
        client = self.client(name)
        if client.admission is not None and client.admission.done():
            client.open()
            self.world.run()

    @rule(name=names, group=groups, first=st.booleans())
    def join(self, name: str, group: str, first: bool) -> None:
        client = self.client(name)
        if client.session is not None:
            if first:
                client.take()
            client.join(group, None)
            self.world.run()

    @rule(name=names, group=groups, back=st.integers(0, 8), beyond=st.sampled_from((0, 0, 0, 0, 20)))
    def join_with_a_position(self, name: str, group: str, back: int, beyond: int) -> None:
        """One that it has had, or one above the top; also where it has the group, by itself or by a membership."""
        client = self.client(name)
        known = client.known.get(f"group:{group}", ())[-1 - back :]
        if client.session is not None and known:
            epoch, offset = known[0]
            client.join(group, (epoch, offset + beyond))
            self.world.run()

    @rule(name=names, group=groups, is_member=st.booleans())
    def member(self, name: str, group: str, is_member: bool) -> None:
        if is_member or not self.client(name).last:  # else a record may lack what its client has not heard to be over
            self.world.member(group, name, is_member)
            self.world.run()

    @rule(name=names, taken=st.booleans(), answered=st.booleans())
    def heartbeat(self, name: str, taken: bool, answered: bool) -> None:
        client = self.client(name)
        client.ping()
        if taken:
            client.take()
        if answered:
            client.pong()
        self.world.run()

    @rule(name=names)
    def is_closed(self, name: str) -> None:
        client = self.client(name)
        if client.session is not None:
            client.is_closed()
            self.world.run()

    @rule(name=names, group=groups)
    def leave(self, name: str, group: str) -> None:
        client = self.client(name)
        if client.session is not None:
            client.leave(group)
            self.world.run()

    @rule(name=names)
    def take(self, name: str) -> None:
        self.client(name).take()
        self.world.run()

    @rule(
        name=names,
        group=groups,
        before=st.lists(words, max_size=4),
        after=st.lists(words, max_size=4),
        announced=st.integers(0, 8),
        count=st.integers(0, 6),
        answers=st.integers(0, 4),
    )
    def fall_behind(
        self,
        name: str,
        group: str,
        before: list[str | None],
        after: list[str | None],
        announced: int,
        count: int,
        answers: int,
    ) -> None:
        """It takes nothing of what is pushed, then some, and is read for again."""
        client = self.client(name)
        self.push(f"group:{group}", before)
        self.announce(announced)
        client.fall_behind()
        self.push(f"group:{group}", after)
        client.take(count)
        self.world.run()
        self.release(0, answers)

    @rule(name=names)
    def cut(self, name: str) -> None:
        client = self.client(name)
        if client.session is not None:
            client.cut()
            self.world.run()

    @rule(
        name=names,
        taken=st.booleans(),
        flushed=st.booleans(),
        missed=st.integers(0, 6),
        stream=streams,
        answers=st.integers(0, 12),
        named=st.booleans(),
    )
    def come_back(
        self, name: str, taken: bool, flushed: bool, missed: int, stream: str, answers: int, named: bool
    ) -> None:
        """A cut, messages or worse meanwhile, and a new connection that may be answered in part only."""
        client = self.client(name)
        if client.admission is not None:
            return
        if taken:
            client.take()
        client.cut()
        if flushed:
            self.flush(stream)
        self.push(stream, [None] * missed)
        client.connect(list(GROUPS), with_cursor=True, without="" if named else stream)
        self.world.run()
        self.release(0, answers)
        self.open(name)

    @rule(
        name=names,
        group=groups,
        back=st.integers(0, 8),
        answers=st.integers(0, 4),
        fails=st.booleans(),
        count=st.integers(0, 4),
        broken=st.booleans(),
    )
    def start_anew(self, name: str, group: str, back: int, answers: int, fails: bool, count: int, broken: bool) -> None:
        """Amid a ping and its pong, by a join whose answer may fail, and arrive in part only before a cut."""
        client = self.client(name)
        client.ping()
        client.take()
        self.join_with_a_position(name, group, back, 0)
        if fails and self.world.broker.reads:
            self.fail()
        self.release(0, answers)
        client.take(count)
        client.pong()
        self.world.run()
        if broken:
            self.come_back(name, False, False, 0, f"group:{group}", 20, True)

    @precondition(lambda self: self.world.broker.waiting)
    @rule(which=st.integers(0, 3), count=st.integers(1, 8))
    def release(self, which: int, count: int) -> None:
        for _ in range(count):
            self.world.release(which)

    @precondition(lambda self: self.world.broker.reads)
    @rule()
    def fail(self) -> None:
        self.world.broker.failing = 1

    @precondition(lambda self: self.world.broker.unheard)
    @rule(count=st.integers(1, 4))
    def announce(self, count: int) -> None:
        for _ in range(count):
            self.world.announce()

    @rule(seconds=st.sampled_from((10.0, 60.0, 200.0)))
    def pass_time(self, seconds: float) -> None:
        self.world.now_s += seconds
        self.world.broker.sweep()

    @rule(stream=streams)
    def flush(self, stream: str) -> None:
        self.world.broker.forget(stream)

    def teardown(self) -> None:
        try:
            self.world.broker.failing = 0
            self.world.calm()
            for client in self.world.clients.values():
                if client.session is None:
                    continue
                assert not client.session.tracks, "a stream never went live"
                for stream in client.following:
                    heard = self.world.broker._streams.position(stream)
                    told = client.positions[stream]
                    assert same(told, (heard.epoch, heard.offset)), f"{stream}: messages are missing"
                assert not client.skipped, f"skipped, and nothing newer came: {client.skipped}"
        finally:
            self.patch.undo()
            self.world.end()


@pytest.fixture(autouse=True)
def tries_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "RETRY_S", 0)


def test_no_order_of_events_makes_a_silent_hole_a_repeat_or_a_stream_that_never_goes_live() -> None:
    run_state_machine_as_test(Promises, settings=settings(max_examples=150, stateful_step_count=40))


# Faults planted into the code under test: the machine must find each, or it proves nothing.


def no_hold(self: Session, message: Message) -> bool:
    """What comes during the read is lost, and the session believes that the page was all."""
    return False


def live_after_the_page(self: Session, stream: str, heard: Position) -> bool:
    """Queues what was held, as the real one does, but never reads a second time."""
    track = self.tracks[stream]
    for message in track.held:
        if message.offset > track.offset:
            self.send(protocol.encode_message(message))
            track.offset = message.offset
    del self.tracks[stream]
    return True


def no_check_for_repeats(self: Session, stream: str, heard: Position) -> bool:
    """Queues all that was held, whether the page had it or not."""
    track = self.tracks[stream]
    for message in track.held:
        track.offset = min(track.offset, message.offset - 1)
    return catch_up(self, stream, heard)


def expired_called_complete(
    self: journal_module.Journal, position: Position | None, messages: int, size: int
) -> History:
    page = since(self, position, messages, size)
    return History(page.start, page.top, page.messages, None)


async def joined_already(self: Commands, session: Session, command: protocol.Join) -> bool:
    """Where it has the stream, a position is called recovered and nothing is read."""
    stream = f"group:{command.group}"
    if command.epoch is None or stream not in session.streams:
        return await join(self, session, command)
    fields = {"stream": stream, **session.standing(stream), "recovered": True, "missed": 0}
    session.send(protocol.encode_reply(command.id, fields))
    return False


def stays_live(self: Recovery, session: Session, stream: str) -> Audience:
    """What the hub hears is still queued while the page is read."""
    audience = self._hub.audiences[stream]
    audience.joining.add(session)
    return audience


def skips_without_a_word(self: Newest) -> Iterable[Gap | Message]:
    return self.messages


def keeps_the_first(self: Newest, page: History) -> None:
    take(self, page)
    if self._kept and self.skipped:
        first = {message.conflate: message for message in reversed(page.messages)}
        self._kept = {word: first.get(word, message) for word, message in self._kept.items()}


def starts_with_the_newest(self: Session, heard: StreamView, since: Position | None) -> Track:
    """Who comes back with a cursor is taken for one that does not keep up."""
    track = follow(self, heard, since)
    track.latest = True
    return track


def always_latest(self: Session, stream: str, *, latest: bool) -> None:
    fall_back(self, stream, latest=True)


since = journal_module.Journal.since
take = Newest._take
follow = Session.follow
fall_back = Session.fall_back
catch_up = Session.catch_up
join = Commands._join


@pytest.mark.parametrize(
    ("fault", "plant"),
    [
        ("no hold", [(Session, "hold", no_hold), (Session, "catch_up", live_after_the_page)]),
        ("no check for repeats", [(Session, "catch_up", no_check_for_repeats)]),
        ("an expired journal called complete", [(journal_module.Journal, "since", expired_called_complete)]),
        ("who joins not told that it has moved", [(hub_module.Hub, "_interrupt", lambda self, audience: None)]),
        ("a gap not announced", [(hub_module.Hub, "on_gap", lambda self, gap, position: None)]),
        ("live before the hub is there", [(Session, "catch_up", live_after_the_page)]),
        ("a join of a joined group called recovered", [(Commands, "_join", joined_already)]),
        ("a stream that starts anew and stays live", [(Recovery, "_catch_up", stays_live)]),
        ("skipped without a word", [(Newest, "events", skips_without_a_word)]),
        ("the first of each word", [(Newest, "_take", keeps_the_first)]),
        ("who comes back gets the newest", [(Session, "follow", starts_with_the_newest)]),
        ("the newest where all was asked for", [(Session, "fall_back", always_latest)]),
    ],
)
def test_the_machine_finds_a_planted_fault(
    fault: str, plant: list[tuple[object, str, object]], expected_logs: Logs
) -> None:
    expected_logs.allow("stream.hole_found")  # the hub may find it too
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, planted in plant:
            patch.setattr(owner, name, planted)
        with pytest.raises((AssertionError, ExceptionGroup)):
            run_state_machine_as_test(
                Promises,
                settings=settings(max_examples=1000, stateful_step_count=40, database=None, phases=[Phase.generate]),
            )
