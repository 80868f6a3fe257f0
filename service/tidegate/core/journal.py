"""The bounded tail of one stream: appends, forgets by count and by age, answers what follows a position.

Offsets are dense, so a message's place in the deque is its offset minus the oldest one: a page in the
middle costs no search. Time is an argument (Unix ms); it may step back, the deque is trimmed from its old end only.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from tidegate.core.model import Gap, History, Message, Position

# Bytes that a kept message costs beside its data (measured: struct, numbers, bytes object, deque slot), and a word of
# it (its publisher's name, what it is conflated by, its trace) beside its characters.
MESSAGE_OVERHEAD = 188
WORD_OVERHEAD = 49


class Journal:
    """``epoch`` and ``top`` outlive the messages; ``size`` is what the kept messages cost in bytes. ``beginning``:
    another epoch whose offset 0 is this stream's too, or empty."""

    __slots__ = ("beginning", "epoch", "messages", "size", "stream", "top")

    def __init__(self, stream: str, epoch: str, top: int = 0, beginning: str = "") -> None:
        self.stream = stream
        self.epoch = epoch
        self.top = top
        self.beginning = beginning
        self.size = 0
        self.messages: deque[Message] = deque()

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.top)

    def append(
        self,
        data: bytes,
        now_ms: int,
        client: str | None = None,
        conflate: str | None = None,
        traceparent: str | None = None,
    ) -> Message:
        """The next message of the stream, now kept."""
        self.top += 1
        message = Message(self.stream, self.epoch, self.top, now_ms, data, client, conflate, traceparent)
        self.messages.append(message)
        self.size += len(data) + MESSAGE_OVERHEAD  # as `cost`, without another call
        if client is not None:
            self.size += len(client) + WORD_OVERHEAD
        if conflate is not None:
            self.size += len(conflate) + WORD_OVERHEAD
        if traceparent is not None:
            self.size += len(traceparent) + WORD_OVERHEAD
        return message

    def trim(self, most: int, oldest_ms: float) -> None:
        """Keeps at most ``most`` messages, none from before ``oldest_ms``."""
        messages = self.messages
        while messages and (len(messages) > most or messages[0].time_ms < oldest_ms):
            self.size -= cost(messages.popleft())

    def clear(self) -> None:
        self.messages.clear()
        self.size = 0

    def since(self, position: Position | None, messages: int, size: int) -> History:
        """What follows ``position`` (None: from the oldest kept, or from the top if no ``messages`` are asked for): at
        most ``messages`` and about ``size`` bytes of data, but one message at least if there is one. A position that
        cannot be continued yields a gap first."""
        before_oldest = self.top - len(self.messages)
        if position is not None and position.offset == 0 and position.epoch == self.beginning:
            position = Position(self.epoch, 0)
        gap = None
        if position is None:
            offset = before_oldest if messages else self.top
        elif position.epoch != self.epoch or position.offset > self.top:
            offset = before_oldest
            gap = Gap(self.stream, self.epoch, None, before_oldest, "reset")
        elif position.offset < before_oldest:
            offset = before_oldest
            gap = Gap(self.stream, self.epoch, position.offset + 1, before_oldest, "expired")
        else:
            offset = position.offset
        page: list[Message] = []
        for message in islice(self.messages, offset - before_oldest, offset - before_oldest + messages):
            size -= len(message.data)
            if size < 0 and page:
                break
            page.append(message)
        return History(Position(self.epoch, offset), self.top, page, gap)


def cost(message: Message) -> int:
    """What it costs to keep, in bytes."""
    size = len(message.data) + MESSAGE_OVERHEAD
    if message.client is not None:
        size += WORD_OVERHEAD + len(message.client)
    if message.conflate is not None:
        size += WORD_OVERHEAD + len(message.conflate)
    if message.traceparent is not None:
        size += WORD_OVERHEAD + len(message.traceparent)
    return size
