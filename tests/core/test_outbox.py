from __future__ import annotations

from tidegate.core.outbox import Outbox


class CountingOutbox(Outbox):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_the_writer_is_woken_for_the_first_frame_only() -> None:
    outbox = CountingOutbox(100)
    for frame in (b"one", b"two", b"three"):
        outbox.put(frame)
    assert outbox.frames == [b"one", b"two", b"three"]
    assert outbox.size == 11
    assert outbox.woken == 1
    outbox.clear()
    assert (outbox.frames, outbox.size) == ([], 0)
    outbox.put(b"four")
    assert outbox.woken == 2


def test_frames_are_shared_not_copied() -> None:
    frame = b"a frame for many"
    first, second = CountingOutbox(100), CountingOutbox(100)
    first.put(frame)
    second.put(frame)
    assert first.frames[0] is second.frames[0] is frame


def test_above_its_limit_the_writer_hears_of_every_frame() -> None:
    outbox = CountingOutbox(10)
    seen = []
    for size in (9, 1, 1, 1):
        outbox.put(b"*" * size)
        seen.append((outbox.overflowing, outbox.woken))
    assert seen == [(False, 1), (False, 1), (True, 2), (True, 3)]


def test_there_is_room_for_a_page_only_when_the_last_one_is_nearly_gone() -> None:
    outbox = CountingOutbox(1600)
    seen = [outbox.has_room]
    for size in (100, 1):
        outbox.put(b"*" * size)
        seen.append(outbox.has_room)
    assert seen == [True, True, False]


def test_who_waits_for_room_is_told_once() -> None:
    outbox, told = Outbox(160), list[int]()
    outbox.when_room(lambda: told.append(1))
    outbox.when_room(lambda: told.append(2))
    outbox.tell_room()
    outbox.tell_room()
    assert told == [1, 2]
