"""A stretch of a stream as a slow connection under the policy ``latest`` is told of it: of all messages with the same
word (``conflate``) the newest, and of those without one the newest. Source: docs/decisions/0009."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.core.journal import cost
from tidegate.core.model import Gap, History, Message, Position


class Newest:
    """Begins with a page of history and grows by those that follow it. What is kept costs ``most`` bytes and a message;
    ``ended``: it takes no more, because it reached the top, is full, or what was to be added does not follow."""

    __slots__ = ("_kept", "_most", "_size", "end", "ended", "gap", "start")

    def __init__(self, page: History, most: int) -> None:
        self.start = page.start
        self.end = page.start
        self.gap = page.gap  # before the stretch
        self.ended = False
        self._most = most
        self._kept: dict[str | None, Message] = {}  # by word, in the order of offsets
        self._size = 0
        self._take(page)

    def add(self, page: History) -> None:
        """A page that was read after ``end``. One with a gap ends the stretch: it is to be read again."""
        if page.gap is not None or page.start != self.end:
            self.ended = True
        else:
            self._take(page)

    def _take(self, page: History) -> None:
        for message in page.messages:
            if self._size > self._most:
                self.ended = True
                return
            older = self._kept.pop(message.conflate, None)
            if older is not None:
                self._size -= cost(older)
            self._kept[message.conflate] = message
            self._size += cost(message)
            self.end = Position(message.epoch, message.offset)
        self.ended = page.complete

    @property
    def messages(self) -> Iterable[Message]:
        """What is kept, oldest first. The last one is the stretch's last."""
        return self._kept.values()

    @property
    def skipped(self) -> int:
        """How many messages are not kept."""
        return self.end.offset - self.start.offset - len(self._kept)

    def events(self) -> Iterable[Gap | Message]:
        """What the connection is told: the messages, and what was left out before each."""
        offset = self.start.offset
        for message in self.messages:
            if message.offset > offset + 1:
                yield Gap(message.stream, message.epoch, offset + 1, message.offset - 1, "skipped")
            yield message
            offset = message.offset
