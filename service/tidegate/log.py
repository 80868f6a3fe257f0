"""Log lines: JSON on standard error, an object each: ``ts``, ``level``, ``event``, ``node`` (once known), the fields.

    log.info("connection.closed", conn="n1k4-7", client="alice", close_code=4008, duration_ms=81234)

``event`` is dotted past tense. A field ``error`` may be an exception. Lines of other libraries come in the same form,
with the logger's name as ``event`` and the text as ``message``. Before ``setup`` warnings and errors are plain text.

Nobody waits for a line to be written (``log_writer``). ``setup`` also takes in what Python itself would print to
standard error; ``say`` is for words to people.

Tokens, keys and payloads don't belong here. Should one come all the same: fields that are called so are masked, tokens
in texts too, and bytes become their number.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from tidegate.log_writer import LineWriter

_MASK = "***"
_SECRET_FIELDS = frozenset({"api_key", "api_keys", "authorization", "cookie", "key", "password", "secret", "token"})
# A token in a URL's query, in an Authorization header, as a subprotocol.
_SECRET_TEXT = re.compile(r"""(\btoken=|\bbearer[ .])[^\s&'",;]+""", re.IGNORECASE)

_DEPTH = 8  # of a field; the configuration has 4

_logger = logging.getLogger("tidegate")
STDOUT, STDERR = 1, 2
_writers = {STDOUT: LineWriter(STDOUT), STDERR: LineWriter(STDERR)}


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
    _open_standard_streams()
    if os.path.sameopenfile(STDOUT, STDERR):
        _writers[STDOUT] = _writers[STDERR]  # two would tear each other's lines where a pipe takes a part of one
    handler = _Handler(JsonFormatter(node))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, JsonFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    _logger.setLevel(level.upper())
    root.setLevel(max(_logger.level, logging.WARNING))
    logging.getLogger("tornado.access").disabled = True
    logging.captureWarnings(True)
    sys.unraisablehook = lambda found: error("exception.ignored", error=found.exc_value, message=found.err_msg)
    threading.excepthook = lambda found: error("thread.failed", error=found.exc_value)


def say(text: str, *, to: int = STDOUT) -> None:
    """A line of plain text on standard output or standard error. Waits for nobody, as lines of the log."""
    _writers[to].put(text.encode(errors="backslashreplace") + b"\n")


def dropped() -> int:
    """How many lines of the log could not be written, and found the buffer full."""
    return _writers[STDERR].dropped


def _open_standard_streams() -> None:
    """Where a standard stream is closed, the next socket would get its number, and lines of the log with it."""
    for number in (0, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


class _Handler(logging.Handler):
    """Gives records to standard error's writer."""

    def __init__(self, lines: JsonFormatter) -> None:
        super().__init__()
        self.setFormatter(lines)
        self._lines = lines
        self._writer = _writers[STDERR]
        self._writer.report = self._report

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._lines.line(record)
        except Exception as exc:  # a library's own: its text does not go with its arguments
            line = self._lines.line(_record(logging.ERROR, "log.failed", logger=record.name, error=exc))
        self._writer.put(line + b"\n")

    def _report(self, count: int) -> bytes:
        return self._lines.line(_record(logging.WARNING, "log.dropped", lines=count)) + b"\n"


def _record(level: int, event: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord(_logger.name, level, "", 0, event, None, None)
    record.fields = fields
    return record


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        return self.line(record).decode()

    def line(self, record: logging.LogRecord) -> bytes:
        """Without its end."""
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
        return msgspec.json.encode(_guarded(line))


class Seldom:
    """One line in so many seconds, of what would be said again and again. Time is an argument (monotonic seconds)."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said_s = -math.inf

    def is_due(self, now_s: float) -> bool:
        """Whether it is to be said now; then not for a while."""
        if now_s - self._said_s < self._seconds:
            return False
        self._said_s = now_s
        return True


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
