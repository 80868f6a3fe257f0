"""What the njs edge reads of an application and of a client, without nginx: no JSON is taken which the service would
not take, and the last of several answers is found."""

from __future__ import annotations

import random
import re
from typing import Any

import msgspec
import pytest

from tests.edges.frames import SPANNED, TRACED, UNTRACED
from tests.edges.njs import call, njs
from tidegate import calls
from tidegate.core.errors import CallBadAnswer
from tidegate.core.protocol import Call, NotUnderstood, decode_command

# JSON


def mutated(chance: random.Random, text: bytes) -> bytes:
    """``text`` with a few bytes lost, doubled, replaced or put in."""
    alphabet = b'{}[]",:\\ \n\t\r0123456789.-+eEtrufalsn\x00\x1f\x7f\xc3\xbc\xed\xa0\x80\xff\xf0\x9f\x98\x80abc'
    out = bytearray(text)
    for _ in range(chance.randint(0, 2)):
        at = chance.randrange(len(out) + 1)
        kind = chance.randrange(3)
        if kind < 2:
            del out[at : at + chance.randint(1, 2)]
        if kind > 0:
            out[at:at] = bytes([chance.choice(alphabet)])
    return bytes(out)


VALUES = [
    b"1", b"-0", b"0.5", b"-1.25e+10", b"1E400", b"123456789012345678901234567890", b"true", b"false", b"null",
    b'""', b"[]", b"{}", b'[1, [2, {"a":[]}],"x"]', b'{"a":1,"a":{"b" :null}}',
    b'"\\u00fc\\n\\/\\uD83d\\uDe00"', b'"\\ud800"', b'"\\udc00\\ud800"',
    '"ü☂😀"'.encode(), b'"{[\\"]}"',
]  # fmt: skip
CALLS = [
    b'{"type":"call","id":%b,"method":"echo","data":%b}',
    b' { "method" : "orders.create" , "data" :\t%b\n, "id" : %b , "type" : "call" } ',
    b'{"type":"call","id":%%b,"method":"echo","traceparent":"%b","data":%%b}' % TRACED,
]
IDS = [
    b"1",
    b"-77",
    b'"abc"',
    b'""',
    '"☂"'.encode(),
    b"9007199254740992",
    b"1.0",
    b"-0",
    b'"a\\n"',
    b'"%b"' % (b"x" * 65),
]


def as_service_does(text: bytes) -> Call | None:
    try:
        text.decode()
        command = decode_command(text, depth=64)
    except (UnicodeDecodeError, NotUnderstood):
        return None
    return command if isinstance(command, Call) else None


def test_a_call_is_taken_only_as_the_service_would_and_with_the_same_bytes():
    chance = random.Random(7)
    texts = [CALLS[0] % (id_, value) for id_ in IDS for value in VALUES]
    texts += [CALLS[1] % (value, id_) for id_ in IDS[:5] for value in VALUES]
    texts += [CALLS[2] % (id_, b"1") for id_ in IDS]
    texts += [mutated(chance, chance.choice(texts)) for _ in range(6000)]
    taken = njs({"kind": "parse", "texts": [text.hex() for text in texts]})
    assert sum(call is not None for call in taken) > 200
    for text, found in zip(texts, taken, strict=True):
        command = as_service_does(text)
        if found is None:
            assert command is None or command.method not in ("echo", "orders.create"), text
        elif found == "perhaps":
            # What it leaves to the service are ids that it could not give back as the service writes them.
            if command is not None and command.method in ("echo", "orders.create"):
                members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
                odd = re.search(rb"\\|^-?[0-9]*[.eE]|^-0|[0-9]{16}", bytes(members["id"]))
                assert odd or b"\\" in text, text  # a name with an escape
        else:
            assert command is not None, text
            id_, method, data, traceparent = found
            assert traceparent == (command.traceparent or "")
            assert (msgspec.json.decode(id_), method) == (command.id, command.method), text
            assert id_.encode() == msgspec.json.encode(command.id)
            assert bytes.fromhex(data) == bytes(command.data), text


def test_what_is_no_call_or_beyond_a_limit_is_left_to_the_service():
    refused = [
        b"", b"{}", b"[]", b'"call"', b'{"type":"call"}', b'{"type":"call","id":1}',
        b'{"type":"call","id":1,"method":"other"}', b'{"type":"call","id":1,"method":["echo"]}',
        b'{"type":"call","id":1,"method":[1]}', b'{"type":"call","id":1,"method":true}',
        b'{"type":"call","id":1,"method":null}', b'{"type":"call","id":1,"method":"echo","key":1}',
        b'{"type":"publish","group":"a","data":"call"}',
        call(1, b'"' + b"x" * 65_535 + b'"'), call(1, b"[" * 64 + b"]" * 64), call(1, b"[" * 5000),
        b"\xef\xbb\xbf" + call(1), *(SPANNED.replace(b"orders.create", b"echo") % (1, text) for text in UNTRACED),
    ]  # fmt: skip
    perhaps = [
        b'{"type":"call","id":1,"method":"ech\\u006f"}', b'{"type":"\\u0063all","id":1,"method":"echo"}',
        b'{"typ\\u0065":"call","id":1,"method":"echo"}', b'{"type":"call","id":1,"id":1,"method":"echo"}',
        b'{"type":"publish","type":"call","id":1,"method":"echo"}', b'{"type":"call","id":1.0,"method":"echo"}',
    ]  # fmt: skip
    taken = [
        call(1, b'"' + b"x" * 65_534 + b'"'),
        call(1, b"[" * 63 + b"]" * 63),
        b'{"type":"call","id":1,"method":"echo"}',
    ]
    result = njs({"kind": "parse", "texts": [text.hex() for text in refused + perhaps + taken]})
    assert result[: len(refused)] == [None] * len(refused)
    assert result[len(refused) : -len(taken)] == ["perhaps"] * len(perhaps)
    assert bytes.fromhex(result[-3][2]) == b'"%b"' % (b"x" * 65_534)
    assert bytes.fromhex(result[-1][2]) == b"null"


def test_an_answer_is_good_where_the_services_own_check_says_so():
    chance = random.Random(11)
    texts = [b"[" * depth + b"]" * depth for depth in (1, 64, 65, 4000)] + [b'{"a":' * 64 + b"1" + b"}" * 64]
    texts += [b" " + value + b"\r\n\t" for value in VALUES] + [
        b"\xef\xbb\xbf1",
        b" ",
        b"1 2",
        b"01",
        b"NaN",
        b"+1",
        b"'a'",
    ]
    texts += [mutated(chance, chance.choice(VALUES)) for _ in range(6000)]
    texts = [text for text in texts if text]
    for text, found in zip(texts, njs({"kind": "documents", "texts": [text.hex() for text in texts]}), strict=True):
        try:
            expected: str | None = calls.check_answer(text).hex()
        except CallBadAnswer:
            expected = None
        assert found == expected, text


# Announced answers


def announced(text: bytes) -> tuple[list[Any], Any]:
    """What is found while the answer is still coming, each time that a byte more is there; and at the end."""
    found, (end,) = njs({"kind": "announced", "texts": [text.hex()]})[0]
    return [(status, bytes.fromhex(body)) for status, body in found], (end[0], bytes.fromhex(end[1]))


def test_the_last_answer_is_found_behind_those_that_announce_it():
    hints = b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\nHTTP/1.1 100\r\n\r\n"
    for answer, wanted in (
        (b"HTTP/1.1 201 Created\r\ncontent-length: 3\r\n\r\n[1]", ("201", b"[1]")),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\n[1\r\n01\r\n]\r\n0\r\nA: b\r\n\r\n",
            ("200", b"[1]"),
        ),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ("204", b"")),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", ("404", b"")),
    ):
        for before in (b"", hints):
            assert announced(before + answer) == ([wanted], wanted)
    until_closed = hints + b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[1]"
    assert announced(until_closed) == ([], ("200", b"[1]"))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"[1]\r\n\r\n",
    ],
)
def test_what_is_no_whole_answer_is_told_apart(answer: bytes):
    _, end = announced(answer)
    assert end == ("000", b"")
