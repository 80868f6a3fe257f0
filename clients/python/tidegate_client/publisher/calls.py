"""What each call of a publisher does, as steps (``attempts``): written once, carried out by blocking or by awaiting.

A push is repeated with its key and its bytes. One without a key is repeated only where it was surely not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from tidegate_client.publisher.attempts import Call, Patience, Send, Trouble, Wait
from tidegate_client.publisher.errors import BadPush, NotConfirmed, NotThroughRedis, PushFailed, Refused
from tidegate_client.publisher.model import Gap, History, Message, Position, Presence
from tidegate_client.publisher.over_http import Request, place, query, read
from tidegate_client.publisher.pushes import Item, Push, Rules, address, checked_id

T = TypeVar("T")

Result: TypeAlias = Position | Refused | Trouble | None


class Pushes(Protocol):
    """Pushes as requests over one kind of wire, and the answers as results."""

    def one(self, item: Item) -> Any: ...
    def accepted(self, answer: Any) -> Result:
        """What one push came to."""

    def fit(self, items: Sequence[Item]) -> int:
        """How many of them, from the first on, make one request; at least one."""

    def many(self, items: Sequence[Item]) -> Any: ...
    def results(self, items: Sequence[Item], answer: Any) -> Sequence[Result]:
        """What each of many came to. A request that failed as a whole failed for each."""


class Calls:
    """``answers``: whether there is an HTTP API, or Redis alone, which takes pushes only."""

    def __init__(self, rules: Rules, pushes: Pushes, patience: Callable[[], Patience], *, answers: bool) -> None:
        self._rules = rules
        self._pushes = pushes
        self._patience = patience
        self._answers = answers

    # Pushes

    def push(self, push: Push) -> Call[Position | None]:
        item = self._rules.item(push)
        return self._insist(
            self._pushes.one(item), self._pushes.accepted, repeatable=item.key is not None, key=item.key
        )

    def push_many(self, pushes: Iterable[Push | Mapping[str, Any]]) -> Call[list[Position | None]]:
        items = [_numbered(self._rules, at, push) for at, push in enumerate(pushes)]
        return _Batch(items, self._pushes, self._patience(), self._rules.limits.batch_pushes).steps()

    # What needs the HTTP API

    def add_member(self, group: str, client: str) -> Call[bool]:
        return self._ask("add_member", lambda: Request("PUT", _member(group, client)), lambda found: found["changed"])

    def remove_member(self, group: str, client: str) -> Call[bool]:
        return self._ask(
            "remove_member", lambda: Request("DELETE", _member(group, client)), lambda found: found["changed"]
        )

    def disconnect(self, client: str, connection: str | None) -> Call[list[str]]:
        def request() -> Request:
            return Request("DELETE", query(place("client", checked_id("client", client)), connection=connection))

        return self._ask("disconnect", request, lambda found: list(found["connections"]))

    def presence(self, group: str) -> Call[Presence]:
        return self._ask(
            "presence",
            lambda: Request("GET", place("group", checked_id("group", group))),
            lambda found: Presence(found["group"], list(found["clients"]), found["connections"]),
        )

    def history(
        self, client: str | None, group: str | None, all: bool, position: Position | None, limit: int
    ) -> Call[History]:
        def request() -> Request:
            path = f"{place(*address(client=client, group=group, all=all))}/history"
            epoch, offset = (None, None) if position is None else (position.epoch, position.offset)
            return Request("GET", query(path, epoch=epoch, offset=offset, limit=limit))

        return self._ask("history", request, _history)

    def _ask(self, what: str, request: Callable[[], Request], value: Callable[[Mapping[str, Any]], T]) -> Call[T]:
        """What may be asked twice is."""
        if not self._answers:
            raise NotThroughRedis(what)

        def result(answer: Any) -> T | Refused | Trouble:
            found = read(answer)
            try:
                return value(found) if isinstance(found, Mapping) else found
            except (KeyError, TypeError, AttributeError):
                return Refused("unexpected", "an answer that is not from the internal port of a gateway", 200)

        return self._insist(request(), result, repeatable=True)

    def _insist(
        self,
        request: Any,
        result: Callable[[Any], T | Refused | Trouble],
        *,
        repeatable: bool,
        key: str | None = None,
    ) -> Call[T]:
        """The result of one request, which is sent again while that may help. Raises Refused and NotConfirmed."""
        patience = self._patience()
        may_be_taken = False
        while True:
            found = result((yield Send(request, patience.timeout_s)))
            if isinstance(found, Refused):
                raise found
            if not isinstance(found, Trouble):
                return found
            may_be_taken = may_be_taken or found.may_be_taken
            pause_s = patience.pause_s(found) if repeatable or not found.may_be_taken else None
            if pause_s is None:
                raise NotConfirmed(found.code, found.message, may_be_taken=may_be_taken, key=key)
            yield Wait(pause_s)


class _Batch:
    """Many pushes, in as many requests as they need. Those of one stream arrive in their order: one that is to be
    repeated goes before all that follow it, and one whose end is unknown ends those behind it.

    ``open``: the places of those that have no result yet, in order; the first ``tried`` of them were sent.
    """

    def __init__(self, items: Sequence[Item], pushes: Pushes, patience: Patience, most: int) -> None:
        self._items = items
        self._pushes = pushes
        self._patience = patience
        self._most = most
        self._open = list(range(len(items)))
        self._tried = 0
        self._positions: dict[int, Position | None] = {}
        self._failures: dict[int, Refused | NotConfirmed] = {}
        self._maybe: set[int] = set()  # those that an attempt may have brought there
        self._stuck: set[str] = set()  # streams in which the end of a push is unknown

    def steps(self) -> Call[list[Position | None]]:
        """Raises PushFailed if any of them failed."""
        while self._open:
            items = [self._items[at] for at in self._open[: self._most]]
            items = items[: self._pushes.fit(items)]
            answer = yield Send(self._pushes.many(items), self._patience.timeout_s)
            trouble = self._take(self._open[: len(items)], self._pushes.results(items, answer))
            if trouble is None:
                self._patience.renew()
            elif (pause_s := self._patience.pause_s(trouble)) is not None:
                yield Wait(pause_s)
            else:
                self._fail(self._open[: self._tried], trouble.code, trouble.message)
                self._fail(self._open[self._tried :], *_NOT_TRIED)
                self._open = []
        if self._failures:
            raise PushFailed(dict(sorted(self._failures.items())), self._positions)
        return [self._positions[at] for at in range(len(self._items))]

    def _take(self, places: Sequence[int], results: Sequence[Result]) -> Trouble | None:
        """Notes what came. The first trouble after which something is to be repeated."""
        again: list[int] = []
        rest = self._open[len(places) :]
        trouble: Trouble | None = None
        for at, result in zip(places, results, strict=True):
            if isinstance(result, Trouble):
                if result.may_be_taken:
                    self._maybe.add(at)
                if self._may_be_repeated(at, result):
                    again.append(at)
                    trouble = trouble or result
            elif isinstance(result, Refused):
                self._failures[at] = result
                if not result.of_item:  # the same for all that follow
                    self._failures.update(dict.fromkeys(rest, result))
                    rest = []
            else:
                self._positions[at] = result
        if self._stuck:
            self._fail([at for at in rest if self._items[at].stream in self._stuck], *_NOT_TRIED)
            rest = [at for at in rest if at not in self._failures]
        self._open, self._tried = again + rest, len(again)
        return trouble

    def _may_be_repeated(self, at: int, trouble: Trouble) -> bool:
        item = self._items[at]
        if item.stream in self._stuck:
            self._fail([at], *_NOT_TRIED)
            return False
        if item.key is None and trouble.may_be_taken:
            self._fail([at], trouble.code, trouble.message)
            self._stuck.add(item.stream)
            return False
        return True

    def _fail(self, places: Iterable[int], code: str, message: str) -> None:
        for at in places:
            key = self._items[at].key
            self._failures[at] = NotConfirmed(code, message, may_be_taken=at in self._maybe, key=key)


_NOT_TRIED = "not_tried", "an earlier push of this batch met a failure"


def _numbered(rules: Rules, at: int, push: Push | Mapping[str, Any]) -> Item:
    try:
        return rules.item(push)
    except BadPush as exc:
        raise BadPush(exc.code, f"push number {at}: {exc.message}") from None


def _member(group: str, client: str) -> str:
    return f"{place('group', checked_id('group', group))}/members/{checked_id('client', client)}"


def _history(found: Mapping[str, Any]) -> History:
    stream, epoch, gap = found["stream"], found["epoch"], found.get("gap")
    return History(
        stream=stream,
        epoch=epoch,
        offset=found["offset"],
        top=found["top"],
        messages=[
            Message(stream, epoch, message["offset"], message["time"], message["data"], message.get("client"))
            for message in found["messages"]
        ],
        more=found["more"],
        gap=None if gap is None else Gap(stream, gap["epoch"], gap["from"], gap["to"], gap["reason"]),
    )
