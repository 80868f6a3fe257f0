"""What the commands share: how one fails, and how it speaks. ``main`` turns failures into words and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from tidegate.cli.terminal import is_terminal, paint

if TYPE_CHECKING:  # reading a configuration costs more than help does
    from tidegate.config.settings import Config

# Reads the configuration. Raises tidegate.config.load.ConfigError.
LoadConfig: TypeAlias = "Callable[[], Config]"


KEY_NOTE = "The API key comes from TIDEGATE_API_KEY, else from the configuration."


class Usage(Exception):
    """The command line asks for what cannot be."""


class Failed(Exception):
    """In words: what was refused, or what did not work. ``passing``: it may work later."""

    def __init__(self, words: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(words)


def add_url(parser: argparse.ArgumentParser) -> None:
    """For a command that speaks to a running gateway."""
    parser.add_argument("--url", metavar="URL", help="the internal port (default: as the configuration says)")


def add_json(parser: argparse.ArgumentParser, what: str = "the answer as JSON") -> None:
    """For a command whose answer a program may read, which then is ``args.json``."""
    parser.add_argument("--json", action="store_true", help=what)


def note(words: str) -> None:
    """To standard error: standard output is for answers."""
    print(f"tidegate: {words}", file=sys.stderr, flush=True)


def complain(words: str) -> None:
    """As a ``note`` that says why a command failed."""
    print(f"{paint('tidegate:', 'red', sys.stderr)} {words}", file=sys.stderr, flush=True)


def read_stdin() -> bytes:
    """Standard input to its end. Who sits before a terminal is told that it is waited for."""
    if is_terminal(sys.stdin):
        note("reading standard input; Ctrl-D ends it")
    return sys.stdin.buffer.read()


@contextlib.contextmanager
def until_reader_leaves() -> Iterator[None]:
    """Ends what writes an answer when its reader closes the pipe, as head(1) does. That is no failure."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()


def discard_stdout() -> None:
    """After a failed write: without this, Python tries again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_json(data: bytes) -> None:
    """In UTF-8, whatever the locale says (RFC 8259, 8.1)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.flush()
        sys.stdout.buffer.write(data + b"\n")
    else:  # closed by who started us, or another's
        print(data.decode())
