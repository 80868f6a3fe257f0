"""What a command shows to people alone: colours, and how far long work is. A program that reads gets none of it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, TextIO, TypeAlias

Colour: TypeAlias = Literal["red", "green", "yellow", "bold", "dim"]

_CODES: dict[Colour, str] = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_ERASE = "\r\x1b[K"  # ECMA-48, 8.3.41: the whole line
_PATIENCE_S = 0.5  # what is over by then needs no line
_REDRAW_S = 0.2


def is_terminal(stream: TextIO | None) -> bool:
    """None: closed by who started us."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed by us
        return False


def is_coloured(stream: TextIO | None) -> bool:
    """Source: https://no-color.org, and terminfo(5) for a terminal that knows no colours."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: Colour, stream: TextIO | None) -> str:
    """``text`` in a colour where ``stream`` shows colours, and else as it is."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if is_coloured(stream) else text


def visible(text: str) -> str:
    """What others made up may be orders to a terminal, or look like a line of ours: none of it, on one line."""
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


@contextlib.contextmanager
def progress(words: str) -> Iterator[Callable[[str], None]]:
    """Shows on standard error, if that is a terminal, that work goes on: ``words``, for how long, and what the function
    that it gives was told last, as "3 of 12". The line goes when the work is done. A thread draws it: the work may hold
    the interpreter, or a loop."""
    if not is_terminal(sys.stderr):
        yield lambda text: None
        return
    line = _Line(words, sys.stderr)
    try:
        yield line.tell
    finally:
        line.end()


class _Line:
    def __init__(self, words: str, stream: TextIO) -> None:
        self._words = words
        self._told = ""
        self._stream = stream
        self._begun_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
        self._thread.start()

    def tell(self, text: str) -> None:
        self._told = text

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _draw(self) -> None:
        if self._ended.wait(_PATIENCE_S):
            return
        with contextlib.suppress(OSError, ValueError):  # the terminal has gone
            while True:
                seconds = f"{time.monotonic() - self._begun_s:.0f} s"
                parts = [part for part in (self._told, seconds) if part]
                text = f"tidegate: {self._words} ({', '.join(parts)})"[: _width(self._stream) - 1]
                self._write(f"{_ERASE}{text}")
                if self._ended.wait(_REDRAW_S):
                    break
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _width(stream: TextIO) -> int:
    """Longer lines would be broken, and only their ends erased."""
    with contextlib.suppress(OSError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80
