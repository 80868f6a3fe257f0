"""The newest messages of a followed stream, kept on the node so that a storm of recoveries need not ask Redis."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import islice

from tidegate.core.journal import cost
from tidegate.core.model import History, Message, Position

TAIL_MESSAGES = 500
TAIL_BYTES = 256 * 1024
HEARD_OVERHEAD = 80  # bytes: the time when a message was heard, and the pair of both


class Tail:
    """Messages that follow each other; the newest is the newest heard. ``size`` is what they cost. Most streams are
    quiet, and each client has one: so there is a deque, which takes 760 bytes empty, from the first message on."""

    __slots__ = ("_most", "age_s", "messages", "size")

    def __init__(self, most: int, age_s: float) -> None:
        self._most = min(most, TAIL_MESSAGES)
        self.age_s = age_s
        self.messages: deque[tuple[float, Message]] | None = None  # with the time when it was heard
        self.size = 0

    def add(self, message: Message, now_s: float) -> None:
        if self.messages is None:
            self.messages = deque()
        self.messages.append((now_s, message))
        self.size += cost(message) + HEARD_OVERHEAD
        while len(self.messages) > self._most or self.size > TAIL_BYTES:
            self._drop(self.messages)

    def clear(self) -> None:
        self.messages = None
        self.size = 0

    def since(self, position: Position, heard: Position, messages: int, size: int, now_s: float) -> History | None:
        """As ``Broker.history``; None where it does not cover the position."""
        kept = self.messages or ()
        while self.messages and now_s - self.messages[0][0] > self.age_s:
            self._drop(self.messages)
        first = heard.offset - len(kept)  # the position before the oldest
        if position.epoch != heard.epoch or not first <= position.offset <= heard.offset:
            return None
        page: list[Message] = []
        at = position.offset - first
        for _, message in islice(kept, at, at + messages):
            size -= len(message.data)
            if size < 0 and page:
                break
            page.append(message)
        return History(position, heard.offset, page)

    def _drop(self, kept: deque[tuple[float, Message]]) -> None:
        _, message = kept.popleft()
        self.size -= cost(message) + HEARD_OVERHEAD


class Tails:
    """All tails of a node, together at most ``most_bytes``: those least recently added to are emptied first."""

    def __init__(self, most_bytes: int, clock: Callable[[], float]) -> None:
        self._tails: OrderedDict[Tail, None] = OrderedDict()
        self._most_bytes = most_bytes
        self._clock = clock
        self.size = 0

    def add(self, tail: Tail, message: Message) -> None:
        before = tail.size
        tail.add(message, self._clock())
        self.size += tail.size - before
        self._tails[tail] = None
        self._tails.move_to_end(tail)
        while self.size > self._most_bytes:
            self.forget(next(iter(self._tails)))

    def forget(self, tail: Tail) -> None:
        self._tails.pop(tail, None)
        self.size -= tail.size
        tail.clear()

    def since(self, tail: Tail, position: Position, heard: Position, messages: int, size: int) -> History | None:
        before = tail.size
        page = tail.since(position, heard, messages, size, self._clock())
        self.size += tail.size - before
        return page
