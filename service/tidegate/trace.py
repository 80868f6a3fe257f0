"""What this node remembers of its messages and connections, for whoever asks what became of one.

Nothing is kept for each delivery. A message that goes out is one entry, however many it goes to; of a connection is
kept what happens to it seldom: it is let in, joins, leaves, is told of a gap, falls back, ends. To which connections a
message was written follows from that, and from where each stands (gateway/traced.py).

Everything is in rings that forget the oldest, and is lost with the process. Source: docs/decisions/0066.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import Literal, TypeAlias

import msgspec

from tidegate.core.errors import CloseCode, Refused
from tidegate.core.hub import FanOuts
from tidegate.core.model import ConnectionInfo, Cursor, Gap, Position, group_stream, is_id
from tidegate.core.outbox import Outbox
from tidegate.core.session import Session

REFUSALS = 1000  # refused handshakes that are kept
SHARES = 4  # of a ring: who has more than one loses his own when it is full
THINNED_AT_ONCE = 1000  # steps that are looked at, of one who fills a ring, with each that is added: some 0.3 ms
LOOK_AT_FRAMES = 200  # one by one, of those that wait
KEPT_OFFSETS = 200  # that a step names of what policy ``latest`` let through

Kind: TypeAlias = Literal[
    "journalled",
    "heard",
    "connected",
    "refused",
    "resumed",
    "moved",
    "joined",
    "join_refused",
    "left",
    "gap",
    "slow",
    "ended",
    "closed",
    "lost",
    "node_came",
    "node_stopped",
    "node_died",
    "broker_lost",
    "broker_ready",
]

# A message as it waits for a socket: a frame's head, then the keys in the protocol's order.
_MESSAGE = re.compile(rb'.{2,10}?\{"type":"message","stream":"([^"]+)","epoch":"([^"]+)","offset":(\d+),', re.DOTALL)


class Step(
    msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False, rename={"first": "from", "last": "to"}
):
    """Something that happened once. ``streams``: where delivery began (connected, resumed), or how far it had come
    (ended); ``unsent``: of each stream the first message that was thrown away; ``kept``: of a gap that was skipped,
    what was not. ``was``: where the stream was before a join began it anew. ``confirmed`` grows for as long as a peer
    confirms what it had. ``about``: another node."""

    time_ms: int
    kind: str  # a Kind; another node may know more of them
    node: str = ""
    client: str | None = None
    connection: str | None = None
    stream: str | None = None
    epoch: str | None = None
    offset: int | None = None
    first: int | None = None
    last: int | None = None
    reason: str | None = None
    code: str | int | None = None
    status: int | None = None
    message: str | None = None
    address: str | None = None
    worker: str | None = None
    about: str | None = None
    answered: bool = False
    unsent_bytes: int = 0
    was: Position | None = None
    kept: tuple[int, ...] | None = None
    streams: Cursor | None = None
    unsent: Cursor | None = None
    confirmed: Cursor | None = None

    @property
    def is_refused_join(self) -> bool:
        """By a command, or by a handshake that named the group: that one left where it never was."""
        return self.kind == "join_refused" or (
            self.kind == "left" and self.reason == "not_allowed" and self.offset is None
        )


class Fanned(msgspec.Struct, frozen=True):
    """When a message went out here (Unix ms), and to how many at once."""

    time_ms: int
    followers: int


class Ring:
    """The newest steps. Each counts one, and one more for each stream that it names; all together ``most``.
    ``since_ms``: from then on none is missing, but of who has more than a share of it when it is full: who does a
    thing without end loses his own steps before those of others. ``source`` names whose a step is, or None."""

    def __init__(
        self, most: int, since_ms: int, source: Callable[[Step], str | None] = lambda step: step.client
    ) -> None:
        self._most = most
        self._cost = 0
        self._source = source
        self._held: dict[str | None, int] = {}  # what the steps of each count
        self._thinned: dict[str | None, int] = {}  # since when none is missing of those who lost some
        self._steps: deque[Step] = deque()
        self._thinning: tuple[str, int] | None = None  # whose steps are made fewer now, and down to what
        self._passed: deque[Step] = deque()  # the oldest, which that has looked at
        self.since_ms = since_ms

    def __iter__(self) -> Iterator[Step]:
        return chain(self._passed, self._steps)

    def __len__(self) -> int:
        return self._cost

    def since_of(self, source: str | None) -> int:
        """From then on none of this source's is missing."""
        return max(self.since_ms, self._thinned.get(source, 0))

    def add(self, step: Step) -> None:
        source, cost = self._source(step), _cost(step)
        self._steps.append(step)
        self._cost += cost
        self._held[source] = self._held.get(source, 0) + cost
        over = self._cost > self._most and self._thinning is None
        if over and source is not None and self._held[source] > self._most // SHARES:
            self._thinning = source, self._held[source] // 2
        if self._thinning is not None:
            self._thin(*self._thinning, newest=step)
        while self._cost > self._most and self._thinning is None:
            gone = self._steps.popleft()
            self._forget(gone)
            self.since_ms = gone.time_ms + 1

    def _thin(self, source: str, most: int, newest: Step) -> None:
        """Its older half goes, and never its newest; all at once, so that they are not looked for at each step. It is
        gone through in parts: meanwhile the ring may have as many steps too much as there are parts."""
        for _ in range(THINNED_AT_ONCE):
            if self._held.get(source, 0) <= most or self._steps[0] is newest:
                self._steps.extendleft(reversed(self._passed))
                self._passed.clear()
                self._thinning = None
                return
            step = self._steps.popleft()
            if self._source(step) == source:
                self._thinned[source] = step.time_ms + 1
                self._forget(step)
            else:
                self._passed.append(step)

    def _forget(self, step: Step) -> None:
        source, cost = self._source(step), _cost(step)
        self._cost -= cost
        self._held[source] -= cost
        if not self._held[source]:  # ``since_ms`` covers what it lost
            del self._held[source]
            self._thinned.pop(source, None)


def _cost(step: Step) -> int:
    return 1 + (len(step.streams) if step.streams else 0) + (len(step.kept) // 8 if step.kept else 0)


class Trace:
    """``messages`` and ``steps``: how many are kept, 0 for none; ``wall``: Unix seconds. What a client can make happen
    as often as it likes (it joins and leaves) does not push out who came and went, nor who was refused."""

    def __init__(self, *, messages: int, steps: int, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self.on = steps > 0
        since_ms = self._now_ms()
        self._since_ms = since_ms
        # A number is the time (Unix ms) at which what stands before it had gone out. It is the only thing that a
        # delivery costs: the hub appends to it, and who observes its turns (ages.py).
        self.fanned: FanOuts = deque(maxlen=2 * messages)
        self.connections = Ring(steps, since_ms)
        self.streams = Ring(steps, since_ms)
        self.refusals = Ring(REFUSALS if self.on else 0, since_ms, lambda step: step.address)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    @property
    def since_ms(self) -> int:
        """From then on nothing of a connection is missing."""
        return max(self.connections.since_ms, self.streams.since_ms)

    def since_of(self, client: str | None) -> int:
        """The same, of this client."""
        return max(self.connections.since_of(client), self.streams.since_of(client))

    def steps(self) -> Iterable[Step]:
        """All that is kept now, in the order of their times."""
        return merge(*map(list, (self.connections, self.streams, self.refusals)), key=lambda step: step.time_ms)

    # Messages

    def fan_outs(self) -> Iterator[tuple[str, Position, int, Fanned]]:
        """What went out here, the newest first: a stream, the position of the last of so many messages, and when and
        to how many that was. To be gone through in parts: there may be hundreds of thousands."""
        time_ms = self._now_ms()
        for entry in reversed(list(self.fanned)):
            if isinstance(entry, float):
                time_ms = int(entry)
                continue
            name, end, messages, followers = entry
            yield name, end, messages, Fanned(time_ms, followers)

    # Connections

    def connected(self, session: Session) -> None:
        """It was welcomed, and is where it was told that delivery begins: each of its streams has a track still."""
        if self.on:
            tracks = session.tracks.items()
            starts = {stream: Position(track.epoch, track.offset) for stream, track in tracks}
            self._begun("connected", session, starts)

    def resumed(self, session: Session, starts: Cursor) -> None:
        """It came from another node, or back to this one."""
        if self.on:
            self._begun("resumed", session, starts)

    def _begun(self, kind: Kind, session: Session, starts: Cursor) -> None:
        self.connections.add(
            Step(
                time_ms=self._now_ms(),
                kind=kind,
                client=session.client,
                connection=session.connection,
                worker=worker_of(session),
                streams=starts,
            )
        )

    def refused(self, error: Refused, client: str | None, address: str | None) -> None:
        """A handshake. ``client`` is who it said to be: that proves nothing."""
        if self.on:
            self.refusals.add(
                Step(
                    time_ms=self._now_ms(),
                    kind="refused",
                    client=client,
                    code=error.code,
                    status=error.status,
                    message=error.message[:300],
                    address=address,
                )
            )

    def ended(self, session: Session, code: int | None) -> None:
        """Nothing of any stream is queued from here on. To be called while it has its streams. ``code``: ours, None
        where the peer ends it."""
        if not (self.on and session.welcomed):
            return
        wire, places = session.wire, session.positions()
        waiting: Sequence[bytes] = ()
        if isinstance(wire, Outbox):  # what a slow consumer has in part it gets whole, before our close frame
            waiting = wire.frames if code == CloseCode.SLOW_CONSUMER else wire.waiting
        confirmations = session.confirmations
        self.connections.add(
            Step(
                time_ms=self._now_ms(),
                kind="ended",
                client=session.client,
                connection=session.connection,
                code=code,
                worker=worker_of(session),
                streams=places,
                unsent_bytes=wire.size,
                unsent=unsent_of(waiting, places),
                confirmed=None if confirmations is None else confirmations.confirmed,
            )
        )

    def closed(self, session: Session, code: int, *, answered: bool) -> None:
        """Its socket is closed. ``answered``: all that was queued before our close frame has arrived."""
        self._of("closed", session, self.connections, code=int(code), answered=answered)

    def moved(self, session: Session) -> None:
        """Its client goes on at another node."""
        self._of("moved", session, self.connections)

    # Their streams

    def joined(self, session: Session, stream: str, was: Position | None = None) -> None:
        """It is where it was told that delivery begins. ``was``: where it was in a stream that it had."""
        position = session.position(stream)
        self._of("joined", session, self.streams, stream=stream, epoch=position.epoch, offset=position.offset, was=was)

    def join_refused(self, session: Session, group: str, error: Refused) -> None:
        stream = group_stream(group) if is_id(group) else None
        self._of("join_refused", session, self.streams, stream=stream, code=error.code, message=error.message[:300])

    def left(self, session: Session, stream: str, reason: str, position: Position | None = None) -> None:
        """``position``: how far it had come; None where it was never in it."""
        epoch, offset = (None, None) if position is None else (position.epoch, position.offset)
        self._of("left", session, self.streams, stream=stream, epoch=epoch, offset=offset, reason=reason)

    def gap(self, session: Session | None, gap: Gap, kept: Sequence[int] = ()) -> None:
        """It is told of a gap; without a session all are that are live in the stream here. ``kept``: offsets within
        that it is told all the same."""
        if self.on:
            self.streams.add(
                Step(
                    time_ms=self._now_ms(),
                    kind="gap",
                    client=None if session is None else session.client,
                    connection=None if session is None else session.connection,
                    stream=gap.stream,
                    epoch=gap.epoch,
                    first=gap.first,
                    last=gap.last,
                    reason=gap.reason,
                    kept=tuple(kept)[:KEPT_OFFSETS] if kept else None,
                )
            )

    def slow(self, session: Session, stream: str, policy: str) -> None:
        """It fell back from live to its journal."""
        self._of("slow", session, self.streams, stream=stream, reason=policy, unsent_bytes=session.wire.size)

    def _of(self, kind: Kind, session: Session, ring: Ring, **more: object) -> None:
        if self.on:
            step = Step(
                time_ms=self._now_ms(),
                kind=kind,
                client=session.client,
                connection=session.connection,
                **more,  # type: ignore[arg-type]
            )
            ring.add(step)

    # Nodes

    def node(self, about: str, what: Literal["came", "stopped", "died"]) -> None:
        """Another node was found to be there, or no longer."""
        kinds: dict[str, Kind] = {"came": "node_came", "stopped": "node_stopped", "died": "node_died"}
        if self.on:
            self.connections.add(Step(time_ms=self._now_ms(), kind=kinds[what], about=about))

    def lost(self, info: ConnectionInfo) -> None:
        """A connection whose node has died, as presence still had it."""
        if self.on:
            self.connections.add(
                Step(
                    time_ms=self._now_ms(), kind="lost", client=info.client, connection=info.connection, about=info.node
                )
            )

    def broker(self, kind: Literal["broker_lost", "broker_ready"], error: str | None = None) -> None:
        if self.on:
            self.connections.add(Step(time_ms=self._now_ms(), kind=kind, message=error))


def worker_of(session: Session) -> str | None:
    """The edge's worker that has its client's socket; None where the socket is this node's."""
    sink = session.wire.sink
    return None if sink is None else sink.worker


def unsent_of(frames: Sequence[bytes], streams: Iterable[str]) -> Cursor:
    """Of each of these streams the first message among frames that wait.

    Most streams have none among the many that one of them has. That is seen in all of the bytes at once, which takes
    less than half of the time that frame by frame would (8 ms for 1 MiB of the smallest messages).
    """
    found = _firsts(frames[:LOOK_AT_FRAMES], set(streams))
    rest = frames[LOOK_AT_FRAMES:]
    if rest:
        whole = b"".join(rest)
        found |= _firsts(rest, {name for name in streams if name not in found and b'"%s"' % name.encode() in whole})
    return found


def _firsts(frames: Sequence[bytes], wanted: set[str]) -> Cursor:
    """``wanted`` is emptied of what is found."""
    found: Cursor = {}
    for frame in frames:
        if not wanted:
            break
        head = _MESSAGE.match(frame, 0, 512)
        if head is not None and (name := head[1].decode()) in wanted:
            found[name] = Position(head[2].decode(), int(head[3]))
            wanted.discard(name)
    return found


OFF = Trace(messages=0, steps=0)
