"""What a slow connection is told of a stretch of a stream, written like a transcript: ``3a`` is offset 3 of the word a,
``4`` has none, ``1-2`` is a gap."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.model import Gap, History, Message, Position
from tidegate.core.newest import Newest

ROOM = 1 << 20


def message(offset: int, word: str | None = None, epoch: str = "e") -> Message:
    return Message("group:news", epoch, offset, 1, b"%d" % offset, None, word)


def page(*messages: Message, top: int | None = None, after: Position | None = None, gap: Gap | None = None) -> History:
    start = after or Position(messages[0].epoch, messages[0].offset - 1)
    return History(start, top or start.offset + len(messages), list(messages), gap)


def of(words: Sequence[str | None], first: int = 1) -> list[Message]:
    return [message(offset, word) for offset, word in enumerate(words, first)]


def told(newest: Newest) -> str:
    return " ".join(
        f"{event.first}-{event.last}" if isinstance(event, Gap) else f"{event.offset}{event.conflate or ''}"
        for event in newest.events()
    )


def test_of_each_word_the_newest_is_told_and_what_is_left_out_between_them() -> None:
    newest = Newest(page(*of(["a", "b", None, "a", None, "c", "b"])), ROOM)
    assert told(newest) == "1-3 4a 5 6c 7b"
    assert (newest.skipped, newest.ended, newest.end) == (3, True, Position("e", 7))


def test_without_words_it_is_the_last_one() -> None:
    newest = Newest(page(*of([None] * 500), top=1000), ROOM)
    assert not newest.ended
    newest.add(page(*of([None] * 500, 501)))
    assert told(newest) == "1-999 1000"
    assert newest.ended


def test_gaps_are_skipped_ones_of_the_stretch_and_the_last_message_ends_it() -> None:
    newest = Newest(page(message(7, "a"), message(8, "a")), ROOM)
    assert list(newest.events()) == [Gap("group:news", "e", 7, 7, "skipped"), message(8, "a")]


def test_an_empty_page_tells_nothing_and_stays_where_it_is() -> None:
    newest = Newest(page(after=Position("e", 5)), ROOM)
    assert (told(newest), newest.end, newest.skipped, newest.ended) == ("", Position("e", 5), 0, True)


def test_a_page_with_a_gap_or_of_elsewhere_ends_the_stretch_before_it() -> None:
    lost = Gap("group:news", "e", 3, 4, "expired")
    moved = Gap("group:news", "f", None, 0, "reset")
    for following in (
        page(message(5, "a"), gap=lost),
        page(message(1, "a", "f"), gap=moved),
        page(message(1, "a", "f")),
    ):
        newest = Newest(page(*of(["a", "b"]), top=9), ROOM)
        newest.add(following)
        assert (told(newest), newest.ended, newest.end) == ("1a 2b", True, Position("e", 2))


def test_a_gap_of_its_first_page_comes_before_it() -> None:
    lost = Gap("group:news", "e", 3, 4, "expired")
    newest = Newest(page(message(5), message(6), gap=lost), ROOM)
    assert (newest.gap, told(newest)) == (lost, "5-5 6")


def test_what_is_full_ends_where_it_is_full_and_goes_on_there() -> None:
    newest = Newest(page(*of([f"w{number}" for number in range(100)])), 1000)
    assert newest.ended
    kept = len(list(newest.messages))
    assert 2 <= kept <= 6
    assert newest.end == Position("e", kept)


def test_a_word_that_comes_again_and_again_fills_nothing() -> None:
    newest = Newest(page(*of(["a"] * 10_000)), 1000)
    assert told(newest) == "1-9999 10000a"


@given(words=st.lists(st.sampled_from((None, "a", "b", "c", "d")), min_size=1, max_size=60), split=st.data())
def test_any_stretch_in_any_pages_is_told_without_a_hole_and_ends_with_the_newest_of_each(
    words: list[str | None], split: st.DataObject
) -> None:
    messages = of(words)
    first = split.draw(st.integers(0, len(messages)))
    newest = Newest(page(*messages[:first], top=len(messages), after=Position("e", 0)), ROOM)
    if first < len(messages):
        newest.add(page(*messages[first:]))
    at, seen = 0, {}
    for event in newest.events():
        if isinstance(event, Gap):
            assert (event.first, event.reason) == (at + 1, "skipped")
            at = event.last
        else:
            assert event.offset == at + 1
            at = event.offset
            assert event.conflate not in seen, "two of a word"
            seen[event.conflate] = at
    assert at == len(messages) == newest.end.offset
    assert seen == {each.conflate: each.offset for each in messages}
