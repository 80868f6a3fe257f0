"""The newest messages of a stream on the node: what they cover they answer as the journal would, and nothing else."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tidegate.brokers.redis import tail as tails
from tidegate.brokers.redis.tail import Tail, Tails
from tidegate.core.model import History, Message, Position

AGE_S = 60.0


class Node:
    """Tails that share 10,000 bytes, and a clock."""

    def __init__(self, most_bytes: int = 10_000) -> None:
        self.now_s = 1000.0
        self.tails = Tails(most_bytes, lambda: self.now_s)

    def hear(self, tail: Tail, *offsets: int, data: bytes = b"1234") -> None:
        for offset in offsets:
            self.tails.add(tail, Message("group:a", "e", offset, 1, data))

    def since(self, tail: Tail, offset: int, heard: int, epoch: str = "e", messages: int = 10, size: int = 1000):
        return self.tails.since(tail, Position(epoch, offset), Position("e", heard), messages, size)


def offsets(page: History | None) -> list[int] | None:
    return None if page is None else [message.offset for message in page.messages]


def test_a_tail_answers_from_the_position_before_its_oldest_message_on() -> None:
    node, tail = Node(), Tail(100, AGE_S)
    node.hear(tail, 5, 6, 7)
    assert offsets(node.since(tail, 3, 7)) is None
    assert offsets(node.since(tail, 4, 7)) == [5, 6, 7]
    assert offsets(node.since(tail, 6, 7)) == [7]
    assert offsets(node.since(tail, 7, 7)) == []
    assert offsets(node.since(tail, 8, 7)) is None
    assert offsets(node.since(tail, 6, 7, epoch="other")) is None


def test_a_page_is_bounded_by_count_and_size_and_says_the_top() -> None:
    node, tail = Node(), Tail(100, AGE_S)
    node.hear(tail, 1, 2, 3)
    page = node.since(tail, 0, 3, messages=2)
    assert page is not None
    assert (offsets(page), page.start, page.top, page.complete) == ([1, 2], Position("e", 0), 3, False)
    assert offsets(node.since(tail, 0, 3, size=8)) == [1, 2]
    assert offsets(node.since(tail, 0, 3, size=1)) == [1]


def test_what_is_too_old_is_for_the_journal_to_answer() -> None:
    node, tail = Node(), Tail(100, AGE_S)
    node.hear(tail, 1)
    node.now_s += 40
    node.hear(tail, 2)
    node.now_s += 30
    assert offsets(node.since(tail, 0, 2)) is None
    assert offsets(node.since(tail, 1, 2)) == [2]
    assert node.tails.size == tail.size > 0


def test_a_tail_keeps_so_many_messages_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    node, tail = Node(1 << 30), Tail(3, AGE_S)
    node.hear(tail, *range(1, 10))
    assert [message.offset for _, message in tail.messages or ()] == [7, 8, 9]
    large = Tail(1000, AGE_S)
    monkeypatch.setattr(tails, "TAIL_BYTES", 5000)
    node.hear(large, *range(1, 10), data=b"x" * 1000)
    assert 0 < large.size <= 5000
    assert node.tails.size == tail.size + large.size


def test_together_they_keep_so_many_bytes_and_the_least_used_is_emptied() -> None:
    node, first, second = Node(), Tail(100, AGE_S), Tail(100, AGE_S)
    node.hear(first, 1, data=b"x" * 4000)
    node.hear(second, 1, data=b"x" * 3000)
    node.hear(first, 2, data=b"x" * 100)
    node.hear(second, 2, data=b"x" * 3000)
    assert (first.messages, len(second.messages or ())) == (None, 2)
    assert node.tails.size == second.size <= 10_000
    assert offsets(node.since(first, 1, 2)) is None
    node.tails.forget(second)
    assert node.tails.size == 0


def test_a_tail_without_messages_costs_little() -> None:
    """Each client's own stream has one."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        quiet = [Tail(100, AGE_S) for _ in range(1000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(quiet) < 150
