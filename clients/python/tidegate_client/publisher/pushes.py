"""What may be pushed, and the bytes that it becomes.

The rules are the gateway's (docs/protocol.md). They are checked before anything is sent: in a batch one malformed push
would take the others with it, and what goes through Redis is refused where nobody looks."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from tidegate_client import names
from tidegate_client.publisher.errors import BadPush

Kind: TypeAlias = Literal["client", "group", "all"]
Key: TypeAlias = str | Literal[False] | None
Span: TypeAlias = Callable[[], str | None]

KEY_CHARACTERS = 128

_LOG = logging.getLogger("tidegate_client")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Json:
    """JSON text, which is pushed as it stands, byte for byte."""

    text: str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One push of a batch. It has one address: ``client``, ``group`` or ``all``. ``data`` is any value that ``json``
    can write, or ``Json``. ``key``: None has one made, False goes without. ``conflate``: of messages with the same word
    slow connections get the newest, where the group's policy is ``latest``. ``traceparent``: the span that pushes; None
    is that of the publisher's ``traceparent``, where it has one."""

    data: Any
    client: str | None = None
    group: str | None = None
    all: bool = False
    key: Key = None
    conflate: str | None = None
    traceparent: str | None = None


class Limits(NamedTuple):
    """The gateway's, as far as they concern who pushes (its settings ``limits.…``)."""

    data_bytes: int = 65536
    json_depth: int = 64
    batch_pushes: int = 1000
    body_bytes: int = 1048576


class Item(NamedTuple):
    """A push as it is sent, however often: the same bytes, the same key. ``name`` is empty for all."""

    kind: Kind
    name: str
    data: bytes
    key: str | None
    conflate: str | None = None
    traceparent: str | None = None

    @property
    def stream(self) -> str:
        return "all" if self.kind == "all" else f"{self.kind}:{self.name}"

    def push(self) -> Push:
        """What makes the same item again."""
        address: dict[str, Any] = {self.kind: self.name or True}
        key: Key = False if self.key is None else self.key
        return Push(data=Json(self.data), key=key, conflate=self.conflate, traceparent=self.traceparent, **address)


class Rules:
    """``default`` turns what ``json`` cannot write into something that it can; ``span`` is asked for the traceparent of
    each push that names none."""

    def __init__(self, limits: Limits, default: Callable[[Any], Any] | None = None, span: Span | None = None) -> None:
        self.limits = limits
        self._default = default
        self._span = span

    def item(self, push: Push | Mapping[str, Any]) -> Item:
        """Raises BadPush, and TypeError for an unknown word or a value that cannot be JSON."""
        if not isinstance(push, Push):
            push = Push(**push)
        kind, name = address(client=push.client, group=push.group, all=push.all)
        conflate = None if push.conflate is None else checked_id("conflate", push.conflate)
        data, key = self.encode(push.data), _key(push.key)
        return Item(kind, name, data, key, conflate, self._traceparent(push.traceparent))

    def encode(self, data: Any) -> bytes:
        """The JSON text of ``data``. Raises BadPush or TypeError."""
        text = _given(data) if isinstance(data, Json) else self._written(data)
        if len(text) > self.limits.data_bytes:
            raise BadPush("too_large", f"data is {len(text)} bytes, more than {self.limits.data_bytes}")
        if depth(text) > self.limits.json_depth - 1:
            raise BadPush("too_deep", f"data is nested deeper than {self.limits.json_depth - 1} levels")
        return text

    def _traceparent(self, given: str | None) -> str | None:
        """What was given, on purpose, is good, or BadPush is raised. What ``span`` does never fails a push."""
        if given is not None:
            if not isinstance(given, str) or not names.is_traceparent(given):
                raise BadPush("bad_request", "traceparent: as W3C Trace Context has it, in lower case")
            return given
        if self._span is None:
            return None
        try:
            found = self._span()
        except Exception:
            _LOG.warning("traceparent failed; the push goes without one", exc_info=True)
            return None
        return found if isinstance(found, str) and names.is_traceparent(found) else None

    def _written(self, data: Any) -> bytes:
        try:
            text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=self._default)
            return text.encode()
        except RecursionError:
            raise BadPush("too_deep", "data is nested too deeply") from None
        except UnicodeEncodeError:
            raise BadPush("bad_request", "data holds half a surrogate pair, which is no character") from None
        except ValueError as exc:  # NaN, an infinity, a circle
            raise BadPush("bad_request", f"data cannot be JSON: {exc}") from None


def address(*, client: str | None, group: str | None, all: bool) -> tuple[Kind, str]:
    """Raises BadPush unless there is exactly one, and a good one."""
    if (client is not None) + (group is not None) + bool(all) != 1:
        raise BadPush("bad_request", "one of client=, group= and all=True")
    if client is not None:
        return "client", checked_id("client", client)
    if group is not None:
        return "group", checked_id("group", group)
    return "all", ""


def checked_id(what: str, text: str) -> str:
    """Raises BadPush."""
    try:
        return names.checked_id(what, text)
    except (ValueError, TypeError) as exc:
        raise BadPush("bad_request", str(exc)) from None


def depth(text: bytes) -> int:
    """How deep arrays and objects nest; where there are few brackets, how many there are, which is no less."""
    brackets = text.count(b"[") + text.count(b"{")
    if brackets < 32:
        return brackets
    now = deepest = 0
    for byte in _STRING.sub(b"", text):
        if byte in b"[{":
            now += 1
            deepest = max(deepest, now)
        elif byte in b"]}":
            now -= 1
    return deepest


def _key(key: Key) -> str | None:
    if key is None:
        return secrets.token_urlsafe(12)  # 96 random bits: a key need only be unique in its stream, for five minutes
    if key is False:
        return None
    # It travels as a header, too, where white space at an end is lost and control characters are not allowed.
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS or not key.isprintable() or key != key.strip():
        raise BadPush("bad_request", f"key: 1-{KEY_CHARACTERS} printable characters, none of the outer ones a space")
    return key


def _given(given: Json) -> bytes:
    """The text's bytes; without white space around them. Raises BadPush where it is no JSON."""
    try:
        raw = given.text.encode() if isinstance(given.text, str) else bytes(given.text)
        text = raw.decode().strip(" \t\r\n")
        value = json.loads(text, parse_constant=_no_constant, parse_int=str, parse_float=str)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair passes as an escape
    except RecursionError:
        raise BadPush("too_deep", "data is nested too deeply") from None
    except ValueError as exc:
        raise BadPush("bad_request", f"data is not JSON: {exc}") from None
    return text.encode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
