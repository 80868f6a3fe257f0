from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import (
    CURSOR_BYTES,
    MAX_OFFSET,
    History,
    Message,
    Position,
    client_stream,
    decode_cursor,
    encode_cursor,
    group_of,
    group_stream,
    is_id,
    is_stream,
    kind_of,
    node_stream,
)

ids = st.text("ABCxyz019_.@-", min_size=1, max_size=128).filter(lambda text: text.strip("."))
epochs = st.text("abc019_.-", min_size=1, max_size=64)
positions = st.builds(Position, epochs, st.integers(0, MAX_OFFSET))
streams = st.one_of(st.just("all"), ids.map(client_stream), ids.map(group_stream))


# Names


@pytest.mark.parametrize("name", ["a", "Z", "0", "_", "-", "@", "a.b", "..a", ".a.", "alice@example.org", "x" * 128])
def test_ids_are_of_a_small_alphabet(name: str) -> None:
    assert is_id(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "." * 128,
        "x" * 129,
        "a b",
        "a:b",
        "a/b",
        "a*",
        "a,b",
        "a\n",
        "\n",
        "é",
        "\uff41",
        "\u0663",
        "a\x00",
        "%41",
    ],
)
def test_nothing_else_is_an_id(name: str) -> None:
    assert not is_id(name)


@pytest.mark.parametrize("name", ["all", "client:alice", "group:news", "group:all", "client:group"])
def test_streams_are_of_a_client_a_group_or_all(name: str) -> None:
    assert is_stream(name)


@pytest.mark.parametrize("name", ["", "ALL", "all:", "all:x", "client:", "group:..", "user:alice", ":", "group:a:b"])
def test_nothing_else_is_a_stream(name: str) -> None:
    assert not is_stream(name)


def test_a_group_has_a_stream_and_a_stream_may_have_a_group() -> None:
    assert group_of(group_stream("news")) == "news"
    assert group_of("all") is None
    assert group_of(client_stream("group")) is None


def test_each_stream_is_of_one_kind() -> None:
    names = ("all", client_stream("group"), group_stream("all"), node_stream("client"))
    assert [kind_of(name) for name in names] == ["all", "client", "group", "node"]
    assert not is_stream(node_stream("n1")), "nobody joins it"


# Cursors


def token_of(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@given(st.dictionaries(streams, positions, max_size=8))
def test_a_cursor_holds_its_positions(cursor: dict[str, Position]) -> None:
    token = encode_cursor(cursor)
    if token is None:
        return
    assert len(token) <= CURSOR_BYTES
    assert token.strip("-_").isalnum() or not token.strip("-_")
    assert decode_cursor(token) == cursor


def test_a_cursor_that_would_be_too_long_is_none() -> None:
    """The limit is the token's: 3072 bytes of JSON become 4096."""
    cursor = {f"group:{n:0128}": Position("e10", 0) for n in range(20)}
    rest = 3072 - len(json.dumps({stream: ["e10", 0] for stream in cursor}, separators=(",", ":")))
    last = "group:" + "g" * (rest - len(',"group:":["e",0]'))
    assert is_stream(last)
    token = encode_cursor({**cursor, last: Position("e", 0)})
    assert token is not None
    assert len(token) == CURSOR_BYTES
    assert len(decode_cursor(token)) == 21
    assert encode_cursor({**cursor, last + "g": Position("e", 0)}) is None


@pytest.mark.parametrize(
    "value",
    [
        [],
        None,
        1,
        "all",
        {"all": None},
        {"all": []},
        {"all": ["e"]},
        {"all": {"epoch": "e", "offset": 1}},
        {"all": ["e", "1"]},
        {"all": ["e", 1.5]},
        {"all": ["e", True]},
        {"all": ["e", None]},
        {"all": [1, 1]},
        {"all": ["", 1]},
        {"all": ["e" * 65, 1]},
        {"all": ["e e", 1]},
        {"all": ["é", 1]},
        {"all": ["e", -1]},
        {"all": ["e", MAX_OFFSET + 1]},
        {"all": ["e", 10**400]},
        {"": ["e", 1]},
        {"news": ["e", 1]},
        {"group:": ["e", 1]},
        {"group:a b": ["e", 1]},
        {"client:..": ["e", 1]},
        {"all": ["e", 1], "group:\ud800": ["e", 1]},
    ],
)
def test_a_cursor_of_anything_but_positions_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(token_of(value))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "e",
        "eyJ9",  # {"}
        "eyJhbGwiOlsiZSIsMV19 ",
        "eyJhbGwiOlsiZSIsMV19\n",
        "eyJh\nbGwiOlsiZSIsMV19",
        "é",
        "\x00",
        "%7B%7D",
        "{}",
        "last",
        "=",
        "W1tbW1tbW1tbW1tb",
        token_of({f"group:g{n}": ["e", n] for n in range(200)}),
    ],
)
def test_what_is_no_cursor_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(token)


@given(
    st.one_of(st.text(max_size=100), st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
)
def test_no_text_does_more_than_be_refused(token: str) -> None:
    try:
        cursor = decode_cursor(token)
    except ValueError:
        return
    assert all(map(is_stream, cursor))


def test_deep_nesting_is_refused_like_anything_else() -> None:
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(base64.urlsafe_b64encode(b"[" * 3000).decode())
    with pytest.raises(ValueError, match="cursor"):
        decode_cursor(base64.urlsafe_b64encode(b'{"all":' + b"[" * 3000).decode())


# History


def test_a_page_ends_after_its_last_message_and_is_complete_at_the_top() -> None:
    def page(*offsets: int, top: int) -> History:
        return History(Position("e", 4), top, [Message("all", "e", offset, 0, b"1") for offset in offsets])

    assert page(5, 6, top=9).end == Position("e", 6)
    assert not page(5, 6, top=9).complete
    assert page(5, 6, top=6).complete
    assert page(top=4).end == Position("e", 4)
    assert page(top=4).complete
