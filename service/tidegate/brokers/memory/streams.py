"""The streams of the embedded broker, and what each of them costs.

Theory of operation. A stream is in one of three states, each cheaper than the one before:

    journal   it has messages
    top       its messages are gone; epoch and offset are kept for ``meta_age_s`` more
    nothing   it never had a message, or was forgotten: it is at offset 0 of the common epoch

A stream that is followed is not forgotten. Where it has no message yet, it stays in the epoch that its followers were
told until it is moved to the present one (``sweep``), and a push before that begins it there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

import msgspec

from tidegate.core.common_epoch import CommonEpoch
from tidegate.core.journal import Journal
from tidegate.core.model import History, Message, Position, Publication, RetentionOf

# Bytes beside the characters of the stream's name (measured; tests/brokers/test_memory.py compares).
JOURNAL_BYTES = 1050
TOP_BYTES = 250


class Top(msgspec.Struct, gc=False):
    """A stream whose messages are gone. ``used_s``: when it was last asked for (monotonic)."""

    epoch: str
    offset: int
    beginning: str
    used_s: float


class MemoryStreams:
    """``on_moved(stream, position)`` is told of a followed stream without a message that has another epoch now."""

    def __init__(
        self,
        common: CommonEpoch,
        *,
        retention: RetentionOf,
        meta_age_s: float,
        wall: Callable[[], float],
        clock: Callable[[], float],
        on_moved: Callable[[str, Position], None],
    ) -> None:
        self.followed: set[str] = set()
        self.journal_bytes = 0
        self.top_bytes = 0
        self.forgotten = 0  # messages that were given up because everything together was too large
        self._common = common
        self._retention = retention
        self._meta_age_s = meta_age_s
        self._wall = wall
        self._clock = clock
        self._on_moved = on_moved
        self._journals: OrderedDict[str, Journal] = OrderedDict()  # least recently used first
        self._round: OrderedDict[str, None] = OrderedDict()  # the same streams, in the order in which they are swept
        self._tops: OrderedDict[str, Top] = OrderedDict()  # least recently used first
        # Followed and without a message: the epoch that was told, oldest first.
        self._beginning: OrderedDict[str, str] = OrderedDict()

    # Messages

    def append(self, publication: Publication) -> Message:
        stream = publication.stream
        journal = self._journals.get(stream) or self._open_journal(stream)
        before = journal.size
        message = journal.append(
            publication.data, self._now_ms(), publication.client, publication.conflate, publication.traceparent
        )
        retention = self._retention(stream)
        journal.trim(retention.messages, message.time_ms - retention.age_s * 1000)
        self.journal_bytes += journal.size - before
        self._journals.move_to_end(stream)
        return message

    def position(self, stream: str) -> Position:
        journal = self._journals.get(stream)
        if journal is not None:
            return journal.position
        top = self._tops.get(stream)
        if top is not None:
            return Position(top.epoch, top.offset)
        self._common.look(self._clock())
        return Position(self._beginning.get(stream) or self._common.current, 0)

    def history(self, stream: str, since: Position | None, messages: int, size: int) -> History:
        journal = self._journals.get(stream)
        if journal is not None:
            self._journals.move_to_end(stream)
            self._trim(journal, self._now_ms())
        elif stream in self._tops:
            top = self._touch(stream)
            journal = Journal(stream, top.epoch, top.offset, top.beginning)
        else:
            journal = Journal(stream, self.position(stream).epoch, 0, self._common.previous)
        return journal.since(since, messages, size)

    # Following

    def follow(self, stream: str) -> Position:
        position = self.position(stream)
        self.followed.add(stream)
        if position.offset == 0 and stream not in self._journals and stream not in self._tops:
            self._beginning[stream] = position.epoch
        return position

    def unfollow(self, stream: str) -> None:
        self.followed.discard(stream)
        self._beginning.pop(stream, None)

    # Forgetting

    def sweep(self, most: int) -> None:
        """Forgets what is too old, and moves streams without a message to the present epoch: ``most`` of each."""
        now_ms, now_s = self._now_ms(), self._clock()
        for stream in list(islice(self._round, most)):
            self._round.move_to_end(stream)
            self._trim(self._journals[stream], now_ms)
        for _ in range(most):
            stale = self.oldest_top_s
            if stale is None or now_s - stale < self._meta_age_s:
                break
            self.forget_top()
        self._common.look(now_s)
        for _ in range(most):
            stream, epoch = next(iter(self._beginning.items()), ("", ""))
            if not stream or epoch == self._common.current:
                break
            self._beginning[stream] = self._common.current
            self._beginning.move_to_end(stream)
            self._on_moved(stream, Position(self._common.current, 0))

    def forget_journal(self) -> bool:
        """The messages of the least recently used stream, to make room. False: there is none."""
        journal = next(iter(self._journals.values()), None)
        if journal is None:
            return False
        self.forgotten += len(journal.messages)
        self._drop_messages(journal)
        return True

    def clear(self, stream: str) -> None:
        """All of its messages go, as if they were too old."""
        journal = self._journals.get(stream)
        if journal is not None:
            self._drop_messages(journal)

    @property
    def oldest_top_s(self) -> float | None:
        """When the least recently used top was last used (monotonic)."""
        top = next(iter(self._tops.values()), None)
        return None if top is None else top.used_s

    def forget_top(self) -> bool:
        """The least recently used top; False where it has to stay, because it is followed."""
        stream = next(iter(self._tops))
        if stream in self.followed:
            self._touch(stream)
            return False
        top = self._tops.pop(stream)
        self.top_bytes -= TOP_BYTES + len(stream)
        self._common.forgotten(top.epoch, self._clock())
        return True

    def _open_journal(self, stream: str) -> Journal:
        """The stream's journal, which it lacks."""
        top = self._tops.pop(stream, None)
        if top is not None:
            self.top_bytes -= TOP_BYTES + len(stream)
            journal = Journal(stream, top.epoch, top.offset, top.beginning)
        else:
            journal = Journal(stream, self.position(stream).epoch, 0, self._common.previous)
            self._beginning.pop(stream, None)
        self._journals[stream] = journal
        self._round[stream] = None
        self.journal_bytes += JOURNAL_BYTES + len(stream)
        return journal

    def _trim(self, journal: Journal, now_ms: int) -> None:
        retention = self._retention(journal.stream)
        before = journal.size
        journal.trim(retention.messages, now_ms - retention.age_s * 1000)
        self.journal_bytes -= before - journal.size
        if not journal.messages:
            self._drop_messages(journal)

    def _drop_messages(self, journal: Journal) -> None:
        """Its messages go, its top stays."""
        stream = journal.stream
        del self._journals[stream], self._round[stream]
        self.journal_bytes -= journal.size + JOURNAL_BYTES + len(stream)
        journal.clear()
        self._tops[stream] = Top(journal.epoch, journal.top, journal.beginning, self._clock())
        self.top_bytes += TOP_BYTES + len(stream)

    def _touch(self, stream: str) -> Top:
        top = self._tops[stream]
        top.used_s = self._clock()
        self._tops.move_to_end(stream)
        return top

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
