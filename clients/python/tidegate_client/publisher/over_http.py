"""The HTTP API: requests as bytes, and what answers mean. No I/O. Source: docs/protocol.md, HTTP API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

from tidegate_client.publisher.attempts import Trouble
from tidegate_client.publisher.errors import Refused
from tidegate_client.publisher.model import Position
from tidegate_client.publisher.pushes import Item, Limits

Result: TypeAlias = Position | Refused | Trouble

MAY_PASS = (408, 429, 502, 503, 504)
NOT_TAKEN = ("draining", "full", "not_tried", "too_slow")  # of these statuses' codes; and 429 altogether

_ENVELOPE = b'{"pushes":[%b]}'
_PLACES = {"client": "/api/clients/{}", "group": "/api/groups/{}", "all": "/api/all"}


class Request(NamedTuple):
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, bytes] = {}


class Answer(NamedTuple):
    status: int
    body: bytes
    retry_after: str | None = None


Outcome: TypeAlias = Answer | Trouble | Refused  # of one attempt


def place(kind: str, name: str) -> str:
    """The path of a client, a group or all; names need no escape."""
    return _PLACES[kind].format(name)


def query(path: str, **values: object) -> str:
    """``path`` with those values that are not None."""
    given = {name: value for name, value in values.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


class HttpPushes:
    """Pushes as requests, and their answers as results."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def one(self, item: Item) -> Request:
        headers = {} if item.key is None else {"Idempotency-Key": item.key.encode()}
        if item.traceparent is not None:
            headers["traceparent"] = item.traceparent.encode()
        body = b'{"data":%b%b}' % (item.data, _word(item))
        return Request("POST", f"{place(item.kind, item.name)}/push", body, headers)

    def accepted(self, answer: Outcome) -> Result:
        found = read(answer)
        return _position(found) if isinstance(found, Mapping) else found

    def fit(self, items: Sequence[Item]) -> int:
        size = len(_ENVELOPE)
        for count, item in enumerate(items):
            size += len(_item(item)) + 1
            if size > self._limits.body_bytes and count:
                return count
        return len(items)

    def many(self, items: Sequence[Item]) -> Request:
        return Request("POST", "/api/push", _ENVELOPE % b",".join(map(_item, items)))

    def results(self, items: Sequence[Item], answer: Outcome) -> Sequence[Result]:
        found = read(answer)
        if not isinstance(found, Mapping):
            return [found] * len(items)
        results = found.get("results")
        if not isinstance(results, list) or len(results) != len(items):
            return [_unexpected(200)] * len(items)
        return [_of_item(result) for result in results]


def read(answer: Outcome) -> Mapping[str, Any] | Refused | Trouble:
    """The object in a good answer, else what is wrong and whether it may pass."""
    if not isinstance(answer, Answer):
        return answer
    found = _object(answer.body)
    if 200 <= answer.status < 300:
        return _unexpected(answer.status) if found is None else found
    code, message = _error(found)
    if answer.status in MAY_PASS:
        taken = answer.status != 429 and code not in NOT_TAKEN
        return Trouble(code or f"http_{answer.status}", message or "no word", taken, _seconds(answer.retry_after))
    return Refused(code, message, answer.status) if code else _unexpected(answer.status)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _error(found: Mapping[str, Any] | None) -> tuple[str, str]:
    error = (found or {}).get("error")
    if not isinstance(error, dict):
        return "", ""
    return str(error.get("code", "")), str(error.get("message", ""))


def _unexpected(status: int) -> Refused:
    return Refused("unexpected", f"an answer {status} that is not from the internal port of a gateway", status)


def _position(found: Mapping[str, Any]) -> Position | Refused:
    match found:
        case {"stream": str(stream), "epoch": str(epoch), "offset": int(offset)}:
            return Position(stream, epoch, offset)
    return _unexpected(200)


def _of_item(result: Any) -> Position | Refused | Trouble:
    if not isinstance(result, dict):
        return _unexpected(200)
    if "error" not in result:
        return _position(result)
    code, message = _error(result)
    if code in ("broker_down", *NOT_TAKEN):
        return Trouble(code, message, code not in NOT_TAKEN)
    if code.startswith("too_many") or code == "too_fast":
        return Trouble(code, message, False)
    return Refused(code, message, of_item=True)


def _seconds(text: str | None) -> float | None:
    """Of Retry-After; None where it has no seconds. The gateway writes no dates."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None


def _item(item: Item) -> bytes:
    address = b'"all":true' if item.kind == "all" else b'"%b":"%b"' % (item.kind.encode(), item.name.encode())
    key = b"" if item.key is None else b',"key":%b' % json.dumps(item.key).encode()
    span = b"" if item.traceparent is None else b',"traceparent":"%b"' % item.traceparent.encode()
    return b'{%b%b,"data":%b%b%b}' % (address, key, item.data, _word(item), span)


def _word(item: Item) -> bytes:
    return b"" if item.conflate is None else b',"conflate":"%b"' % item.conflate.encode()
