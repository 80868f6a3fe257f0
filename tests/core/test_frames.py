from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wires import frames_of
from tidegate.core import frames


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8100"),
        (1, "8101"),
        (125, "817d"),
        (126, "817e007e"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
    ],
)
def test_a_length_takes_the_shortest_of_three_forms(length: int, header: str) -> None:
    assert frames.text(b"*" * length) == bytes.fromhex(header) + b"*" * length
    assert frames.header(frames.TEXT, length) == bytes.fromhex(header)


# The unmasked examples of RFC 6455, section 5.7.
@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (frames.text(b"Hello"), "810548656c6c6f"),
        (frames.ping(b"Hello"), "890548656c6c6f"),
        (frames.pong(b"Hello"), "8a0548656c6c6f"),
        (frames.header(frames.BINARY, 256), "827e0100"),
        (frames.header(frames.BINARY, 65536), "827f0000000000010000"),
    ],
)
def test_frames_are_those_of_the_rfc(frame: bytes, expected: str) -> None:
    assert frame == bytes.fromhex(expected)


@given(st.binary(max_size=70000))
def test_a_text_is_one_whole_unmasked_frame(payload: bytes) -> None:
    assert frames_of(frames.text(payload)) == [("text", payload)]


def test_a_close_frame_has_a_code_and_a_reason() -> None:
    assert frames.close(1000) == bytes.fromhex("880203e8")
    assert frames.close(4007, "no sign of life") == b"\x88\x11\x0f\xa7no sign of life"


@given(st.text(max_size=200))
def test_a_close_reason_is_cut_at_a_whole_character(reason: str) -> None:
    [(name, body)] = frames_of(frames.close(1011, reason))
    assert name == "close"
    assert len(body) <= 125
    kept = body[2:].decode()
    assert reason.startswith(kept)
    assert kept == reason or len(body) > 125 - 4


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999])
def test_codes_that_the_rfc_or_the_registry_knows_may_be_sent(code: int) -> None:
    assert frames.may_be_sent(code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_reserved_and_unknown_codes_may_not_be_sent(code: int) -> None:
    assert not frames.may_be_sent(code)
