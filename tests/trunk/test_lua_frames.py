"""Both ends of a trunk write and read the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trunk.luajit import quoted, run
from tidegate.core.model import Position
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind, Splitter

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=20)
POSITIONS = st.builds(Position, NAMES, st.integers(0, 2**53))
FRAMES = st.tuples(st.sampled_from(Kind), st.integers(0, 2**31), st.binary(max_size=40))

SPLIT = """
local frames = require "trunk_frames"
local rest = ""
for _, piece in ipairs({%s}) do
    rest = frames.split(rest .. piece, function(kind, number, data, first, last)
        local hex = data:sub(first, last):gsub(".", function(c) return ("%%02x"):format(c:byte()) end)
        print(kind, number, hex)
    end)
end
print("left", #rest)
"""


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 60), max_size=6))
@settings(max_examples=40, deadline=None)
def test_frames_are_taken_apart_wherever_reads_cut_them(sent: list[tuple[Kind, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(codec.frame(*one) for one in sent)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    pieces.append(data[at:])
    splitter, got = Splitter(), []
    for piece in pieces:
        splitter.feed(piece)
        got += list(splitter.frames(1 << 30))
    assert got == sent
    assert splitter.size == 0
    *lines, left = run(SPLIT % ",".join(map(quoted, pieces)))
    assert lines == [f"{kind}\t{number}\t{payload.hex()}" for kind, number, payload in sent]
    assert left == "left\t0"


@given(st.dictionaries(NAMES, POSITIONS, max_size=5), st.sampled_from(Kind), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_the_edge_writes_the_node_reads(
    positions: dict[str, Position], kind: Kind, number: int, answered: bool
) -> None:
    entries = ",".join(f"[{quoted(name.encode())}]={quoted(codec.position(at))}" for name, at in positions.items())
    (text,) = run(f"""
        local frames = require "trunk_frames"
        local function hex(text) return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
        local cursor = frames.cursor({{{entries}}})
        local gone = frames.gone(4008, {str(answered).lower()})
        local known = frames.fields("connection", "n1-7", "term", 2)
        local position, at = frames.read_position({quoted(codec.position(Position("k3f9", 2**53)) + b"news")}, 1)
        print(table.concat({{hex(frames.head({int(kind)}, {number}, 5)), hex(cursor), hex(gone), hex(known),
            hex(frames.count({number})), hex(position), at, frames.read_count(frames.count({number}), 1)}}, " "))
    """)
    head, cursor, gone, known, count, position, at, read = text.split(" ")
    assert bytes.fromhex(head) == codec.head(kind, number, 5)
    assert codec.read_cursor(bytes.fromhex(cursor), 0) == (positions, len(cursor) // 2)
    assert codec.read_gone(bytes.fromhex(gone)) == (4008, answered)
    assert codec.read_fields(bytes.fromhex(known)) == {"connection": "n1-7", "term": "2"}
    assert codec.read_count(bytes.fromhex(count)) == number == int(read)
    assert bytes.fromhex(position) == codec.position(Position("k3f9", 2**53))
    assert int(at) == len(position) // 2 + 1


def test_a_line_ends_with_a_line_feed_and_nothing_else_on_both_sides() -> None:
    text = "a b\x0bc\u2028d\r\ne\nf \n g\nh i".encode()
    (said,) = run(f"""
        local words = {{}}
        for name, value in pairs(require("trunk_frames").read_fields({quoted(text)})) do
            words[#words + 1] = name .. "=" .. #value
        end
        table.sort(words)
        print(table.concat(words, " "))
    """)
    assert said == "a=8 f=0"
    assert codec.read_fields(text) == {"a": "b\x0bc\u2028d\r", "f": ""}


def test_a_cursor_whose_last_name_is_cut_off_is_none() -> None:
    whole = codec.cursor({"group:news": Position("k3f9", 1)})
    assert codec.read_cursor(whole, 0)[1] == len(whole)
    for end in range(len(whole)):
        with pytest.raises(codec.TrunkBroken):
            codec.read_cursor(whole[:end], 0)
