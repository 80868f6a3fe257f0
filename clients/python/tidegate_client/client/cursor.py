"""Cursors: the positions of one client as a token. Source: docs/protocol.md, Cursor."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tidegate_client.client.model import Position, is_name

MAX_CHARS = 4096
MAX_OFFSET = 2**53

_EPOCH = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


def encode(positions: Mapping[str, Position]) -> str | None:
    """None if it would be longer than a cursor may be."""
    plain = {stream: [at.epoch, at.offset] for stream, at in positions.items()}
    text = json.dumps(plain, separators=(",", ":")).encode()
    cursor = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return cursor if len(cursor) <= MAX_CHARS else None


def decode(cursor: str) -> dict[str, Position]:
    """Raises ValueError where it is none."""
    if not _BASE64URL.fullmatch(cursor) or not 0 < len(cursor) <= MAX_CHARS:
        raise ValueError("not a cursor")
    try:
        plain = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise ValueError("not a cursor") from exc
    if not isinstance(plain, dict) or len(positions := valid(plain)) != len(plain):
        raise ValueError("not a cursor")
    return positions


def valid(plain: Mapping[Any, Any]) -> dict[str, Position]:
    """Those of ``{stream: [epoch, offset]}`` that are a position in a stream."""
    return {
        stream: Position(value[0], value[1])
        for stream, value in plain.items()
        if _is_stream(stream) and isinstance(value, list | tuple) and len(value) == 2 and is_position(*value)
    }


def fit(positions: Iterable[tuple[str, Position]], room: int = MAX_CHARS) -> dict[str, Position]:
    """The first of them that fit into a cursor of ``room`` characters; one that is too long does not keep the shorter
    ones behind it out."""
    taken: dict[str, Position] = {}
    size = 2  # the braces
    for stream, at in positions:
        # {"stream":["epoch",offset]} with a comma; names need no escapes.
        cost = len(stream) + len(at.epoch) + len(str(at.offset)) + 9
        if (size + cost) * 4 // 3 + 4 <= min(room, MAX_CHARS):
            taken[stream] = at
            size += cost
    return taken


def is_position(epoch: object, offset: object) -> bool:
    return isinstance(epoch, str) and _EPOCH.fullmatch(epoch) is not None and is_offset(offset)


def is_offset(offset: object) -> bool:
    return isinstance(offset, int) and not isinstance(offset, bool) and 0 <= offset <= MAX_OFFSET


def _is_stream(stream: object) -> bool:
    if not isinstance(stream, str):
        return False
    kind, colon, name = stream.partition(":")
    return stream == "all" or (kind in ("client", "group") and bool(colon) and is_name(name))
