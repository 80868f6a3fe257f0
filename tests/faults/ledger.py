"""What happened, written down beside the gateway: what was accepted, and what each client was told. ``wrong`` says
where the two differ.

Times are the runner's, in seconds since the scenario began, and it reads its sockets in no particular order: Redis may
accept a push, be flushed, and a client be told of that, all before the runner reads that the push was accepted. So when
it was accepted is known only to be between ``asked_s`` and ``accepted_s``, and what a flush may have taken is what was
asked before the flush was over; or, of what was pushed through Redis, the entries whose ids are not later than it.
"""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

ALL = ""  # in place of a group: everybody


class Push:
    """One message to a group, or to everybody: ``number`` counts its pusher's messages to its stream. ``accepted_s`` is
    None until it was. ``size``: bytes of it beside its id."""

    __slots__ = (
        "accepted_s",
        "asked_s",
        "entry",
        "group",
        "id",
        "number",
        "position",
        "pusher",
        "refusals",
        "size",
        "stream",
    )

    def __init__(self, id: int, pusher: str, group: str, number: int, size: int = 0) -> None:
        self.id = id
        self.size = size
        self.pusher = pusher
        self.group = group
        self.stream = f"group:{group}" if group else "all"
        self.number = number
        self.asked_s = 0.0  # for the last time
        self.accepted_s: float | None = None
        self.position: tuple[str, int] | None = None  # of a push through HTTP
        self.entry: str | None = None  # id of a push through Redis
        self.refusals: list[tuple[float, float, str]] = []  # when asked, when answered, what

    @property
    def path(self) -> str:
        return f"groups/{self.group}" if self.group else "all"

    @property
    def data(self) -> dict[str, Any]:
        return {"id": self.id, "fill": "x" * self.size} if self.size else {"id": self.id}


class Flush(NamedTuple):
    begun_s: float
    end_s: float
    redis_ms: int  # by Redis' clock, which gives entries their ids

    def may_have_taken(self, push: Push) -> bool:
        if push.entry is not None:
            return int(push.entry.partition("-")[0]) <= self.redis_ms
        return push.asked_s <= self.end_s


class Ledger:
    def __init__(self) -> None:
        self.begin()
        self.pushes: list[Push] = []
        self.wrong: list[str] = []
        self.missing: list[tuple[Reader, Push]] = []  # which of them are messages that never came
        self.resets_allowed_s: list[float] = []  # when Redis lost something, or may have
        self.flushes: list[Flush] = []
        self._numbers: dict[tuple[str, str], int] = defaultdict(int)
        self._at: dict[tuple[str, str, int], int] = {}  # (stream, epoch, offset) -> id

    def begin(self) -> None:
        """Times count from now on."""
        self.begun_s, self.begun_wall_s = time.monotonic(), time.time()

    def now_s(self) -> float:
        return time.monotonic() - self.begun_s

    def push(self, pusher: str, group: str, size: int = 0) -> Push:
        self._numbers[pusher, group] += 1
        push = Push(len(self.pushes), pusher, group, self._numbers[pusher, group], size)
        self.pushes.append(push)
        return push

    def asked(self, push: Push) -> None:
        push.asked_s = self.now_s()

    def refused(self, push: Push, text: str) -> None:
        """This time; or the answer was lost."""
        push.refusals.append((push.asked_s, self.now_s(), text))

    def accepted(self, push: Push, position: tuple[str, int] | None = None, entry: str | None = None) -> None:
        push.accepted_s = self.now_s()
        push.position, push.entry = position, entry
        if position is not None:
            self.stands(push.stream, *position, push.id)

    def flushed(self, begun_s: float, redis_ms: int) -> None:
        """Redis was, between then and now."""
        self.flushes.append(Flush(begun_s, self.now_s(), redis_ms))
        self.resets_allowed_s.append(self.now_s())

    def stands(self, stream: str, epoch: str, offset: int, id: int) -> None:
        """A position was given for a message; it may never be given for another."""
        known = self._at.setdefault((stream, epoch, offset), id)
        if known != id:
            self.complain(f"{stream} {epoch}/{offset} stands for {known} and for {id}")

    def latest_s(self, readers: Iterable[Reader]) -> float:
        """How long after it was asked for the latest message came to anybody, of those pushed through HTTP: one that
        is pushed through Redis may wait for a node that takes it."""
        heard = (
            (self.pushes[id], heard_s)
            for reader in readers
            for told in reader.told.values()
            for id, (heard_s, _, _) in told.heard.items()
        )
        return max(heard_s - push.asked_s for push, heard_s in heard if push.position is not None)

    def complain(self, text: str) -> None:
        self.wrong.append(text)


class Told:
    """What one client was told of one stream."""

    __slots__ = (
        "epoch",
        "heard",
        "history",
        "joined_s",
        "last",
        "lost",
        "offset",
        "resets_s",
        "since_reset",
        "skips_s",
    )

    def __init__(self, epoch: str, offset: int, now_s: float) -> None:
        self.epoch = epoch
        self.offset = offset
        self.joined_s = now_s
        self.heard: dict[int, tuple[float, str, int]] = {}  # id -> when last, epoch, offset
        self.since_reset: set[int] = set()
        self.last: dict[str, int] = {}  # pusher -> the number of its last message
        self.lost: list[tuple[str, int, int]] = []  # (epoch, from, to) said to be expired
        self.resets_s: list[float] = []
        self.skips_s: list[float] = []  # of those that went on behind what it had
        self.history: list[tuple[float, str]] = []  # all but messages


class Reader:
    """A client's view: checks each event against what came before it, and keeps the cursor. ``reads_s``: since when it
    has read all that comes; None while it is not there, or reads nothing. ``latest_s``: when something came."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.reads_s: float | None = None
        self.latest_s = 0.0
        self.told: dict[str, Told] = {}
        self.visits: list[tuple[float, str]] = []
        self._ledger = ledger

    def cursor(self) -> str | None:
        if not self.told:
            return None
        return base64.urlsafe_b64encode(self.positions().encode()).rstrip(b"=").decode()

    def positions(self) -> str:
        return json.dumps({stream: [told.epoch, told.offset] for stream, told in self.told.items()})

    def reads(self, does: bool) -> None:
        """It begins to, or stops."""
        self.reads_s = self._ledger.now_s() if does else None

    def has(self, push: Push) -> bool:
        return push.stream in self.told and push.id in self.told[push.stream].heard

    def waits_s(self, push: Push, calm_s: float) -> float:
        """For how long it has waited for a push that was accepted, with nothing in the way and nothing coming; there
        was nothing since ``calm_s``. 0 where it need not have come."""
        if self.reads_s is None or push.accepted_s is None or push.stream not in self.told or self.has(push):
            return 0.0
        return max(0.0, self._ledger.now_s() - max(self.reads_s, self.latest_s, push.accepted_s, calm_s))

    def visit(self, text: str) -> None:
        """It comes or goes."""
        self.visits.append((self._ledger.now_s(), text))

    def take(self, event: dict[str, Any]) -> None:
        self.latest_s = self._ledger.now_s()
        match event["type"]:
            case "welcome":
                self._welcome(event["streams"])
            case "message":
                self._message(event)
            case "gap":
                self._gap(event)
            case "moving":
                pass  # it stays until it is closed
            case other:
                self._complain(event.get("stream", "-"), f"an event {other} that nobody asked for")

    def _welcome(self, streams: dict[str, dict[str, Any]]) -> None:
        for stream, state in streams.items():
            told = self.told.get(stream)
            if told is None:
                told = self.told[stream] = Told(state["epoch"], state["offset"], self._ledger.now_s())
            elif state["recovered"] and (state["epoch"], state["offset"]) != (told.epoch, told.offset):
                self._complain(stream, f"recovered from {told.epoch}/{told.offset} as {state}")
            told.history.append((self._ledger.now_s(), f"welcome {state}"))
        for stream in self.told.keys() - streams.keys():
            self._complain(stream, "forgotten by welcome")

    def _message(self, event: dict[str, Any]) -> None:
        stream, epoch, offset, id = event["stream"], event["epoch"], event["offset"], event["data"]["id"]
        told = self.told[stream]
        if (epoch, offset) != (told.epoch, told.offset + 1):
            self._complain(stream, f"after {told.epoch}/{told.offset} came {epoch}/{offset}")
        told.epoch, told.offset = epoch, offset
        self._ledger.stands(stream, epoch, offset, id)
        push = self._ledger.pushes[id]
        if push.stream != stream:
            self._complain(stream, f"message {id} is of {push.stream}")
        if len(event["data"].get("fill", "")) != push.size:
            self._complain(stream, f"message {id} is not what was pushed")
        if id in told.since_reset:
            self._complain(stream, f"message {id} came twice")
        if push.number <= told.last.get(push.pusher, 0):
            self._complain(stream, f"message {id} came behind a later one of {push.pusher}")
        told.last[push.pusher] = push.number
        told.heard[id] = (self._ledger.now_s(), epoch, offset)
        told.since_reset.add(id)

    def _gap(self, event: dict[str, Any]) -> None:
        stream, epoch = event["stream"], event["epoch"]
        told = self.told[stream]
        now_s = self._ledger.now_s()
        told.history.append((now_s, f"had {told.epoch}/{told.offset}, gap {event}"))
        if event["reason"] == "expired":
            if (epoch, event["from"]) != (told.epoch, told.offset + 1) or event["to"] < event["from"]:
                self._complain(stream, f"after {told.epoch}/{told.offset} a gap {event}")
            told.lost.append((epoch, event["from"], event["to"]))
        else:
            if epoch == told.epoch:
                self._complain(stream, f"a reset within epoch {epoch}")
            told.resets_s.append(now_s)
            if event["to"] > (told.offset if _own(epoch) == _own(told.epoch) else 0):
                told.skips_s.append(now_s)
            told.since_reset.clear()
            told.last.clear()
        told.epoch, told.offset = epoch, event["to"]

    def _complain(self, stream: str, text: str) -> None:
        self._ledger.complain(f"{self.name} {stream}: {text}")

    def settle(self, retention: int, tops: dict[str, int], kept: dict[str, set[int]]) -> None:
        """At the end, when it has had time to hear everything: what is missing must have been announced, and nothing
        may be missing that is still ``kept`` in a journal (ids by stream)."""
        for push in self._ledger.pushes:
            told = self.told.get(push.stream)
            if told is None or push.id in told.heard or push.accepted_s is None or push.accepted_s < told.joined_s:
                continue
            if push.id in kept.get(push.stream, ()) or not (self._reset(told, push) or self._expired(told, push)):
                self._ledger.missing.append((self, push))
                self._complain(push.stream, f"message {push.id} of {push.pusher} never came")
        for stream, told in self.told.items():
            for epoch, _, last in told.lost:
                if epoch == told.epoch and last > tops[stream] - retention:
                    self._complain(stream, f"said to be expired up to {last}, of {tops[stream]}")
            if told.resets_s and not self._ledger.resets_allowed_s:
                self._complain(stream, "a reset, although Redis lost nothing")

    def _reset(self, told: Told, push: Push) -> bool:
        """Whether a reset that it was told of excuses this push: one that went on behind what it had, or one for a
        flush. Any other left the journal as it was, and what is in there must come."""
        if any(skip_s >= push.asked_s for skip_s in told.skips_s):
            return True
        if push.position is not None and push.position[0] == told.epoch:
            return False  # it stood in the last journal, not in one that was lost
        return any(
            flush.may_have_taken(push) and any(reset_s >= flush.begun_s for reset_s in told.resets_s)
            for flush in self._ledger.flushes
        )

    @staticmethod
    def _expired(told: Told, push: Push) -> bool:
        if push.position is None:
            return bool(told.lost)  # where it stood is not known
        epoch, offset = push.position
        return any(epoch == e and first <= offset <= last for e, first, last in told.lost)


def _own(epoch: str) -> str:
    """What of an epoch stays the same when the generation changes and the journal does not (docs/decisions/0010)."""
    return epoch.rpartition(".")[2]
