"""What the gateway answers, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Position(NamedTuple):
    """A place in a stream: everything up to and including ``offset`` lies behind it."""

    stream: str
    epoch: str
    offset: int


class Presence(NamedTuple):
    """Who is in a group now: each client once, and on how many connections."""

    group: str
    clients: list[str]
    connections: int


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a journal. ``time`` is Unix milliseconds; ``client`` published it, None where the application
    did."""

    stream: str
    epoch: str
    offset: int
    time: int
    data: Any
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What the journal no longer holds. ``first`` is None where nobody can tell (reason ``reset``)."""

    stream: str
    epoch: str
    first: int | None
    last: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """``messages`` follow ``epoch`` and ``offset`` without a hole, oldest first. ``more``: the stream goes on after the
    last of them, up to ``top``. ``gap``: the position that was asked for could not be continued."""

    stream: str
    epoch: str
    offset: int
    top: int
    messages: list[Message]
    more: bool = False
    gap: Gap | None = None

    @property
    def end(self) -> Position:
        """The position after the last message: read on from there."""
        return Position(self.stream, self.epoch, self.offset + len(self.messages))
