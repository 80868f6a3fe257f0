"""What a client says in JSON: commands and cursors, against Python's own parser."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import msgspec

from tidegate.core import protocol
from tidegate.core.errors import BadRequest, TooDeep
from tidegate.core.model import CURSOR_BYTES, decode_cursor, encode_cursor, is_position, is_stream
from tidegate.core.protocol import NotUnderstood
from tidegate.trunk import codec

DEPTH = 8


def command(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # the reader has refused it
    try:
        found = protocol.decode_command(data, depth=DEPTH)
    except NotUnderstood as exc:
        said = json.loads(protocol.encode_error(exc.id, exc.error))
        assert said["id"] == exc.id
        assert not isinstance(exc.error, TooDeep) or _depth(text) > DEPTH, "it is not too deep"
        return
    members = _loads(text)
    assert members["type"] == found.__struct_config__.tag
    for name in found.__struct_fields__:
        value = getattr(found, name)
        if isinstance(value, msgspec.Raw):
            raw = bytes(value)
            assert raw in data or name not in members, "data is not passed as it came"
            assert _loads(raw.decode()) == members.get(name), f"{name} is not what came"
            answer = protocol.encode_call_reply(found.id, 200, raw)
            assert _loads(answer.decode())["data"] == members.get(name)
        elif name in members:
            assert value == members[name], f"{name} is {value!r}, and was {members[name]!r}"
    assert _depth(text) <= DEPTH, "it is too deep"
    with contextlib.suppress(BadRequest):
        protocol.check_group(getattr(found, "group", "a"))
        protocol.position_of(getattr(found, "epoch", None), getattr(found, "offset", None))


def _loads(text: str) -> Any:
    """Numbers as they are written, but for those that Python reads exactly."""
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 4000 else digits, parse_float=str)


def _depth(text: str) -> int:
    """How deep it is nested, of JSON; at least that, of what is none."""
    depth = most = at = 0
    while at < len(text):
        if text[at] == '"':
            at += 1
            while at < len(text) and text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif text[at] in "[{":
            depth += 1
            most = max(most, depth)
        elif text[at] in "]}":
            depth -= 1
        at += 1
    return most


def cursor(data: bytes) -> None:
    """As it comes in a query where the first byte is 0; else what follows it is the JSON in one."""
    if data[:1] == b"\0":
        token = data[1:].decode(errors="replace")
    else:
        token = base64.urlsafe_b64encode(data[1:]).rstrip(b"=").decode()
    try:
        found = decode_cursor(token)
    except ValueError as exc:
        assert "cursor" in str(exc)
        return
    assert len(token) <= CURSOR_BYTES
    for stream, position in found.items():
        assert is_stream(stream), stream
        assert is_position(position), position
    again = encode_cursor(found)
    assert again is None or decode_cursor(again) == found
    packed = codec.cursor(found)
    assert codec.read_cursor(packed, 0) == (found, len(packed))
