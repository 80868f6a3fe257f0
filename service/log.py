"""Log lines: JSON on standard error, an object each: ``ts``, ``level``, ``event``, ``node`` (once known), the fields.

    log.info("connection.closed", conn="n1k4-7", client="alice", close_code=4008, duration_ms=81234)

``event`` is dotted past tense. A field ``error`` may be an exception. Lines of other libraries come in the same form,
with the logger's name as ``event`` and the text as ``message``. Before ``setup`` warnings and errors are plain text.

Tokens, keys and payloads don't belong here. Should one come all the same: fields that are called so are masked, tokens
in texts too, and bytes become their number.
"""

from __future__ import annotations

import logging
import re
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

_MASK = "***"
_SECRET_FIELDS = frozenset({"api_key", "api_keys", "authorization", "cookie", "key", "password", "secret", "token"})
# A token in a URL's query, in an Authorization header, as a subprotocol.
_SECRET_TEXT = re.compile(r"""(\btoken=|\bbearer[ .])[^\s&'",;]+""", re.IGNORECASE)

_DEPTH = 8  # of a field; the configuration has 4

_logger = logging.getLogger("tidegate")


def debug(event: str, /, **fields: object) -> None:
    """Per message or for one who looks for a fault."""
    _log(logging.DEBUG, event, fields)


def info(event: str, /, **fields: object) -> None:
    """Start, stop, a connection's beginning and end, the broker lost and back."""
    _log(logging.INFO, event, fields)


def warning(event: str, /, **fields: object) -> None:
    """Someone should look this week."""
    _log(logging.WARNING, event, fields)


def error(event: str, /, **fields: object) -> None:
    """A promise was broken. An exception in ``error`` brings its ``trace``."""
    _log(logging.ERROR, event, fields)


def _log(level: int, event: str, fields: dict[str, object]) -> None:
    if _logger.isEnabledFor(level):
        exc = fields.get("error")
        _logger.log(level, event, exc_info=exc if isinstance(exc, BaseException) else None, extra={"fields": fields})


def setup(level: str, node: str = "") -> None:
    """Writes ``level`` (debug, info, warning, error) and above to standard error, for this process. Called again
    it replaces what the first call set up: ``node`` is known later than ``level``.

    Other libraries are heard from WARNING on: below that Tornado quotes requests, and what is secret in them. Its
    access log is not heard at all: each line has the query, and so tokens.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(node))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, JsonLines)]:
        root.removeHandler(old)
    root.addHandler(handler)
    _logger.setLevel(level.upper())
    root.setLevel(max(_logger.level, logging.WARNING))
    logging.getLogger("tornado.access").disabled = True


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        line["event"] = record.name if fields is None else record.getMessage()
        if self._node:
            line["node"] = self._node
        line |= {"message": record.getMessage()} if fields is None else fields
        if record.exc_info and record.exc_info[1]:
            line["error"] = record.exc_info[1]
            if record.levelno >= logging.ERROR:
                line["trace"] = "".join(traceback.format_exception(record.exc_info[1])).splitlines()
        return msgspec.json.encode(_guarded(line)).decode()


def _guarded(value: Any, name: str = "", depth: int = 0) -> Any:
    """``value`` as JSON can hold it, without what must not be logged; what JSON does not know as its ``str``."""
    if name.lower() in _SECRET_FIELDS and value:
        return _MASK
    match value:
        case None | int() | float():
            return value
        case bytes() | bytearray() | memoryview() | msgspec.Raw():
            return f"{memoryview(value).nbytes} bytes"
        case BaseException():
            return _guarded(f"{type(value).__name__}: {value}".removesuffix(": "))
        case msgspec.Struct():
            return _guarded(msgspec.structs.asdict(value), "", depth)
        case dict() if depth < _DEPTH:
            return {_guarded(str(key)): _guarded(item, str(key), depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset() if depth < _DEPTH:
            return [_guarded(item, "", depth + 1) for item in value]
        case dict() | list() | tuple() | set() | frozenset():
            return "…"
    # Half of a surrogate pair has no UTF-8.
    return _SECRET_TEXT.sub(rf"\1{_MASK}", str(value).encode(errors="backslashreplace").decode())
