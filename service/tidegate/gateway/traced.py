"""What this node answers to a question about a message or a client, from what it remembers (trace.py) and from where
its connections stand now.

To whom a message went is not kept; it follows. A *span* is a time in which a connection followed the stream: it began
after a position and has come, or had come when it ended, to another. A message between the two was queued. It was
written, if it does not wait; and it arrived, if a pong proves it.

Whoever asks gets an answer in slices of the loop's time, and a bounded one. Nodes of other versions may ask and answer:
what is not known is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Literal, TypeVar

import msgspec

from tidegate.brokers.contract import NodeChange
from tidegate.core.errors import CloseCode
from tidegate.core.hub import Audience, Hub
from tidegate.core.model import ConnectionInfo, Cursor, Position, kind_of
from tidegate.core.outbox import Outbox
from tidegate.core.session import Session
from tidegate.trace import Fanned, Step, Trace, unsent_of, worker_of

_T = TypeVar("_T")

SLICE_S = 0.005  # of one turn of the loop: a connection with much unsent takes some milliseconds

CLAIMS = 25  # refused handshakes that are told of a client

# Best first: of several spans of a connection the best one tells what became of a message.
STATES = (
    "confirmed",
    "written",
    "handed",
    "unsent",
    "thrown_away",
    "waiting",
    "skipped",
    "expired",
    "reset",
    "closed_before",
    "left",
    "later",
    "unknown",
)
GOOD = STATES[:3]

_NODES = ("node_came", "node_stopped", "node_died", "broker_lost", "broker_ready")
_TROUBLE = ("gap", "slow")


class Question(msgspec.Struct, omit_defaults=True):
    """What is asked of every node. ``time_ms``: when the message was journalled, as far as that is known. ``earlier``:
    whether the stream had another epoch before this one, too."""

    about: Literal["message", "client", "refusals"]
    limit: int
    client: str | None = None
    stream: str = ""
    epoch: str = ""
    offset: int = 0
    time_ms: int | None = None
    earlier: bool = False


class Delivery(msgspec.Struct, omit_defaults=True):
    """What became of the message for one connection. ``start``: after what its delivery began; ``since_ms``: when.
    ``replayed``: it was read from the journal for it. ``code``: of its end."""

    client: str
    connection: str
    state: str
    replayed: bool = False
    worker: str | None = None
    start: Position | None = None
    since_ms: int | None = None
    ended_ms: int | None = None
    code: int | None = None
    unsent_bytes: int = 0


class Standing(msgspec.Struct, frozen=True):
    """Where a connection is in a stream. ``state``: live, or its track's. ``confirmed``: None without cursor=last."""

    epoch: str
    offset: int
    state: str
    confirmed: int | None = None


class Connected(msgspec.Struct, omit_defaults=True):
    """A connection that is there now."""

    connection: str
    since_ms: int
    unsent_bytes: int
    positions: dict[str, Standing]
    worker: str | None = None
    device: str | None = None


class Answer(msgspec.Struct, omit_defaults=True):
    """A node's. ``off``: it remembers nothing. ``workers``: of edges, and to how many of its connections each was
    handed the message. ``counts``: deliveries by their state, all of them; ``deliveries``: up to the question's limit,
    those in trouble first."""

    node: str
    since_ms: int
    off: bool = False
    follows: bool = False
    position: Position | None = None
    heard: Fanned | None = None
    earlier: Position | None = None
    counts: dict[str, int] = {}
    workers: dict[str, int] = {}
    deliveries: list[Delivery] = []
    connections: list[Connected] = []
    steps: list[Step] = []


def read_answer(raw: bytes) -> Answer:
    """What another node says. A newer one may have states that are not known here. Raises msgspec.MsgspecError."""
    answer = msgspec.json.decode(raw, type=Answer)
    for each in answer.deliveries:
        if each.state not in STATES:
            each.state = "unknown"
    return answer


class Span(msgspec.Struct):
    """``start`` None: before what is remembered. ``end`` None: it goes on, or how far it came is not known.
    ``last``: the step of its connection's end."""

    start: Position | None = None
    since_ms: int | None = None
    end: Position | None = None
    until_ms: int | None = None
    last: Step | None = None


class _Connection(msgspec.Struct):
    """What the steps say of one connection and the stream that is asked about."""

    client: str
    spans: list[Span] = []
    gaps: list[Step] = []
    closed: Step | None = None
    slow_ms: int | None = None


class Traced:
    """This node, as the others know it. ``on_question`` gives an ``Answer`` to a ``Question``, both as JSON."""

    def __init__(self, trace: Trace, hub: Hub, node: str) -> None:
        self._trace = trace
        self._hub = hub
        self._node = node

    async def on_question(self, raw: bytes) -> bytes:
        """Raises msgspec.MsgspecError for a question of another version that is not understood."""
        return msgspec.json.encode(await self.answer(msgspec.json.decode(raw, type=Question)))

    async def place(self, stream: str) -> Position:
        """The newest of the stream that this node knows of; without an epoch where it knows of none."""
        audience = self._hub.audiences.get(stream)
        if audience is not None:
            return audience.position
        async for end, _, _ in self._fan_outs(stream):
            return end
        return Position("", 0)

    async def heard(self, stream: str, position: Position) -> Fanned | None:
        """When a message went out here. None: it did not, or that is forgotten."""
        async for end, messages, fanned in self._fan_outs(stream):
            if end.epoch == position.epoch and 0 <= end.offset - position.offset < messages:
                return fanned
        return None

    async def _earlier(self, stream: str, epoch: str) -> Position | None:
        """The newest of the stream's messages that went out here under another epoch."""
        async for end, _, _ in self._fan_outs(stream):
            if end.epoch != epoch:
                return end
        return None

    async def _fan_outs(self, stream: str) -> AsyncIterator[tuple[Position, int, Fanned]]:
        """Those of the stream, as ``Trace.fan_outs`` has them."""
        async for name, end, messages, fanned in _sliced(self._trace.fan_outs()):
            if name == stream:
                yield end, messages, fanned

    def on_node(self, node: str, what: NodeChange) -> None:
        self._trace.node(node, what)

    def on_lost(self, info: ConnectionInfo) -> None:
        self._trace.lost(info)

    async def answer(self, question: Question) -> Answer:
        answer = Answer(self._node, self._trace.since_of(question.client), not self._trace.on)
        if question.about == "refusals":
            answer.since_ms = self._trace.refusals.since_ms
            answer.steps = list(self._trace.refusals)[-question.limit :]
            return answer
        if question.client is not None:
            answer.connections = [_connected(session) for session in self._hub.of_client(question.client)]
        if question.about == "client":
            steps = [step async for step in _sliced(self._trace.steps()) if _concerns(step, question.client)]
            answer.steps = _newest(steps, question.limit)
        else:
            await self._follow_message(question, answer)
        return answer

    async def _follow_message(self, question: Question, answer: Answer) -> None:
        audience = self._hub.audiences.get(question.stream)
        if audience is not None:
            answer.follows, answer.position = True, audience.position
        answer.heard = await self.heard(question.stream, Position(question.epoch, question.offset))
        if question.earlier:
            answer.earlier = await self._earlier(question.stream, question.epoch)
        known: dict[str, _Connection] = {}
        told: list[Step] = []  # gaps that all were told who were live
        steps: list[Step] = []
        async for step in _sliced(self._trace.steps()):
            if step.kind == "gap" and step.connection is None and step.stream == question.stream:
                told.append(step)
            if step.client is None or question.client in (None, step.client):
                _note(known, step, question.stream)
            if _belongs(step, question):
                steps.append(step)
        deliveries = [each async for each in self._deliveries(question, known, told, audience)]
        answer.counts = dict(Counter(each.state for each in deliveries))
        answer.workers = dict(Counter(each.worker for each in deliveries if each.worker and each.state in GOOD))
        deliveries.sort(key=lambda each: (each.state in GOOD, -STATES.index(each.state)))
        answer.deliveries = deliveries[: question.limit]
        shown = {each.connection for each in answer.deliveries[:100] if each.state not in GOOD}
        ends = [each.closed for name, each in known.items() if name in shown and each.closed is not None]
        answer.steps = _newest(steps if question.client else [*steps, *ends], question.limit)

    async def _deliveries(
        self, question: Question, known: dict[str, _Connection], told: list[Step], audience: Audience | None
    ) -> AsyncIterator[Delivery]:
        live = _following(audience, question.client)
        async for session in _sliced(live):
            view = known.pop(session.connection, None) or _Connection(session.client)
            if question.stream not in session.streams:
                continue  # it has left while others were looked at
            if not view.spans or view.spans[-1].until_ms is not None:
                view.spans.append(Span())
            yield self._best(question, session.connection, view, told, session)
        async for name, view in _sliced(known.items()):
            if view.spans and (question.client is not None or _overlaps(view.spans, question.time_ms)):
                yield self._best(question, name, view, told, None)

    def _best(
        self, question: Question, name: str, view: _Connection, told: list[Step], session: Session | None
    ) -> Delivery:
        found: list[Delivery] = []
        for span in view.spans:
            here = session if span is view.spans[-1] and span.until_ms is None else None
            each = Delivery(view.client, name, self._state(question, span, view, told, here))
            each.start, each.since_ms = span.start, span.since_ms
            each.worker = span.last.worker if span.last is not None else worker_of(here) if here else None
            moved_ms = max(span.since_ms or 0, view.slow_ms or 0)
            each.replayed = question.time_ms is not None and moved_ms > question.time_ms
            if span.last is not None:
                each.ended_ms, each.unsent_bytes = span.last.time_ms, span.last.unsent_bytes
                code = view.closed.code if view.closed is not None else span.last.code
                each.code = code if isinstance(code, int) else None
            elif here is not None:
                each.unsent_bytes = here.wire.size
            found.append(each)
        return min(found, key=lambda each: STATES.index(each.state))

    def _state(
        self, question: Question, span: Span, view: _Connection, told: list[Step], session: Session | None
    ) -> str:
        epoch, offset, start = question.epoch, question.offset, span.start
        at = session.position(question.stream) if session is not None else span.end
        if start is not None and start.epoch == epoch and start.offset >= offset:
            return "later"
        if at is None:
            return "unknown"
        if start is None and question.time_ms is not None and self._trace.since_of(view.client) > question.time_ms:
            # What it has from its beginning on is known by that. A group it may have joined since.
            began_ms = None if session is None else session.since_ms
            if began_ms is None or began_ms > question.time_ms or kind_of(question.stream) == "group":
                return "unknown"
        for gap in [*view.gaps, *(gap for gap in told if _within(span, gap.time_ms))]:
            if _leaves_out(gap, epoch, offset, start):
                return str(gap.reason)
        if at.epoch != epoch:
            return "reset"
        if at.offset < offset:
            return "waiting" if session is not None else "left" if span.last is None else "closed_before"
        if session is not None:
            return _state_now(question, session)
        return "written" if span.last is None else _state_at_end(question, span.last, view.closed)


def _state_now(question: Question, session: Session) -> str:
    """Of a message that was queued for a connection that is there."""
    confirmations, wire = session.confirmations, session.wire
    if confirmations is not None and _reaches(confirmations.confirmed, question):
        return "confirmed"
    if isinstance(wire, Outbox) and wire.frames:
        waits = unsent_of(wire.waiting, (question.stream,)).get(question.stream)
        if waits is not None and waits.epoch == question.epoch and waits.offset <= question.offset:
            return "unsent"
    return "handed" if wire.sink is not None else "written"


def _state_at_end(question: Question, last: Step, closed: Step | None) -> str:
    """The same, of one that has ended."""
    if last.confirmed is not None and _reaches(last.confirmed, question):
        return "confirmed"
    is_slow = CloseCode.SLOW_CONSUMER in (last.code, closed and closed.code)  # what waited was thrown away
    if closed is not None and closed.answered and not is_slow:
        return "confirmed"
    waits = (last.unsent or {}).get(question.stream)
    if waits is not None and waits.epoch == question.epoch and waits.offset <= question.offset:
        goes_out = closed is None and last.code is not None and not is_slow  # before our close frame
        return "unsent" if goes_out else "thrown_away"
    return "handed" if last.worker is not None else "written"


def _reaches(cursor: Cursor, question: Question) -> bool:
    position = cursor.get(question.stream)
    return position is not None and position.epoch == question.epoch and position.offset >= question.offset


def _leaves_out(gap: Step, epoch: str, offset: int, start: Position | None) -> bool:
    """Whether it says of the message that it is not delivered."""
    if gap.epoch == epoch and gap.first is not None and gap.last is not None:
        return gap.first <= offset <= gap.last and offset not in (gap.kept or ())
    if gap.first is None and gap.last is not None:  # a reset: what was before in any epoch, and up to ``last`` in this
        return offset <= gap.last if gap.epoch == epoch else start is not None and start.epoch == epoch
    return False


def _within(span: Span, time_ms: int) -> bool:
    return (span.since_ms or 0) <= time_ms and (span.until_ms is None or time_ms <= span.until_ms)


def _overlaps(spans: list[Span], time_ms: int | None) -> bool:
    """Whether any goes on after the message was journalled."""
    return time_ms is None or any(span.until_ms is None or span.until_ms >= time_ms for span in spans)


def _note(known: dict[str, _Connection], step: Step, stream: str) -> None:
    """What a step says of its connection and the stream; steps come in the order of their times."""
    name, client = step.connection, step.client
    if name is None or client is None:
        return
    view = known.get(name)
    if view is None:
        view = known[name] = _Connection(client)
    spans = view.spans
    is_open = bool(spans) and spans[-1].until_ms is None
    if step.kind in ("connected", "resumed") and step.streams is not None and stream in step.streams:
        view.closed = None
        spans.append(Span(step.streams[stream], step.time_ms))
    elif step.kind == "joined" and step.stream == stream and step.epoch is not None and step.offset is not None:
        if is_open:
            spans[-1].end, spans[-1].until_ms = step.was, step.time_ms
        spans.append(Span(Position(step.epoch, step.offset), step.time_ms))
    elif step.kind == "left" and step.stream == stream and step.epoch is not None and step.offset is not None:
        if not is_open:
            spans.append(Span())
        spans[-1].end, spans[-1].until_ms = Position(step.epoch, step.offset), step.time_ms
    elif step.kind == "ended" and step.streams is not None and stream in step.streams:
        if not is_open:
            spans.append(Span())
        spans[-1].end, spans[-1].until_ms, spans[-1].last = step.streams[stream], step.time_ms, step
    elif step.kind == "closed":
        view.closed = step
    elif step.kind == "gap" and step.stream == stream:
        view.gaps.append(step)
    elif step.kind == "slow" and step.stream == stream:
        view.slow_ms = step.time_ms


def _following(audience: Audience | None, client: str | None) -> list[Session]:
    if audience is None:
        return []
    found = [*audience.live, *audience.joining]
    for sessions in audience.shared.values():
        found += sessions
    return [session for session in found if client in (None, session.client)]


def _connected(session: Session) -> Connected:
    confirmed = {} if session.confirmations is None else session.confirmations.confirmed
    return Connected(
        session.connection,
        session.since_ms,
        session.wire.size,
        {
            stream: Standing(
                position.epoch, position.offset, _standing(session, stream), _same(confirmed, stream, position)
            )
            for stream, position in session.positions().items()
        },
        worker_of(session),
        session.device,
    )


def _standing(session: Session, stream: str) -> str:
    track = session.tracks.get(stream)
    return "live" if track is None else track.state.value


def _same(confirmed: Cursor, stream: str, position: Position) -> int | None:
    """The confirmed offset, where it is of the same epoch."""
    known = confirmed.get(stream)
    return None if known is None or known.epoch != position.epoch else known.offset


def _concerns(step: Step, client: str | None) -> bool:
    return step.client == client or (step.client is None and step.kind in _NODES)


def _belongs(step: Step, question: Question) -> bool:
    """Whether it is told with a message: what its client did, or what went wrong in its stream."""
    if step.kind in _NODES:
        return True
    if step.kind == "gap" and step.connection is None:
        return step.stream == question.stream
    if question.client is not None:
        return step.client == question.client and step.stream in (None, question.stream)
    return step.stream == question.stream and (step.kind in _TROUBLE or step.is_refused_join)


def _newest(steps: list[Step], limit: int) -> list[Step]:
    """Of refused handshakes no more than ``CLAIMS``: whoever names a client can make as many as he likes, and what the
    client itself did must not go under in them."""
    claims = sum(step.kind == "refused" for step in steps)
    kept: list[Step] = []
    for step in sorted(steps, key=_when):
        if step.kind == "refused":
            claims -= 1
            if claims >= CLAIMS:
                continue
        kept.append(step)
    return kept[-limit:]


def _when(step: Step) -> int:
    return step.time_ms


async def _sliced(items: Iterable[_T]) -> AsyncIterator[_T]:
    """The same, with turns of the loop between; nothing else may change what it goes through."""
    until_s = time.monotonic() + SLICE_S
    for item in items:
        yield item
        if time.monotonic() >= until_s:
            await asyncio.sleep(0)
            until_s = time.monotonic() + SLICE_S
