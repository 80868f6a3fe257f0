"""A whole gateway without sockets, whose broker answers when it is told to: what a property test drives.

``World`` runs the real gateway, recovery, hub, session and memory broker on a loop of its own. ``LateBroker`` stands
between them: reads and subscriptions wait until released or fail, and messages reach the node later than they were
journalled, as with a broker on the network. ``Client`` is a client library in its simplest form: it keeps its
cursor, or leaves that to the gateway, and checks every event against what was pushed. Who is slow is closed, but for
``news``, where it gets the newest of each word, and ``chat``, which it reads on from the journal.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from tests.core.late_broker import LateBroker
from tidegate.auth.grants import unrestricted
from tidegate.config.load import load
from tidegate.core import frames, protocol
from tidegate.core.errors import CloseCode, Refused
from tidegate.core.hub import Hub
from tidegate.core.model import NodeInfo, Position, Publication, decode_cursor, encode_cursor
from tidegate.core.outbox import Outbox
from tidegate.core.session import Sender, Session, Transport
from tidegate.gateway.commands import Commands
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.new_streams import NewStreams
from tidegate.gateway.readiness import Readiness
from tidegate.gateway.recovery import Recovery
from tidegate.gateway.replay import Replay
from tidegate.gateway.requests import HandshakeRequest
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks
from tidegate.turn import SHARE_S, Shares

T = TypeVar("T")

LINE_BYTES = 1 << 12  # four messages that were not taken, and there is no room for more
POLICIES = {"news": {"slow": "latest"}, "chat": {"slow": "replay"}}


class Line(Outbox):
    """A connection's socket: what is queued reaches the client when the test takes it. ``pings`` are the marks of the
    control pings that were taken."""

    def __init__(self, gateway: Gateway | None = None, limit: int = 1 << 20) -> None:
        super().__init__(limit)
        self._gateway = gateway
        self.closed: int | None = None
        self.pings: list[bytes] = []

    def wake(self) -> None:
        pass

    @property
    def sock(self) -> Sender:
        raise AssertionError("it has none")

    def put_rest(self, waiting: Sequence[bytes], sent: int) -> None:
        raise AssertionError("nothing of it has gone")

    def admitted(self, session: Session) -> None:
        """It is about to be welcomed."""

    def cut(self, session: Session) -> None:
        """What was not taken is lost."""
        assert self._gateway is not None
        self._gateway.remove(session, confirmed=False)

    def overflow(self, session: Session) -> None:
        """More waits than the limit, as its writer finds."""
        assert self._gateway is not None
        if not self._gateway.slow(session):
            self._gateway.close(session, CloseCode.SLOW_CONSUMER)

    def close(self, code: int, reason: str = "") -> None:
        self.closed = code

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def take(self, count: int | None = None) -> list[dict[str, Any]]:
        """The next ``count`` frames, or all."""
        events = []
        taken = self.frames[:count]
        for frame in taken:
            payload = frame[2 if frame[1] < 126 else 4 :]
            if frame[0] & 0x0F == frames.PING:
                self.pings.append(payload)
            else:
                events.append(json.loads(payload))
        del self.frames[:count]
        self.size -= sum(map(len, taken))
        if self.on_room is not None and self.has_room:
            self.tell_room()
        return events


class Client:
    """One client with at most one connection. Every event is checked as it comes; a broken promise is an
    AssertionError. ``last``: it keeps no cursor, and comes back with ``cursor=last``."""

    def __init__(self, world: World, name: str, *, last: bool = False) -> None:
        self.world = world
        self.name = name
        self.last = last
        self.positions: dict[str, tuple[str, int]] = {}
        self.known: dict[str, list[tuple[str, int]]] = {}  # positions that it has had
        self.following: set[str] = set()
        self.owed: set[str] = set()  # streams that must tell of a gap next
        self.unsure: set[str] = set()  # streams of which it was not told what was done
        self.line: Line | None = None
        self.session: Session | None = None
        self.admission: asyncio.Task[Session] | None = None
        self.asked: dict[int, tuple[str, tuple[str, int] | None]] = {}  # joins and leaves that were not answered
        self.next_id = 1
        self.got = 0
        self.is_slow = False  # it was, on this connection
        self.skipped: dict[tuple[str, str, str | None], int] = {}  # by stream, epoch, word: a newer one is owed

    # What it does

    def connect(self, groups: list[str], *, with_cursor: bool, without: str = "") -> None:
        """``without``: a stream that its cursor does not name."""
        cursor = None
        if self.last:
            self.unsure.update(stream for stream, _ in self.asked.values())
        elif with_cursor and self.positions:
            self.positions.pop(without, None)
            token = encode_cursor({stream: Position(*position) for stream, position in self.positions.items()})
            assert token is not None
            cursor = decode_cursor(token)
        else:
            self.positions = {}
        self.asked = {}
        self.is_slow = False
        self.line = self.world.new_line(self)
        asked = HandshakeRequest(self.name, groups, cursor, self.last)
        gateway, rights = self.world.gateway, unrestricted(self.name)
        self.world.numbers += 1
        wire = self.world.transport_of(self.line)
        self.admission = self.world.begin(gateway.admit(asked, rights, f"n-{self.world.numbers}", wire))

    def open(self) -> None:
        """The 101 answer arrives, or a refusal."""
        assert self.admission is not None
        admission, self.admission = self.admission, None
        if isinstance(admission.exception(), Refused):
            self.line = None
            return
        self.session = admission.result()
        assert self.line is not None
        self.line.admitted(self.session)
        self.world.do(self.world.gateway.welcome, self.session)

    def join(self, group: str, position: tuple[str, int] | None) -> None:
        assert self.session is not None
        number = self._ask(group, position)
        epoch, offset = position or (None, None)
        self.world.do(self.world.gateway.submit, self.session, protocol.Join(number, group, epoch, offset))

    def leave(self, group: str) -> None:
        assert self.session is not None
        self.world.do(self.world.gateway.submit, self.session, protocol.Leave(self._ask(group, None), group))

    def _ask(self, group: str, position: tuple[str, int] | None) -> int:
        number = self.next_id
        self.next_id += 1
        self.asked[number] = (f"group:{group}", position)
        return number

    def fall_behind(self) -> None:
        """It has not taken what its line may hold."""
        if self.session is not None and self.line is not None:
            self.is_slow = True
            self.world.do(self.line.overflow, self.session)
            if self.session.ended:
                self.cut()

    def ping(self) -> None:
        """A control ping is queued for it."""
        if self.session is not None and self.line is not None:
            mark = b"%d" % self.world.numbers
            self.world.numbers += 1
            self.world.do(self.world.gateway.ping_queued, self.session, mark)
            self.line.put(frames.ping(mark))

    def pong(self) -> None:
        """Answers the pings that it has taken."""
        if self.session is not None and self.line is not None:
            for mark in self.line.pings:
                self.world.do(self.world.gateway.pong, self.session, mark)
            self.line.pings.clear()

    def cut(self) -> None:
        """What was not taken is lost."""
        if self.session is not None and self.line is not None:
            self.world.do(self.line.cut, self.session)
        self.session = self.line = None

    def is_closed(self) -> None:
        """The node stops: everything up to its close frame arrives, and is answered."""
        session = self.session
        assert session is not None
        self.world.do(self.world.gateway.close, session, CloseCode.RESTART)
        self.take()
        self.world.do(lambda: self.world.gateway.remove(session, confirmed=True))
        self.session = self.line = None

    def take(self, count: int | None = None) -> None:
        if self.line is not None and self.session is not None:
            for event in self.line.take(count):
                self.apply(event)

    # What it hears

    def apply(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "welcome":
                self.welcome(event["streams"])
            case "joined":
                self.start(event["stream"], event, None)
            case "left":
                self.end(event["stream"])
            case "reply" if "epoch" in event:
                stream, position = self.asked.pop(event["id"])
                if position is None and stream in self.following:
                    now = (event["epoch"], event["offset"])
                    assert same(self.positions[stream], now)
                    self.stands(stream, now)
                else:
                    self.start(stream, event, position)
            case "reply":
                self.end(self.asked.pop(event["id"])[0])
            case "message":
                self.message(event)
            case "gap":
                self.gap(event)
            case "error":
                del self.asked[event["id"]]
                assert event["code"] == "broker_down" or event["message"].startswith("not in ")
            case other:
                raise AssertionError(f"unexpected {other}")

    def welcome(self, streams: dict[str, Any]) -> None:
        before, followed, unsure = self.positions, self.following, self.unsure
        self.positions, self.following, self.owed, self.unsure = {}, set(), set(), set()
        for stream, fields in streams.items():
            if not self.last:
                self.start(stream, fields, before.get(stream))
                continue
            given = (fields["epoch"], fields["offset"]) if fields.get("recovered") else None
            if stream in followed and stream not in unsure:
                # Of a record that was forgotten nobody knows that a lasting group was in it.
                forgotten = self.name in self.world.broker.without_record and stream.startswith("group:")
                assert "recovered" in fields or forgotten, f"{stream}: was followed, and starts without a word"
                reached = before[stream]
                behind = given is None or (given[0] == reached[0] and given[1] <= reached[1]) or same(given, reached)
                assert behind, f"{stream}: reached {reached} and continues from {given}"
            self.start(stream, fields, given if "recovered" not in fields or given else ("", 0))

    def start(self, stream: str, fields: dict[str, Any], given: tuple[str, int] | None) -> None:
        position = (fields["epoch"], fields["offset"])
        self.owed.discard(stream)
        told = self.known.get(stream, [("", 0)])[-1]
        if position[0] != told[0] or position[1] > told[1]:
            self._forgive(stream)  # it asked for no more
        if given is None:
            assert "recovered" not in fields
        elif fields["recovered"]:
            assert same(position, given), f"{stream}: continued from {position} instead of {given}"
            assert fields["missed"] == fields["top"] - fields["offset"]
        else:
            self.owed.add(stream)
        self.following.add(stream)
        self.unsure.discard(stream)
        self.stands(stream, position)

    def end(self, stream: str) -> None:
        self.following.discard(stream)
        self.unsure.discard(stream)
        self.positions.pop(stream, None)
        self._forgive(stream)

    def _forgive(self, stream: str) -> None:
        self.skipped = {key: offset for key, offset in self.skipped.items() if key[0] != stream}

    def stands(self, stream: str, position: tuple[str, int]) -> None:
        self.positions[stream] = position
        self.known.setdefault(stream, []).append(position)

    def message(self, event: dict[str, Any]) -> None:
        stream = event["stream"]
        assert stream in self.following, f"{stream}: a message of a stream that it does not follow"
        assert stream not in self.owed, f"{stream}: not recovered, and no gap"
        epoch, offset = self.positions[stream]
        assert event["epoch"] == epoch, f"{stream}: epoch changed without a gap"
        assert event["offset"] == offset + 1, f"{stream}: {event['offset']} follows {offset}"
        assert event["data"] == self.world.pushed.get((stream, epoch, offset + 1)), (
            "another message stands at this offset"
        )
        self.stands(stream, (epoch, offset + 1))
        self._stood_for(stream, epoch, offset + 1)
        self.got += 1

    def _stood_for(self, stream: str, epoch: str, offset: int) -> None:
        """This message came, or was said to be lost: what was skipped before it, of the same word, needs no other."""
        word = stream, epoch, self.world.words.get((stream, epoch, offset))
        if self.skipped.get(word, offset + 1) <= offset:
            del self.skipped[word]

    def gap(self, event: dict[str, Any]) -> None:
        stream = event["stream"]
        assert stream in self.following
        self.owed.discard(stream)
        epoch, offset = self.positions[stream]
        if event["reason"] == "expired":
            assert event["epoch"] == epoch
            assert event["from"] == offset + 1, f"{stream}: a gap from {event['from']} after {offset}"
            assert event["to"] >= event["from"]
            assert event["to"] <= self.world.expired(stream, epoch), f"{stream}: said to be lost, but it is there"
            for lost in range(event["from"], event["to"] + 1):
                self._stood_for(stream, epoch, lost)
        elif event["reason"] == "skipped":
            assert stream == "group:news", "by its policy nothing is skipped"
            assert self.is_slow, f"{stream}: skipped for a client that keeps up"
            assert event["epoch"] == epoch
            assert event["from"] == offset + 1, f"{stream}: skipped from {event['from']} after {offset}"
            assert event["to"] >= event["from"]
            for passed in range(event["from"], event["to"] + 1):
                self.skipped[stream, epoch, self.world.words[stream, epoch, passed]] = passed
        else:
            assert event["reason"] == "reset"
            self._forgive(stream)
        self.stands(stream, (event["epoch"], event["to"]))


def same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether they are one place: where a stream begins may be named by two epochs (docs/decisions/0013)."""
    return one == other or one[1] == other[1] == 0


def _is_busy(client: Client) -> bool:
    return client.admission is not None or (client.line is not None and bool(client.line.frames))


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class World:
    """One node. ``kept`` messages of each stream are journalled, each for ``age_s`` of the world's own clock, all
    together in ``journal_bytes``; streams are remembered for ``meta_age_s``."""

    gateway: Gateway

    def __init__(
        self, *, kept: int = 4, age_s: float = 100.0, journal_bytes: int = 6500, meta_age_s: float = 600.0
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.now_s = 1000.0
        self.numbers = 0
        self.pushed: dict[tuple[str, str, int], Any] = {}
        self.words: dict[tuple[str, str, int], str | None] = {}
        environment = {"HISTORY__MESSAGES": str(kept), "HISTORY__AGE_S": str(age_s), "GROUPS": json.dumps(POLICIES)}
        config = load(None, {f"TIDEGATE_{name}": value for name, value in environment.items()})
        self.broker = LateBroker(
            epoch="e0",
            retention=config.retention,
            meta_age_s=meta_age_s,
            journal_bytes=journal_bytes,
            wall=lambda: self.now_s,
            clock=lambda: self.now_s,
        )
        self.tasks, metrics = Tasks(), Metrics()
        replay = Replay(self.broker, self.tasks, metrics)
        self.hub = Hub(replay, self.loop.call_soon)
        self.recovery = recovery = Recovery(
            self.hub, replay, self.broker, self.tasks, metrics, policy=lambda group: config.policy(group).slow
        )

        async def no_calls(*args: Any) -> tuple[int, bytes]:
            raise AssertionError

        self.commands = commands = Commands(
            config,
            self.broker,
            recovery,
            self.tasks,
            metrics,
            NewStreams(config, self.hub, self.broker, metrics),
            call=no_calls,
            verify=None,
        )
        self.gateway = Gateway(
            config,
            self.broker,
            commands,
            recovery,
            replay,
            self.hub,
            self.tasks,
            metrics,
            Shares(self.loop.call_soon, partial(next, itertools.count(step=SHARE_S / 3))),
            Readiness(self.broker, lambda: self.now_s),
            node="n",
            wall=lambda: self.now_s,
            capacity=100,
        )
        node = NodeInfo("n", "0", 0, 0, False, None)
        self.loop.run_until_complete(self.broker.start(self.gateway, node))
        self.clients = {name: Client(self, name, last=name == "carol") for name in ("alice", "bob", "carol")}

    def new_line(self, client: Client) -> Line:
        """The socket of a client that comes."""
        return Line(self.gateway, LINE_BYTES)

    def transport_of(self, line: Line) -> Transport:
        """What the gateway is given of it."""
        return line

    def begin(self, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task whose end a client may never look at: a fault that is found ends the test at once, and what failed by
        then would be told to the log when it is collected."""
        task = self.loop.create_task(coro)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    def push(self, stream: str, data: Any, word: str | None = None) -> None:
        publication = Publication(stream, json.dumps(data).encode(), conflate=word)
        (position,) = self.loop.run_until_complete(self.broker.publish([publication]))
        assert isinstance(position, Position)
        self.pushed[stream, position.epoch, position.offset] = data
        self.words[stream, position.epoch, position.offset] = word

    def expired(self, stream: str, epoch: str) -> int:
        """The newest offset of this epoch that its journal no longer holds."""
        top = self.broker._streams.position(stream)
        if top.epoch != epoch:
            return max((offset for known, e, offset in self.pushed if (known, e) == (stream, epoch)), default=0)
        journal = self.broker._streams._journals.get(stream)
        return top.offset if journal is None else top.offset - len(journal.messages)

    def member(self, group: str, name: str, is_member: bool) -> None:
        """The application begins or ends a lasting membership."""
        change = self.gateway.add_member if is_member else self.gateway.remove_member
        self.loop.run_until_complete(change(group, name))

    def do(self, function: Callable[..., object], *args: object) -> None:
        """Calls it on the loop."""

        async def call() -> None:
            function(*args)

        self.loop.run_until_complete(call())

    def run(self) -> None:
        """Everything that can go on without the broker does."""
        self.loop.run_until_complete(_turns(12))

    def release(self, which: int = 0) -> None:
        """One waiting answer of the broker arrives."""
        if self.broker.waiting:
            index = which % len(self.broker.waiting)
            gate = self.broker.waiting[index]
            del self.broker.waiting[index]
            gate.set_result(None)
            self.run()

    def announce(self) -> None:
        """The node hears the next thing that the broker said."""
        if self.broker.unheard:
            self.do(self.broker.unheard.popleft())
            self.run()

    def calm(self) -> None:
        """Nothing is under way any more."""
        for _ in range(1000):
            for client in self.clients.values():
                if client.admission is not None and client.admission.done():
                    client.open()
                client.take()
            self.run()
            if not self.broker.waiting and not self.broker.unheard and not any(map(_is_busy, self.clients.values())):
                return
            self.announce()
            self.release()
        tracks = [
            (client.name, stream, track.state, track.position, client.session.streams[stream].position)
            for client in self.clients.values()
            if client.session is not None
            for stream, track in client.session.tracks.items()
        ]
        raise AssertionError(
            f"never calm: {len(self.broker.waiting)} answers, {len(self.broker.unheard)} announcements, {tracks}"
        )

    def end(self) -> None:
        while pending := asyncio.all_tasks(self.loop):  # some begin when others end
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self.loop.close()
