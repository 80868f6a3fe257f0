from __future__ import annotations

import json
import time
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import protocol
from tidegate.core.errors import BadRequest, Refused, TooDeep, TooLarge, UnknownCommand
from tidegate.core.model import Gap, History, Message, Position
from tidegate.core.protocol import Call, Join, NotUnderstood, Ping, Publish, ReadHistory, decode_command


def decoded(text: str | bytes) -> protocol.Command:
    return decode_command(text if isinstance(text, bytes) else text.encode(), depth=64)


def publishing(data: str) -> bytes:
    return b'{"type":"publish","id":1,"group":"news","data":%b}' % data.encode()


def refusal(text: str | bytes) -> tuple[str | int | None, type[Refused]]:
    with pytest.raises(NotUnderstood) as info:
        decoded(text)
    return info.value.id, type(info.value.error)


# Commands. What the service answers to them is in vectors/protocol.json.


def test_commands_are_told_apart_by_type_wherever_it_stands() -> None:
    assert decoded('{"type":"ping","id":1}') == Ping(1)
    assert decoded(' {"id" : "a" ,\r\n\t"type":"ping"} ') == Ping("a")
    assert decoded('{"group":"news","offset":0,"id":1,"epoch":"e","type":"join"}') == Join(1, "news", "e", 0)
    assert decoded('{"type":"history","id":1,"group":"news"}') == ReadHistory(1, "news", None, None, 100)


def test_a_call_without_data_has_null() -> None:
    command = decoded('{"type":"call","id":1,"method":"echo"}')
    assert isinstance(command, Call)
    assert bytes(command.data) == b"null"


@pytest.mark.parametrize(
    "data",
    [
        "1e400",
        "-0",
        "-0.0E-0",
        "123456789012345678901234567890",
        "[]",
        "{}",
        "[ 1 ,\t2\r\n]",
        '{"a":1,"a":2}',
        '"\\u0000\\/\\ud83d\\ude00"',
        '"\u2028\x7f\U0010ffff"',
        '{"type":"leave","id":9}',
    ],
)
def test_data_is_kept_as_it_came(data: str) -> None:
    command = decoded(publishing(f" {data} "))
    assert isinstance(command, Publish)
    assert bytes(command.data) == data.encode()


# Some libraries let such pass; the receivers' JSON parsers would not.
NOT_JSON = [
    *["01", "1.", ".5", "+1", "-", "1e", "1e+", "0x1", "1_0", "NaN", "Infinity", "-Infinity", "tru", "True", "/**/1"],
    *[r"'a'", r'"a', r'"\x"', r'"\u12"', r'"\uZZZZ"', r'"\ud800"', r'"\udc00\ud800"', r'"\"'],
    *["[1,]", "[,1]", "[1;2]", "[1]]", '{"a":1,}', '{"a"}', "{a:1}", '{"a":1;"b":2}', '{"a":[}'],
    *("", '"\t"', '"\n"', '"\x00"', "[1 2]", '{"a":1 "b":2}', "\f1", "\u00a01"),
]


@pytest.mark.parametrize("data", NOT_JSON)
def test_what_is_not_json_gets_nowhere(data: str) -> None:
    assert refusal(publishing(data)) == (None, BadRequest)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_any_json_passes_byte_for_byte(value: Any, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    command = decoded(b'{"type":"publish","id":1,"group":"news","data":%b}' % data)
    assert isinstance(command, Publish)
    assert bytes(command.data) == data
    event = protocol.encode_message(Message("group:news", "e", 1, 2, bytes(command.data)))
    assert event.endswith(b'"data":%b}' % data)
    assert json.loads(event)["data"] == value


@given(st.text() | st.text('[]{}",:\\"truefalsn01e.-+ \n', max_size=40))
def test_whatever_is_let_through_is_json(data: str) -> None:
    try:
        command = decoded(publishing(data))
    except NotUnderstood:
        return
    assert isinstance(command, Publish)
    json.loads(bytes(command.data))


@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_no_message_does_more_than_be_refused(payload: bytes) -> None:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return  # the wire has refused it
    error: Refused | None = None
    try:
        decoded(payload)  # understood now and then: Hypothesis takes constants from the code, and some are commands
    except NotUnderstood as exc:
        error = exc.error
    assert error is None or type(error) in (BadRequest, UnknownCommand, TooDeep)


def test_the_id_of_what_is_no_command_is_given_back_where_it_can_be_read() -> None:
    assert refusal('{"type":"bogus","id":7}') == (7, UnknownCommand)
    assert refusal('{"type":"join","id":"a"}') == ("a", BadRequest)
    assert refusal('{"id":"a","type":"ping","data":' + "[" * 64 + "]" * 64 + "}") == ("a", TooDeep)
    assert refusal('{"type":"bogus","id":1.5}') == (None, UnknownCommand)
    assert refusal('{"type":"bogus"}') == (None, UnknownCommand)
    assert refusal('{"type":"ping","id":7') == (None, BadRequest)
    assert refusal('[{"type":"ping","id":7}]') == (None, BadRequest)


def test_an_unknown_field_is_not_taken_for_an_unknown_type() -> None:
    for name in ("required field `type`", " - at `$.type`"):
        assert refusal(json.dumps({"type": "ping", "id": 1, name: 1})) == (1, BadRequest)


# Depth


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("1", 0),
        ("[]", 1),
        ('{"a":[{}]}', 3),
        ("[[],[],[[]]]", 3),
        ('"[[[["', 0),
        ('["\\"[[[[", "]"]', 1),
        ('["\\\\",[]]', 2),
        ('{"[":["{"]}', 2),
    ],
)
def test_depth_counts_arrays_and_objects_outside_strings(text: str, depth: int) -> None:
    protocol.check_depth(text.encode(), depth)
    if depth:
        with pytest.raises(TooDeep):
            protocol.check_depth(text.encode(), depth - 1)


@pytest.mark.parametrize("part", [b'\\"', b'"\\', b'["', b"[]", b'"",', b'"\\\n', b"\\", b'"'])
def test_no_message_makes_counting_slow(part: bytes) -> None:
    """A string that never ends once cost the square of its length: 100 s for the largest message."""
    for start in (b"[" * 65, b"[" * 65 + b'"'):
        payload = start + part * ((131072 - len(start)) // len(part))
        begun_s = time.process_time()
        with pytest.raises(NotUnderstood):
            decode_command(payload, depth=64)
        assert time.process_time() - begun_s < 1


# Values of commands


def test_a_position_is_whole_or_not_there() -> None:
    assert protocol.position_of(None, None) is None
    assert protocol.position_of("e", 0) == Position("e", 0)
    for epoch, offset in (("e", None), (None, 0), ("", 0), ("e", -1), ("e", 2**53 + 1), ("é", 1)):
        with pytest.raises(BadRequest):
            protocol.position_of(epoch, offset)


def test_data_may_be_as_long_as_the_limit() -> None:
    assert protocol.check_size(b"1234", 4) == b"1234"
    with pytest.raises(TooLarge):
        protocol.check_size(b"12345", 4)


# Events


def test_events_have_their_keys_in_the_documented_order() -> None:
    encoded = [
        protocol.encode_message(Message("all", "e1", 7, 1792612345678, b'{ "n":1 }')),
        protocol.encode_message(Message("group:chat", "e1", 7, 1792612345678, b"null", "bob")),
        protocol.encode_gap(Gap("all", "e1", 3, 5, "expired")),
        protocol.encode_gap(Gap("all", "e2", None, 0, "reset")),
        protocol.encode_welcome(
            "alice",
            "n1-7",
            "n1",
            30.0,
            0.5,
            {"message_bytes": 4096, "data_bytes": 1024, "groups": 7},
            {"all": {"epoch": "e1", "offset": 1, "top": 2}},
        ),
        protocol.encode_joined("group:vip", {"epoch": "e1", "offset": 1, "top": 1}),
        protocol.encode_left("group:vip", "removed"),
        protocol.encode_expiring(60),
        protocol.encode_moving(12.5),
        protocol.encode_moving(10.0),
        protocol.encode_reply("a", {"stream": "group:vip"}),
        protocol.encode_call_reply(1, 201, b"[1e400]"),
        protocol.encode_error(None, TooDeep("too deep")),
        protocol.encode_pong(1, None),
        protocol.encode_pong('"\\ é', "eyJhbGwiOlsiZTEiLDdd-_"),
    ]
    assert [event.decode() for event in encoded] == [
        '{"type":"message","stream":"all","epoch":"e1","offset":7,"time":1792612345678,"data":{ "n":1 }}',
        '{"type":"message","stream":"group:chat","epoch":"e1","offset":7,"time":1792612345678,"client":"bob","data":null}',
        '{"type":"gap","stream":"all","epoch":"e1","from":3,"to":5,"reason":"expired"}',
        '{"type":"gap","stream":"all","epoch":"e2","from":null,"to":0,"reason":"reset"}',
        '{"type":"welcome","client":"alice","connection":"n1-7","node":"n1","ping_interval":30,"ping_timeout":0.5,'
        '"limits":{"message_bytes":4096,"data_bytes":1024,"groups":7},"streams":{"all":{"epoch":"e1","offset":1,"top":2}}}',
        '{"type":"joined","stream":"group:vip","epoch":"e1","offset":1,"top":1}',
        '{"type":"left","stream":"group:vip","reason":"removed"}',
        '{"type":"expiring","seconds":60}',
        '{"type":"moving","within":12.5}',
        '{"type":"moving","within":10}',
        '{"type":"reply","id":"a","stream":"group:vip"}',
        '{"type":"reply","id":1,"status":201,"data":[1e400]}',
        '{"type":"error","id":null,"code":"too_deep","message":"too deep"}',
        '{"type":"pong","id":1,"cursor":null}',
        '{"type":"pong","id":"\\"\\\\ é","cursor":"eyJhbGwiOlsiZTEiLDdd-_"}',
    ]


def history(*sizes: int, start: int = 0, top: int | None = None, gap: Gap | None = None) -> History:
    """Messages with data of these sizes."""
    messages = [Message("all", "e", start + n, 5, b"1" * size) for n, size in enumerate(sizes, 1)]
    return History(Position("e", start), start + len(sizes) if top is None else top, messages, gap)


def test_a_page_of_history_is_cut_to_its_size_and_says_that_there_is_more() -> None:
    one = len(msgspec.json.encode({"offset": 1, "time": 5, "data": 1})) + 99 + 1  # a comma
    for size, count in ((3 * one, 3), (3 * one - 1, 2), (one, 1), (0, 1)):
        fields = protocol.history_fields(history(100, 100, 100), size)
        assert len(cast("list[object]", fields["messages"])) == count
        assert fields["more"] is (count < 3)
    fields = protocol.history_fields(history(1, start=4, top=9), 1000)
    assert fields == {"epoch": "e", "offset": 4, "top": 9, "messages": fields["messages"], "more": True}
    fields = protocol.history_fields(history(start=9), 1000)
    assert (fields["messages"], fields["more"]) == ([], False)


def test_a_page_of_history_ends_with_its_gap() -> None:
    gap = Gap("all", "e", 2, 4, "expired")
    fields = protocol.history_fields(history(1, start=4, gap=gap), 1000)
    assert list(fields) == ["epoch", "offset", "top", "messages", "more", "gap"]
    assert fields["gap"] == {"stream": "all", "epoch": "e", "from": 2, "to": 4, "reason": "expired"}


@given(st.lists(st.text("abc", min_size=1, max_size=9)), st.integers(0, 100))
def test_as_many_names_are_shown_as_fit(names: list[str], size: int) -> None:
    shown = list(protocol.cut(names, size))
    assert shown == names[: len(shown)]
    assert not shown or len(msgspec.json.encode(shown)) <= size + 1
    if len(shown) < len(names):
        assert len(msgspec.json.encode(names[: len(shown) + 1])) > size


@pytest.mark.parametrize("pair", [b"{}", b"[]"])
def test_what_stands_side_by_side_is_not_nested(pair: bytes) -> None:
    protocol.check_depth(b"[" + b",".join([pair] * 100) + b"]", 2)
    with pytest.raises(TooDeep):
        protocol.check_depth(b"[" + b",".join([pair] * 100) + b",[" + pair + b"]]", 2)
