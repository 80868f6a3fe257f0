"""What a client is told, and what it is answered. Times are Unix milliseconds, positions as on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["disconnected", "connecting", "connected", "closed"]

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,128}")


class Position(NamedTuple):
    """Everything up to and including ``offset`` lies behind."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """``missed``: it came from the journal, after one had been away. ``client``: who published it, if a client did."""

    stream: str
    epoch: str
    offset: int
    time: int
    data: Any
    client: str | None = None
    missed: bool = False

    @property
    def group(self) -> str | None:
        return group_of(self.stream)


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages ``first`` to ``last`` are missing and will not come; the stream goes on behind ``last`` in ``epoch``
    (None: nobody knows where). ``reason``: ``expired``, ``reset`` (no telling what was lost; ``first`` is None),
    ``hole`` (the gateway left it out without a word), or another one of the gateway's."""

    stream: str
    epoch: str
    first: int | None
    last: int | None
    reason: str

    @property
    def group(self) -> str | None:
        return group_of(self.stream)


@dataclass(frozen=True, slots=True)
class Joined:
    """The stream is followed, from behind ``offset`` on. ``recovered`` is None where there was no position to go on
    from; ``missed`` counts what follows from the journal."""

    stream: str
    offset: int
    top: int
    recovered: bool | None = None
    missed: int = 0

    @property
    def group(self) -> str | None:
        return group_of(self.stream)


@dataclass(frozen=True, slots=True)
class Left:
    """The group was ended from outside. ``reason``: ``removed``, ``not_allowed``, or the code of an error."""

    stream: str
    reason: str

    @property
    def group(self) -> str | None:
        return group_of(self.stream)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the client is closed, or was cut last. ``word`` is one of the list in clients/README.md, ``code`` a close
    code or an HTTP status, ``again`` whether it comes back by itself."""

    word: str
    code: int | None = None
    message: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """The position that a publish was given."""

    stream: str
    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class History:
    """Messages behind ``epoch`` and ``offset``, oldest first. ``more``: there are further ones behind the last.
    ``gap``: the position that was asked for could not be continued."""

    stream: str
    epoch: str
    offset: int
    top: int
    messages: list[Message] = field(default_factory=list)
    more: bool = False
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    stream: str
    clients: list[str]
    connections: int
    more: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the application answered to a call."""

    status: int
    data: Any


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gateway takes, by its welcome; until then its defaults."""

    message_bytes: int = 131_072
    data_bytes: int = 65_536
    groups: int = 100


def group_of(stream: str) -> str | None:
    return stream.removeprefix("group:") if stream.startswith("group:") else None


def is_name(text: object) -> bool:
    """Whether the gateway takes it as the id of a client or the name of a group."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None and text.strip(".") != ""
