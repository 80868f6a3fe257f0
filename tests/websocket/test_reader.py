from __future__ import annotations

import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.websocket.verdict import (
    CONTINUATION,
    LIMIT,
    Verdict,
    by_reader,
    by_wire,
    check,
    judge,
    pieces,
    pings_last,
)
from tidegate.websocket.reader import Reader


def frames(*parts: tuple[int, bytes] | tuple[int, bytes, bool]) -> bytes:
    """Opcode, payload, and whether it is the last fragment."""
    return b"".join(frame(part[0], part[1], fin=part[2] if len(part) > 2 else True) for part in parts)


SEQUENCES = {
    "a text": frames((TEXT, b"hello")),
    "empty ones": frames((TEXT, b""), (BINARY, b""), (PING, b""), (PONG, b"")),
    "one of each": frames((TEXT, b"t"), (BINARY, b"\xff\x00"), (PING, b"p"), (PONG, b"q"), (CLOSE, b"\x03\xe8bye")),
    "fragments with a ping between": frames((TEXT, b"on", False), (PING, b"p"), (CONTINUATION, b"e"), (TEXT, b"two")),
    "empty fragments": frames((TEXT, b"", False), (CONTINUATION, b"", False), (CONTINUATION, b"")),
    "characters cut by fragments": frames(
        (TEXT, "κό".encode()[:3], False), (PONG, b""), (CONTINUATION, "κό".encode()[3:])
    ),
    "characters of four bytes": frames((TEXT, "a\U0001f30a\U0010ffff".encode())),
    "a text that ends within a character": frames((TEXT, b"ok"), (TEXT, "κόσμε".encode()[:-1])),
    "a surrogate": frames((TEXT, b"hello \xed\xa0\x80"), (TEXT, b"never")),
    "above the last code point": frames((TEXT, b"a\xf4\x90\x80\x80")),
    "close with bad text": frames((CLOSE, b"\x03\xe8\xce")),
    "close with one byte": frames((CLOSE, b"\x03")),
    "close without a code": frames((CLOSE, b"")),
    "close between fragments": frames((TEXT, b"a", False), (CLOSE, b"\x03\xe9"), (CONTINUATION, b"b")),
    "what follows a close": frames((CLOSE, b"\x03\xe8"), (TEXT, b"too late")),
    "binary fragments": frames((BINARY, b"\xff", False), (CONTINUATION, b"\xfe")),
    "a continuation of nothing": frames((TEXT, b"a"), (CONTINUATION, b"b")),
    "a message within a message": frames((TEXT, b"a", False), (TEXT, b"b")),
    "a ping in two": frames((PING, b"a", False), (CONTINUATION, b"b")),
    "a ping of 126 bytes": frames((PING, b"*" * 126)),
    "a pong of 126 bytes": frames((PONG, b"*" * 126)),
    "a close of 126 bytes": frames((CLOSE, b"\x03\xe8" + b"*" * 124)),
    "not masked": frame(TEXT, b"hello", mask=None),
    "empty and not masked": frame(PING, b"", mask=None),
    "two bytes of length": frames((TEXT, b"*" * 126), (BINARY, b"\xff" * 200), (TEXT, b"after")),
    "the limit": frames((TEXT, b"*" * LIMIT), (BINARY, b"*" * LIMIT)),
    "one above the limit": frames((TEXT, b"*" * LIMIT), (TEXT, b"*" * (LIMIT + 1))),
    "fragments that reach the limit": frames((TEXT, b"*" * 200, False), (CONTINUATION, b"*" * 100)),
    "fragments that pass the limit": frames((TEXT, b"*" * 200, False), (PING, b"p"), (CONTINUATION, b"*" * 101)),
    "a length in too long a form": frame(TEXT, b"hello", form=126) + frames((TEXT, b"after")),
    "a length in far too long a form": frames((TEXT, b"a", False)) + frame(CONTINUATION, b"*" * 200, form=127),
    "a pong's length in too long a form": frame(PONG, b"ab", form=126),
    "a length of 2**63": b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00",
    "a length of 2**63 - 1": b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_it_does_not_matter_where_the_network_cuts(name: str) -> None:
    data = SEQUENCES[name]
    expected = check(data, [])
    check(data, range(1, len(data)))  # each byte by itself
    for cut in range(1, len(data)):
        assert by_reader(pieces(data, [cut])) == expected
    for cut in {*range(1, min(len(data), 20)), *range(20, len(data), 17), len(data) - 1}:
        assert by_wire(pieces(data, [cut])) == pings_last(expected)


@pytest.mark.parametrize("name", SEQUENCES)
def test_half_a_sequence_is_judged_by_what_is_there(name: str) -> None:
    data = SEQUENCES[name]
    for end in range(len(data)):
        assert by_reader([data[:end]]) == judge(data[:end], limit=LIMIT, binary=True)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("first", range(256))
def test_every_first_byte_is_taken_or_refused_at_once(first: int, binary: bool) -> None:
    data = bytes((first, 0x82)) + b"\x00\x00\x00\x00\x0b\xb8"  # two bytes that would also do for a close frame
    check(data, [], binary=binary)
    check(data[:2], [1], binary=binary)


# Sections 7.7, 7.9 and 7.13 of the Autobahn test suite have most of these; here are all.
@pytest.mark.parametrize("codes", [range(0, 1000), range(1000, 3000), range(3000, 5010), [5999, 9999, 32768, 65535]])
def test_every_close_code_is_answered_or_refused(codes: Iterable[int]) -> None:
    for code in codes:
        data = frame(CLOSE, code.to_bytes(2, "big") + b"why")
        assert by_reader([data]) == judge(data, limit=LIMIT, binary=True)


_payloads = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=12).map(str.encode),
    st.sampled_from([0, 1, 125, 126, 127, LIMIT - 1, LIMIT, LIMIT + 1]).map(lambda length: b"*" * length),
    st.sampled_from([b"\x03\xe8", b"\x03\xe8ok", b"\x0f\xa7", b"\x03\xed", b"\xed\xa0\x80", b"\xf4\x90"]),
)
_masks = st.one_of(st.just(b"\x01\x02\x03\x04"), st.just(b"\x00\x00\x00\x00"), st.binary(min_size=4, max_size=4))


@st.composite
def _any_frame(draw: st.DrawFn) -> bytes:
    """Any frame at all, mostly with a known opcode, mostly masked."""
    opcode = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 8, 9, 9, 10, 10, 3, 11]))
    mask = draw(st.one_of(_masks, _masks, _masks, st.none()))
    rsv = draw(st.sampled_from([0] * 12 + [0x10, 0x40]))
    return frame(opcode, draw(_payloads), fin=draw(st.booleans()), mask=mask, rsv=rsv)


@st.composite
def _message(draw: st.DrawFn) -> bytes:
    """A message as it should be, in fragments, with control frames between them."""
    text = draw(st.booleans())
    payload = draw(st.text(max_size=40)).encode()
    parts = pieces(payload, draw(st.lists(st.integers(0, len(payload)), max_size=3))) or [b""]
    data = b""
    for number, part in enumerate(parts):
        opcode = CONTINUATION if number else TEXT if text else BINARY
        data += frame(opcode, part, fin=number == len(parts) - 1, mask=draw(_masks))
        if draw(st.booleans()):
            data += frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=5)), mask=draw(_masks))
    return data


_sequences = st.lists(st.one_of(_message(), _message(), _any_frame()), min_size=1, max_size=5).map(b"".join)


@given(data=_sequences, cuts=st.lists(st.integers(0, 2000), max_size=6), binary=st.booleans())
@example(data=frames((TEXT, "κ".encode()[:1], False), (CONTINUATION, "κ".encode()[1:])), cuts=[7], binary=False)
def test_wire_and_reader_agree_with_the_slow_parser(data: bytes, cuts: list[int], binary: bool) -> None:
    check(data, [cut % (len(data) + 1) for cut in cuts], binary=binary)


@given(
    data=_sequences,
    place=st.integers(0, 2000),
    byte=st.integers(0, 255),
    cuts=st.lists(st.integers(0, 2000), max_size=3),
)
def test_they_agree_about_a_sequence_with_one_wrong_byte(data: bytes, place: int, byte: int, cuts: list[int]) -> None:
    place %= len(data)
    check(data[:place] + bytes([byte]) + data[place + 1 :], [cut % (len(data) + 1) for cut in cuts])


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=3))
def test_they_agree_about_noise(data: bytes, cuts: list[int]) -> None:
    check(data, [cut % (len(data) + 1) for cut in cuts])


@given(st.text(min_size=1, max_size=30), st.data())
def test_text_is_taken_wherever_it_is_cut(text: str, data: st.DataObject) -> None:
    payload = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(payload)), max_size=4))
    parts = pieces(payload, cuts)
    sent = b"".join(
        frame(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1) for number, part in enumerate(parts)
    )
    assert check(sent, []).heard == [("text", payload)]


@pytest.mark.parametrize(
    "text", [b"\xc0", b"\xed\xa0", b"\xf4\x90", b"\xf5", b"\xe0\x80", b"\xf0\x80", b"\x80", b"\xff", b"\xce\xce"]
)
def test_a_text_ends_the_connection_as_soon_as_it_can_no_longer_be_utf8(text: bytes) -> None:
    head = frame(TEXT, b"", fin=False) + b"\x80\xfe" + (250).to_bytes(2, "big") + b"\x00\x00\x00\x00"
    assert by_wire([head + b"hello ", *(bytes([byte]) for byte in text)]) == Verdict([], 1007)
    assert by_wire([head + b"hello " + text[:-1]]).close is None  # and not before


@pytest.mark.parametrize(("length", "code"), [(LIMIT, None), (LIMIT + 1, 1009), (2**20, 1009), (2**63, 1002)])
def test_a_message_is_refused_by_its_header_before_any_of_it_is_kept(length: int, code: int | None) -> None:
    short = length < 65536
    header = (b"\x82\xfe" if short else b"\x82\xff") + length.to_bytes(2 if short else 8, "big")  # and no mask yet
    assert by_wire([header]) == Verdict([], code)
    assert by_reader([header]) == Verdict([], code)


def test_the_sum_of_fragments_is_what_counts() -> None:
    start = frame(BINARY, b"*" * LIMIT, fin=False)
    assert by_wire([start, frame(CONTINUATION, b"")]).heard == [("binary", b"*" * LIMIT)]
    assert by_wire([start, b"\x80\x81"]) == Verdict([], 1009)


def test_a_reader_that_has_given_everything_is_idle() -> None:
    reader = Reader(LIMIT, binary=False)
    data = frames((TEXT, b"a", False), (CONTINUATION, b"b"))
    for byte in data[:-1]:
        reader.receive(bytes([byte]))
        while (message := reader.next()) is not None:
            assert message == (CONTINUATION, b"")
        assert not reader.idle
    reader.receive(data[-1:])
    assert reader.next() == (TEXT, b"ab")
    assert reader.next() is None
    assert reader.idle


def test_time_grows_with_the_bytes_and_not_with_their_square() -> None:
    def seconds(length: int, opcode: int) -> float:
        reader = Reader(length, binary=True)
        parts = [bytes([byte]) for byte in frame(opcode, b"*" * length)]
        begun = time.perf_counter()
        for part in parts:
            reader.receive(part)
            message = reader.next()
        assert message == (opcode, b"*" * length)
        return time.perf_counter() - begun

    for opcode in (TEXT, BINARY):
        short = min(seconds(16 * 1024, opcode) for _ in range(3))
        long = min(seconds(128 * 1024, opcode) for _ in range(3))
        assert long < 8 * short * 4


def test_what_has_been_read_is_not_kept() -> None:
    """A fragment that has no end yet, and pings that come between."""
    reader = Reader(LIMIT, binary=False)
    reader.receive(frame(TEXT, b"a", fin=False))
    assert reader.next() == (CONTINUATION, b"")
    for _ in range(1000):
        reader.receive(frame(PING, b"*" * 100))
        assert reader.next() == (PING, b"*" * 100)
        assert reader.next() is None
    assert len(reader._buffer) < 1000
