"""Entries of ``tidegate:push``: what is taken, and that HTTP takes the same.

An input is names and values in turn, with a byte 0x1e between them.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from tidegate.brokers.redis.ingress import Entry, Ingress
from tidegate.config.settings import Config
from tidegate.core.errors import Refused
from tidegate.core.model import Message, Publication, is_stream
from tidegate.core.protocol import encode_message
from tidegate.core.push import PushLimits
from tidegate.http import api
from tidegate.metrics import Metrics

LIMITS = PushLimits(data_bytes=200, json_depth=8)
REASONS = {
    "bad JSON", "bad client", "bad group", "bad key", "bad conflate", "bad traceparent", "several addresses",
    "no address",
    "unknown field", "field given twice", "no data", "all must be 1", "too_large", "too_deep",
}  # fmt: skip

NAMES = {b"client", b"group", b"all", b"data", b"key", b"conflate", b"traceparent"}

_nobody = cast(Any, None)
_ingress = Ingress(_nobody, _nobody, _nobody, LIMITS, lambda stream, outcome: None, _nobody)
_limits = msgspec.structs.replace(Config().limits, data_bytes=LIMITS.data_bytes, json_depth=LIMITS.json_depth)
_api = cast(Any, SimpleNamespace(config=msgspec.structs.replace(Config(), limits=_limits), metrics=Metrics()))
_anybody = SimpleNamespace(require_stream=lambda stream: None)  # a key that may push to all streams
_handler = cast(Any, SimpleNamespace(api=_api, caller=_anybody, not_allowed=0))


def check(data: bytes) -> None:
    fields = data.split(b"\x1e")
    fields = fields[: len(fields) // 2 * 2]
    entry = _ingress._read("1-0", len(data), fields)
    assert entry.reason in REASONS | {""}, entry.reason
    if not entry.reason:
        _is_right(entry)
    pushed = _over_http(fields)
    if pushed is not None:
        assert isinstance(pushed, Refused) == bool(entry.reason), f"Redis: {entry.reason or 'taken'}, HTTP: {pushed!r}"
        assert isinstance(pushed, Refused) or pushed == _without_blanks(entry.publication)


def _is_right(entry: Entry) -> None:
    push = entry.publication
    assert is_stream(push.stream)
    assert len(push.data) <= LIMITS.data_bytes
    event = encode_message(Message(push.stream, "k3f9", 1, 0, push.data))
    assert json.loads(event, parse_int=str, parse_float=str)["stream"] == push.stream


def _without_blanks(push: Publication) -> Publication:
    """Around its data: they are part of a body in HTTP, and of no value."""
    return msgspec.structs.replace(push, data=push.data.strip(b" \t\r\n"))


def _over_http(fields: list[bytes]) -> Publication | Refused | None:
    """What a batch would make of the same push; None where it cannot be said in JSON."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    if len(named) < len(fields) // 2 or not named.keys() <= NAMES:
        return None
    try:
        msgspec.json.decode(named.get(b"data", b""))
        members = [
            f'"{name.decode()}":{json.dumps(value.decode())}' for name, value in named.items() if name != b"data"
        ]
        named[b"data"].decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if b"all" in named:
        if named[b"all"] != b"1":
            return None
        members = [member for member in members if not member.startswith('"all"')] + ['"all":true']
    item = f'{{{",".join([*members, ""])}"data":{named[b"data"].decode()}}}'
    return api._publication(msgspec.Raw(item.encode()), _handler, None)
