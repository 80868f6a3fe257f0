"""Streams, positions, cursors, messages, history: the values everything else speaks in.

A stream is named ``client:<id>``, ``group:<name>`` or ``all``; a node's own, for canaries, ``node:<node>``. A position
is an epoch and an offset; offsets are dense and start at 1, offset 0 is before the first message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

import msgspec

ALL = "all"
CURSOR_BYTES = 4096
KEY_CHARACTERS = 128  # of an idempotency key
# W3C Trace Context, 3.2: version, trace, the span that asks, flags. Neither trace nor span is all zeros.
TRACEPARENT = "(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
MAX_OFFSET = 2**53  # the largest integer that a JavaScript client reads exactly

_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.@-]{1,128}\Z", re.ASCII)
_TRACEPARENT = re.compile(rf"{TRACEPARENT}\Z", re.ASCII)
_EPOCH = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z", re.ASCII)

GapReason: TypeAlias = Literal["expired", "reset", "skipped"]
StreamKind: TypeAlias = Literal["client", "group", "all", "node"]


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A place in a stream: everything up to and including ``offset`` lies behind it."""

    epoch: str
    offset: int


Cursor: TypeAlias = dict[str, Position]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One journalled message. ``data`` is JSON text as it came in; ``client`` published it, or None. Of those with the
    same ``conflate`` the newest stands for all; ``traceparent`` is the span that pushed it, where the journal itself
    was asked (``Broker.entry``). Clients are told of neither."""

    stream: str
    epoch: str
    offset: int
    time_ms: int
    data: bytes
    client: str | None = None
    conflate: str | None = None
    traceparent: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """Offsets ``first``..``last``, both inclusive, are not delivered: they can't be any more, or (``skipped``) newer
    messages stand for them.

    After a ``reset`` what was lost cannot be said: ``first`` is None, ``epoch`` is the new one, and the stream goes on
    after ``last`` there. Either way (``epoch``, ``last``) is the position from then on.
    """

    stream: str
    epoch: str
    first: int | None
    last: int
    reason: GapReason


class History(msgspec.Struct, frozen=True):
    """What a journal answered to "what follows this position".

    ``start`` is the position after which ``messages`` follow without a hole (it equals the one
    asked for, unless ``gap`` is set); ``top`` is the newest offset when it was read. Messages may
    end before ``top`` because the page is full; then read again from ``end``.
    """

    start: Position
    top: int
    messages: list[Message]
    gap: Gap | None = None

    @property
    def end(self) -> Position:
        """The position after the last message of this page."""
        return Position(self.start.epoch, self.start.offset + len(self.messages))

    @property
    def complete(self) -> bool:
        """Whether this page reaches the top."""
        return self.end.offset >= self.top


class Publication(msgspec.Struct, frozen=True):
    """What a publisher asks for. ``key`` makes it idempotent within its stream; ``client`` is set
    where a connected client published it; ``conflate`` and ``traceparent`` are for the message."""

    stream: str
    data: bytes
    key: str | None = None
    client: str | None = None
    conflate: str | None = None
    traceparent: str | None = None


class Retention(msgspec.Struct, frozen=True):
    """How much of a stream its journal keeps: at most ``messages``, none older than ``age_s``."""

    messages: int
    age_s: float


RetentionOf = Callable[[str], Retention]  # by stream name


class ConnectionInfo(msgspec.Struct, frozen=True):
    """One live connection as presence knows it; ``groups`` are the joined groups' names."""

    connection: str
    node: str
    client: str
    since_ms: int
    groups: tuple[str, ...] = ()


class NodeHealth(msgspec.Struct, frozen=True):
    """What a node says of itself for those who look for a fault. ``departures``: its settings that are no defaults, by
    key and without secrets; ``clock_off_ms``: its time of day less the broker's, None where that has no clock of its
    own."""

    departures: dict[str, object]
    connections_limit: int
    open_files: int
    open_files_limit: int
    clock_off_ms: float | None


class RejectedPush(msgspec.Struct, frozen=True):
    """A push through the broker's own door that could not be taken. ``id``: the entry's; ``stream``: empty where it
    names no good one; ``data``: the beginning of it, as it came; ``size``: bytes of all of it."""

    id: str
    rejected_ms: int
    stream: str
    size: int
    reason: str
    data: bytes


class NodeInfo(msgspec.Struct, frozen=True):
    """One running node. ``lag_ms`` is how long its last canary took through the broker, None before the first;
    ``trunks`` are the workers of edges that have one to it, ``trunk_sessions`` its connections that are on one.
    ``health``: None of a version that does not say."""

    node: str
    version: str
    started_ms: int
    connections: int
    draining: bool
    lag_ms: float | None
    trunks: tuple[str, ...] = ()
    trunk_sessions: int = 0
    health: NodeHealth | None = None


def is_id(text: str) -> bool:
    """Whether ``text`` may name a client, a group or a device."""
    return _ID.match(text) is not None


def is_traceparent(text: str) -> bool:
    return _TRACEPARENT.match(text) is not None


def client_stream(client: str) -> str:
    return f"client:{client}"


def group_stream(group: str) -> str:
    return f"group:{group}"


def node_stream(node: str) -> str:
    """Where a node's canaries go."""
    return f"node:{node}"


_KINDS: dict[str, StreamKind] = {kind[0]: kind for kind in get_args(StreamKind)}


def kind_of(stream: str) -> StreamKind:
    """``stream`` is well-formed (``is_stream``), or a node's."""
    return _KINDS[stream[0]]  # looked at for each push: no part of the name is copied


def group_of(stream: str) -> str | None:
    """The group's name, or None where ``stream`` is not a group's."""
    return stream[6:] if stream.startswith("group:") else None


def is_stream(name: str) -> bool:
    """Whether ``name`` is a well-formed stream name."""
    if name == ALL:
        return True
    kind, _, id_ = name.partition(":")
    return kind in ("client", "group") and is_id(id_)


def is_position(position: Position) -> bool:
    return _EPOCH.match(position.epoch) is not None and 0 <= position.offset <= MAX_OFFSET


_cursor_encoder = msgspec.json.Encoder()
_cursor_decoder = msgspec.json.Decoder(Cursor)


def encode_cursor(positions: Mapping[str, Position]) -> str | None:
    """One token for ``positions``; None where it would pass 4 KiB."""
    raw = _cursor_encoder.encode(positions)
    if len(raw) > CURSOR_BYTES * 3 // 4:
        return None
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode_cursor(token: str) -> Cursor:
    """The positions in ``token``. Raises ValueError, its text made for the client."""
    if len(token) > CURSOR_BYTES:
        raise ValueError(f"cursor is longer than {CURSOR_BYTES} bytes")
    try:
        raw = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        cursor = _cursor_decoder.decode(raw)
    except (UnicodeError, binascii.Error, msgspec.MsgspecError, RecursionError) as exc:
        raise ValueError("cursor is not base64url of a JSON object of positions") from exc
    for stream, position in cursor.items():
        if not is_stream(stream) or not is_position(position):
            raise ValueError("cursor names something that is not a stream or not a position")
    return cursor
