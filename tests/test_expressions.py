"""What strangers send costs no more than its length, by whichever regular expression it is read.

An expression that goes back over what it has read costs the square of the length, or worse. Then one request holds up
everybody: 40 KB of ``http://aaa…#`` once took three seconds. Here each expression reads texts that are made to let it
fail late, and must not take ten times as long where the text is four times as long.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tidegate
from tidegate import log, tornado_seam, trace
from tidegate.auth import api_keys, hosts, origins, tokens
from tidegate.core import model, patterns, protocol
from tidegate.http import api

# Where only whoever runs the gateway is read: the configuration, keys, the command line, nginx's files.
OPERATORS = (
    "tidegate.config.",
    "tidegate.auth.keys",
    "tidegate.cli.",
    "tidegate.doctor.",
    "tidegate.nginx.",
    "tidegate.brokers.redis.pipeline",
)


def fields(text: str) -> None:
    """They are looked for where the whole request matched, and nowhere else."""
    if found := tornado_seam._request.fullmatch(text):
        tornado_seam._field.findall(found[2])


EXPRESSIONS: dict[str, Callable[[Any], object]] = {
    "tidegate.tornado_seam._request": tornado_seam._request.fullmatch,
    "tidegate.tornado_seam._field": fields,
    "tidegate.tornado_seam._absolute": tornado_seam._absolute.fullmatch,
    "tidegate.core.protocol._STRING": lambda text: protocol._STRING.sub(b"", text.encode("latin1")),
    "tidegate.core.model._ID": model._ID.match,
    "tidegate.core.model._EPOCH": model._EPOCH.match,
    "tidegate.core.model._TRACEPARENT": model._TRACEPARENT.match,
    "tidegate.core.patterns._PATTERN": patterns._PATTERN.match,
    "tidegate.auth.api_keys._KEY": lambda text: api_keys._KEY.match(text.encode("latin1")),
    "tidegate.auth.tokens._COMPACT": tokens._COMPACT.match,
    "tidegate.auth.hosts._HOST": hosts._HOST.match,
    "tidegate.auth.origins._SCHEME": origins._SCHEME.match,
    "tidegate.auth.origins._ELSEWHERE": origins._ELSEWHERE.search,
    "tidegate.http.api._CONNECTION": api._CONNECTION.match,
    "tidegate.http.api._NUMBER": api._NUMBER.match,
    "tidegate.trace._MESSAGE": lambda text: trace._MESSAGE.match(text.encode("latin1")),
    "tidegate.log._SECRET_TEXT": lambda text: log._SECRET_TEXT.sub("", text),
}

BEGINNINGS = ("", "http://", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\na:", 'token="', "[")
PIECES = (
    *("a", " ", "a ", ".", ":", "/", "0", '"', "\\", '\\"', "[", "-", "token=", "bearer "),
    *("a:b\r\n", "a: \r\n", "a:  b \r\n"),
)
ENDS = ("", "\0", "#", "\r\n\0", "\r\n\r\n\0")

LONGEST = 16_384  # characters
NOTED_S = 0.001  # less is too short to be compared
GROWTH = 10  # where the text is four times as long: linear is 4, a square 16


def took_s(read: Callable[[Any], object], text: str) -> float:
    """Of this thread's CPU, which others on this machine do not use."""
    began_s = time.thread_time()
    read(text)
    return time.thread_time() - began_s


def faults(read: Callable[[Any], object]) -> Iterator[str]:
    """The texts for which ``read`` takes more than their length."""
    for beginning, piece, end in itertools.product(BEGINNINGS, PIECES, ENDS):
        times_s: list[float] = []
        count = 1
        while count * len(piece) <= LONGEST:  # from short ones on: what grows faster than a square must not get far
            text = beginning + piece * count + end
            times_s.append(took_s(read, text))
            if len(times_s) > 2 and times_s[-1] > max(GROWTH * times_s[-3], NOTED_S):
                shorter = beginning + piece * (count // 4) + end  # looked at again: it may have been the machine
                again_s = min(took_s(read, text) for _ in range(5))
                if again_s > max(GROWTH * min(took_s(read, shorter) for _ in range(5)), NOTED_S):
                    yield f"{beginning!r} + {count} x {piece!r} + {end!r}: {again_s:.4f} s"
                    break
            count *= 2


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_strangers_send_costs_no_more_than_its_length(name: str) -> None:
    assert next(faults(EXPRESSIONS[name]), None) is None


def parse(text: str) -> None:
    """With what Tornado does where our expression does not match."""
    with contextlib.suppress(Exception):  # refused, as most of these are
        tornado_seam.parse(text.encode("latin1"))


def test_a_request_costs_no_more_than_its_length_where_tornado_reads_it() -> None:
    assert next(faults(parse), None) is None


@pytest.mark.parametrize(
    "expression",
    [
        re.compile(tornado_seam._request.pattern.replace("++", "+").replace("*+", "*").replace("?+", "?")),
        re.compile(tornado_seam._absolute.pattern.replace("*+", "*")),
    ],
    ids=["request", "absolute"],
)
def test_without_possessive_quantifiers_it_would_be_noticed(expression: re.Pattern[str]) -> None:
    assert next(faults(expression.fullmatch), None) is not None


def test_a_string_that_needs_its_end_would_be_noticed() -> None:
    expression = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
    assert next(faults(lambda text: expression.sub(b"", text.encode("latin1"))), None) is not None


def modules() -> list[str]:
    found = [one.name for one in pkgutil.walk_packages(tidegate.__path__, "tidegate.")]
    return [name for name in found if not name.startswith(OPERATORS) and name != "tidegate.__main__"]


def test_no_expression_is_left_out() -> None:
    found = {
        f"{name}.{key}"
        for name in modules()
        for key, value in vars(importlib.import_module(name)).items()
        if isinstance(value, re.Pattern)
    }
    assert found == set(EXPRESSIONS)


def test_expressions_have_names_by_which_they_are_found() -> None:
    """But for the routes, which are made of the paths of the API: a name in them ends at the next slash."""
    called = re.compile(r"\bre\.(search|match|fullmatch|sub|split|find\w+)\(|\(re\.compile\(")
    unnamed = []
    for name in modules():
        source = importlib.import_module(name).__file__
        assert source is not None
        unnamed += [line.strip() for line in Path(source).read_text().splitlines() if called.search(line)]
    assert [line for line in unnamed if "Route(re.compile(" not in line] == []
