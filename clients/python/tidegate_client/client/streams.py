"""The streams of a client: where it stands in each, what it follows, and what it asks of the gateway. Pure: what is to
be sent goes to ``send``, what is to be told into the inboxes.

Each wish for a group (a join, a leave) has a number. The gateway's answer to a wish counts only while it is the
newest; one command of a group is under way at a time. Source: clients/README.md, The machine, 4 and 6 to 8."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tidegate_client.client import cursor
from tidegate_client.client.inbox import Inbox
from tidegate_client.client.model import Gap, Joined, Left, Message, Position, group_of

# The client's own stream, whose name is not known before the first welcome.
DIRECT = "client:"
ALL = "all"

_TARGET_CHARS = 6 * 1024


@dataclass(eq=False)
class Stream:
    key: str
    name: str | None
    inbox: Inbox | None = None
    position: Position | None = None  # received
    seen: Position | None = None  # the last that came on this connection, taken or not
    wished: bool = False
    number: int = 0  # of the newest wish
    confirmed: int | None = None  # the wish that the gateway has carried out on this connection
    under_way: int | None = None  # the wish whose command is under way
    present: bool = False  # the gateway has us in it, on this connection
    awaits_left: bool = False  # a welcome lacked it: the gateway will say why
    was_left: bool = False  # by leave()
    is_vague: bool = False  # a gap did not say where it ends: whatever comes next follows
    dropped: bool = False  # something came that was not taken, since ``position``
    paused: bool = False  # takes nothing until it has gone back to ``position``
    replay: int = 0  # so many messages are still to come from the journal

    @property
    def is_own(self) -> bool:
        return self.key in (DIRECT, ALL)

    @property
    def is_open(self) -> bool:
        """Whether what comes is taken."""
        if self.inbox is None or self.paused:
            return False
        return self.present if self.is_own else self.present and self.confirmed == self.number


@dataclass(frozen=True, slots=True)
class Asked:
    """What an attempt asks for in its query: positions by the cursor, groups by name, each with its wish's number."""

    query: str
    given: Mapping[str, Position] = field(default_factory=dict)
    wishes: Mapping[str, int] = field(default_factory=dict)


class Streams:
    """``send(stream, number, command)`` is given joins and leaves without an id, and their answer goes to ``answered``;
    ``again()`` asks for a new connection beside this one; ``changed()`` says that there is something new to store."""

    def __init__(
        self,
        send: Callable[[Stream, int, dict[str, Any]], None],
        again: Callable[[], None],
        changed: Callable[[], None],
        last: bool = False,
        device: str | None = None,
    ) -> None:
        self.client: str | None = None
        self.duplicates = 0
        self._send, self._again, self._changed = send, again, changed
        self._last, self._device = last, device
        self._streams: dict[str, Stream] = {}
        self._linked = False
        self.stream(DIRECT)
        self.stream(ALL)

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def stream(self, name: str) -> Stream:
        key = DIRECT if name.startswith(DIRECT) else name
        if key not in self._streams:
            self._streams[key] = Stream(key, None if key == DIRECT else key)
        return self._streams[key]

    def positions(self) -> dict[str, Position]:
        """What was received."""
        return {stream.name: stream.position for stream in self._streams.values() if stream.name and stream.position}

    # What is wished

    def stored(self) -> dict[str, Position]:
        """What was dealt with; of streams without a handler, what they were told first."""
        found = {}
        for stream in self._streams.values():
            at = stream.position if stream.inbox is None else None if stream.inbox.loads else stream.inbox.done
            if stream.name and at is not None:
                found[stream.name] = at
        return found

    def restore(self, client: str | None, positions: Mapping[str, Position]) -> None:
        """Positions of an earlier process. What is known by now is newer."""
        if client is not None and self.client is None:
            self._is(client)
        for name, at in positions.items():
            stream = self.stream(name)
            if stream.position is None and not (stream.inbox is not None and stream.inbox.loads):
                stream.name = name
                stream.position = at
                if stream.inbox is not None:
                    stream.inbox.done = at

    def subscribe(self, name: str, inbox: Inbox) -> Stream:
        stream = self.stream(name)
        stream.inbox, stream.was_left = inbox, False
        if inbox.loads:
            stream.position = None
        inbox.done = stream.position
        if stream.is_own:
            if self._linked and inbox.loads and stream.seen is not None:
                stream.position = stream.seen
                inbox.joined(None, stream.seen, afresh=True)
            elif stream.dropped and self._linked:
                stream.paused = True
                self._again()
        else:
            self.wish(stream)
        return stream

    def wish(self, stream: Stream) -> None:
        stream.wished, stream.awaits_left, stream.paused = True, False, False
        stream.number += 1
        self._settle(stream)

    def unsubscribe(self, stream: Stream) -> None:
        """Nothing more of it is told. For a group: it is left."""
        stream.inbox = None
        stream.wished = False
        stream.number += 1
        if stream.is_own:
            return
        stream.was_left = True
        self._forget(stream)
        self._settle(stream)

    def leave(self, name: str) -> None:
        """Leaves a group that nobody here has subscribed to: a lasting one."""
        self.unsubscribe(self.stream(name))

    def back_to(self, stream: Stream, at: Position) -> None:
        """The stream is to be taken anew from behind ``at``; what comes until then is passed over."""
        stream.position = at
        self._take_again(stream)

    def make_room(self, stream: Stream) -> None:
        """The handler has dealt with something: a stream that was paused may go on."""
        if not (stream.paused and self._linked and self._has_room(stream)):
            return
        if stream.is_own:
            self._again()
        elif stream.confirmed == stream.number:
            self._take_again(stream)
        else:
            self._settle(stream)

    # Connections

    def asked(self, target: str, groups_limit: int) -> Asked:
        """The query for a new connection, as far as there is room behind ``target`` (the path, and a query so far)."""
        given: dict[str, Position] = {}
        parts: list[str] = []
        if self._last:
            parts.append("cursor=last")
            if self._device:
                parts.append(f"device={quote(self._device)}")
        else:
            room = _TARGET_CHARS - len(target) - len("&cursor=")
            by_name = cursor.fit(self._resumable(groups_limit), room)
            if by_name:
                parts.append(f"cursor={cursor.encode(by_name)}")
            given = {self.stream(name).key: at for name, at in by_name.items()}
        wishes = {key: self._streams[key].number for key in given}
        names: list[str] = []
        left = _TARGET_CHARS - len(target) - sum(len(part) + 1 for part in parts) - len("&groups=")
        count = sum(not self._streams[key].is_own for key in given)
        for stream in self._streams.values():
            name = group_of(stream.key)
            if name is None or not stream.wished or stream.key in given:
                continue
            if not self._last and (stream.position is not None or stream.paused):
                continue
            cost = len(quote(name)) + 1
            if cost <= left and count < groups_limit:
                names.append(quote(name))
                left, count = left - cost, count + 1
                wishes[stream.key] = stream.number
        if names:
            parts.append("groups=" + ",".join(names))
        return Asked("&".join(parts), given, wishes)

    def cut(self) -> None:
        """No connection, for the time being."""
        self._linked = False
        for stream in self._streams.values():
            stream.present, stream.confirmed, stream.under_way = False, None, None
            stream.awaits_left, stream.replay, stream.seen = False, 0, None

    def welcome(self, client: str, streams: Mapping[str, Any], asked: Asked, told: bool) -> None:
        """A connection that ``asked`` was welcomed. ``told``: the subscriptions are to be told so."""
        self.cut()
        self._linked = True
        self._is(client)
        for name, state in streams.items():
            if not isinstance(state, Mapping) or not cursor.is_position(state.get("epoch"), state.get("offset")):
                continue
            stream = self.stream(name)
            stream.name, stream.present = name, True
            stream.seen = Position(state["epoch"], state["offset"])
            if stream.is_own:
                self._welcome_own(stream, state, asked, told)
            else:
                self._welcome_group(stream, state, asked, told)
        for stream in list(self._streams.values()):
            if stream.wished and not stream.present and asked.wishes.get(stream.key) == stream.number:
                stream.awaits_left = True
                self._forget(stream)
            if not stream.is_own:
                self._settle(stream)

    # Events

    def message(self, event: Mapping[str, Any]) -> None:
        stream, epoch, offset = self._known(event), event.get("epoch"), event.get("offset")
        if stream is None or not isinstance(epoch, str) or not isinstance(offset, int):
            return
        stream.seen = Position(epoch, offset)
        missed = stream.replay > 0
        stream.replay -= missed
        if not stream.is_open or stream.inbox is None:
            stream.dropped = True
            return
        at, name = stream.position, event["stream"]
        gap: Gap | None = None
        if at is not None and at.epoch != epoch:
            gap = Gap(name, epoch, None, offset - 1, "reset")
        elif at is not None and not stream.is_vague:
            if offset <= at.offset:
                self.duplicates += 1
                return
            if offset > at.offset + 1:
                gap = Gap(name, epoch, at.offset + 1, offset - 1, "hole")
        if gap is not None:
            stream.position = Position(epoch, offset - 1)
            stream.inbox.gap(gap, stream.position)
        time, by = event.get("time"), event.get("client")
        message = Message(
            name, epoch, offset, time if isinstance(time, int) else 0, event.get("data"),
            by if isinstance(by, str) else None, missed,
        )  # fmt: skip
        if stream.inbox.put(message):
            stream.position, stream.is_vague = Position(epoch, offset), False
        else:
            stream.paused = stream.dropped = True

    def gap(self, event: Mapping[str, Any]) -> None:
        stream, epoch, first, last = self._known(event), event.get("epoch"), event.get("from"), event.get("to")
        if stream is None or not isinstance(epoch, str) or not isinstance(last, int | None):
            return
        end = stream.seen if last is None and stream.seen is not None and stream.seen.epoch == epoch else None
        stream.seen = end or Position(epoch, last or 0)
        if not stream.is_open or stream.inbox is None:
            stream.dropped = True
            return
        at = stream.position
        if isinstance(first, int) and at is not None and at.epoch == epoch and first <= at.offset:
            # It begins where this connection did, and another one has brought more since.
            if last is not None and last <= at.offset:
                return
            first = at.offset + 1
        if last is not None or at is None or at.epoch != epoch:
            stream.position = Position(epoch, last or 0)
        assert stream.position is not None
        stream.is_vague = last is None
        stream.inbox.gap(Gap(event["stream"], epoch, first, last, str(event.get("reason"))), stream.position)

    def joined(self, event: Mapping[str, Any]) -> None:
        """The application made us a member."""
        if not isinstance(name := event.get("stream"), str) or group_of(name) is None:
            return
        if not cursor.is_position(event.get("epoch"), event.get("offset")):
            return
        stream = self.stream(name)
        stream.present = True
        if stream.under_way is not None:
            return  # the answer to our own command decides
        if stream.inbox is None:
            self._keep_first(stream, event)
        elif stream.confirmed != stream.number or not stream.wished:
            stream.wished, stream.awaits_left, stream.confirmed = True, False, stream.number
            stream.position = None
            self._told(stream, event, told=True)

    def left(self, event: Mapping[str, Any]) -> None:
        """We were taken out, or not let in."""
        if not isinstance(name := event.get("stream"), str) or group_of(name) is None or name not in self._streams:
            return
        stream = self._streams[name]
        stream.present = False
        if stream.under_way is None:
            self._refused(stream, str(event.get("reason")))

    def answered(self, stream: Stream, number: int, event: Mapping[str, Any]) -> None:
        """The answer to a join or leave that ``send`` was given with ``number``. Where it is void nothing is to be
        done."""
        if stream.under_way != number:
            return
        stream.under_way = None
        is_join, good = number > 0, event.get("type") == "reply"
        if not is_join:
            stream.present = False
        elif good and cursor.is_position(event.get("epoch"), event.get("offset")):
            stream.present = True
            if stream.wished and number == stream.number:
                stream.confirmed = number
                quiet, stream.paused = stream.paused, False
                if stream.position is not None:
                    stream.position = Position(event["epoch"], event["offset"])
                self._told(stream, event, told=not quiet)
        elif stream.wished and number == stream.number:
            self._refused(stream, str(event.get("code")))
        self._settle(stream)

    def repeat(self, stream: Stream, number: int) -> None:
        """The command that ``send`` was given with ``number`` came to nothing, and may be sent again."""
        if stream.under_way == number:
            stream.under_way = None
            self._settle(stream)

    def is_settled(self) -> bool:
        """Whether each group that is wished was joined or refused."""
        return self._linked and all(
            stream.awaits_left or stream.paused or stream.confirmed == stream.number
            for stream in self._streams.values()
            if stream.wished
        )

    # Within

    def _known(self, event: Mapping[str, Any]) -> Stream | None:
        name = event.get("stream")
        return self._streams.get(DIRECT if name.startswith(DIRECT) else name) if isinstance(name, str) else None

    def _is(self, client: str) -> None:
        """Positions of another client are worth nothing."""
        if self.client is not None and self.client != client:
            for stream in self._streams.values():
                stream.position, stream.dropped = None, False
                if stream.inbox is not None:
                    stream.inbox.clear()
        self.client = client
        self._streams[DIRECT].name = DIRECT + client

    def identify(self, client: str) -> None:
        """The next connection will be this client's."""
        self._is(client)

    def _resumable(self, groups_limit: int) -> Iterable[tuple[str, Position]]:
        groups = 0
        own = [self._streams[DIRECT], self._streams[ALL]]
        for stream in own + [stream for stream in self._streams.values() if not stream.is_own]:
            at, takes = stream.position, stream.is_own or (stream.wished and not stream.paused)
            if at is None or stream.name is None or not takes:
                continue
            groups += not stream.is_own
            if groups <= groups_limit or stream.is_own:
                yield stream.name, at

    def _welcome_own(self, stream: Stream, state: Mapping[str, Any], asked: Asked, told: bool) -> None:
        if stream.inbox is None:
            self._keep_first(stream, state)
            return
        given, at = asked.given.get(stream.key), stream.position
        if stream.paused and at is not None and given is not None and given != at and not _is_behind(given, at):
            self._again()  # it was put back since the query was made
            return
        if stream.paused and not stream.inbox.has_room:
            return
        stream.paused = False
        self._told(stream, state, told)

    def _welcome_group(self, stream: Stream, state: Mapping[str, Any], asked: Asked, told: bool) -> None:
        if stream.inbox is None:
            if not stream.was_left:
                self._keep_first(stream, state)
            return
        if not stream.wished:
            # It was left from outside, and a lasting membership brings it back.
            stream.wished, stream.position = True, None
        elif asked.wishes.get(stream.key) != stream.number and (asked.wishes.get(stream.key) or stream.position):
            return  # another wish than this one was asked for: it is joined, with its position
        if stream.paused:
            return
        stream.confirmed = stream.number
        self._told(stream, state, told)

    def _keep_first(self, stream: Stream, state: Mapping[str, Any]) -> None:
        if stream.position is None:
            stream.position = Position(state["epoch"], state["offset"])
            self._changed()

    def _told(self, stream: Stream, state: Mapping[str, Any], told: bool) -> None:
        """The gateway says where the stream goes on. What was received meanwhile by another connection stays
        received."""
        assert stream.inbox is not None
        epoch, offset, at = state["epoch"], state["offset"], stream.position
        recovered, missed, top = state.get("recovered"), state.get("missed"), state.get("top")
        afresh = recovered is None or at is None
        if afresh or at is None or at.epoch != epoch or offset > at.offset:
            stream.position = Position(epoch, offset)
        if recovered is None and at is not None and at != stream.position and not stream.inbox.loads:
            # It begins elsewhere, without a word.
            stream.inbox.gap(Gap(stream.name or stream.key, epoch, None, offset, "reset"), Position(epoch, offset))
        stream.dropped = stream.is_vague = False
        stream.replay = missed if isinstance(missed, int) else 0
        joined = Joined(
            stream.name or stream.key, offset, top if isinstance(top, int) else offset,
            recovered if isinstance(recovered, bool) else None, stream.replay,
        )  # fmt: skip
        stream.inbox.joined(joined if told else None, stream.position or Position(epoch, offset), afresh)

    def _refused(self, stream: Stream, reason: str) -> None:
        had = stream.wished
        stream.wished, stream.confirmed, stream.awaits_left, stream.paused = False, None, False, False
        self._forget(stream)
        if stream.inbox is not None and had:
            stream.inbox.left(Left(stream.key, reason))

    def _forget(self, stream: Stream) -> None:
        stream.position, stream.dropped, stream.replay = None, False, 0
        if stream.inbox is not None:
            stream.inbox.done = None
        self._changed()

    def _take_again(self, stream: Stream) -> None:
        stream.paused = True
        if stream.is_own:
            if self._linked:
                self._again()
            return
        stream.number += 1
        self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        """Sends what is missing between what is wished and what the gateway has been told."""
        name = group_of(stream.key)
        if not self._linked or name is None or stream.under_way is not None or stream.awaits_left:
            return
        if stream.wished:
            if stream.confirmed == stream.number or (stream.paused and not self._has_room(stream)):
                return
            command: dict[str, Any] = {"type": "join", "group": name}
            if (at := stream.position) is not None:
                command |= {"epoch": at.epoch, "offset": at.offset}
            stream.under_way = stream.number
            self._send(stream, stream.number, command)
        elif stream.present and stream.was_left:
            stream.under_way = -stream.number
            self._send(stream, -stream.number, {"type": "leave", "group": name})

    def _has_room(self, stream: Stream) -> bool:
        return stream.inbox is not None and stream.inbox.has_room


def _is_behind(at: Position, other: Position) -> bool:
    """Whether ``at`` is not after ``other``: a stream that goes on from there tells everything behind ``other``."""
    return at.epoch == other.epoch and at.offset <= other.offset
