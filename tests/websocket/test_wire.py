from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable

import pytest

from tests.peer import BINARY, CLOSE, PING, PONG, TEXT, frame
from tests.support import Logs, eventually
from tests.websocket.hand import HandWire
from tests.wires import Line, closed_with
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.turn import WriteBatch
from tidegate.websocket.fan_out import WRITE_BYTES
from tidegate.websocket.reader import Reader
from tidegate.websocket.wire import FULL, WireState

SMALL = 8192  # of kernel buffers: what passes it waits in the outbox


def fail() -> None:
    raise LookupError("a fault of ours")


# Writing


async def test_frames_put_in_one_turn_go_out_in_one_send(lines: Callable[..., Line]) -> None:
    line = lines()
    line.put(b"one", b"two", b"three", b"")
    assert await line.frames(4) == [("text", b"one"), ("text", b"two"), ("text", b"three"), ("text", b"")]
    assert line.ours.sent == [2 + 3 + 2 + 3 + 2 + 5 + 2]
    line.put(b"four")
    await line.frames(5)
    assert line.ours.sent[1:] == [2 + 4]


async def test_of_a_frame_that_has_gone_in_part_its_beginning_is_known_until_it_has_gone(
    lines: Callable[..., Line],
) -> None:
    line = lines(buffers=SMALL)
    line.ours.most = 300
    line.put(b"one" * 400, b"two")
    whole = [frames.text(b"one" * 400), frames.text(b"two")]
    parts = set()
    while len(line.wire.frames) == 2:
        first, second = line.wire.waiting
        assert (first[:512], second) == (whole[0][:512], whole[1])
        parts.add(len(line.wire.frames[0]))
        await asyncio.sleep(0)
    assert len(parts) > 2, "it was cut more than once"
    await line.frames(2)
    assert not line.wire.waiting


async def test_each_wire_of_a_turn_is_written_once(lines: Callable[..., Line]) -> None:
    done: list[int] = []
    all_lines: list[Line] = []
    turn = WriteBatch(
        asyncio.get_running_loop().call_soon,
        written=lambda: done.append(sum(len(line.ours.sent) for line in all_lines)),
    )
    all_lines += [lines(turn) for _ in range(5)]
    for _ in range(3):
        for line in all_lines:
            line.put(b"news")
    for line in all_lines:
        await line.frames(3)
        assert line.ours.sent == [18]
    assert done == [5]


async def test_much_is_written_in_parts_that_are_not_copied_over_and_over(lines: Callable[..., Line]) -> None:
    line = lines()
    line.put(*[b"*" * 9996] * 60)
    assert len(await line.frames(60)) == 60
    assert max(line.ours.sent) <= WRITE_BYTES + 10_000
    assert len(line.ours.sent) < 10


async def test_partial_writes_keep_the_boundaries_of_frames(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL)
    payloads = [bytes([65 + number % 26]) * (number * 7919 % 30000) for number in range(30)]
    line.put(*payloads[:20])
    await line.stalled()
    line.put(*payloads[20:])  # what comes while a frame is cut waits behind it
    assert await line.frames(30) == [("text", payload) for payload in payloads]
    assert not line.wire.stalled_since
    assert not line.turn.blocked
    assert line.wire.size == 0


async def test_what_is_put_before_the_start_waits_for_it(lines: Callable[..., Line]) -> None:
    line = lines(start=False)
    line.put(b"welcome")
    await asyncio.sleep(0)
    line.put(b"news")
    assert line.ours.sent == []
    line.wire.start(line.heard)
    assert await line.frames(2) == [("text", b"welcome"), ("text", b"news")]
    assert len(line.ours.sent) == 1


async def test_small_writes_are_not_delayed_by_the_kernel(lines: Callable[..., Line]) -> None:
    assert lines().ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_room_is_announced_when_the_peer_has_taken_nearly_all(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL)
    sizes: list[int] = []

    line.put(*[b"*" * 10_000] * 50)
    await line.stalled()
    line.wire.when_room(lambda: sizes.append(line.wire.size))
    await line.frames(50)
    assert len(sizes) == 1
    assert sizes[0] <= 2**16


# Slow consumers


async def test_only_what_passes_the_limit_is_too_much(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL, outbox_bytes=2**20)
    line.put(b"*" * 500_000)
    await line.stalled()
    line.put(b"*" * (2**20 - line.wire.size - 10))
    assert line.wire.size == 2**20
    await asyncio.sleep(0)
    assert line.heard.slow == 0
    line.put(b"")
    await eventually(lambda: line.heard.slow)


async def test_a_slow_consumer_reads_its_close_frame_after_the_frame_that_was_cut(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL, outbox_bytes=200_000)
    line.heard.on_slow_do = lambda: line.wire.close(CloseCode.SLOW_CONSUMER, "slow consumer")
    line.put(b"a" * 190_000)
    await line.stalled()
    line.put(b"b" * 5_000, b"c" * 200_000)
    await eventually(lambda: line.heard.slow)
    assert line.wire.size < 200_000
    assert await line.frames(2) == [("text", b"a" * 190_000), ("close", b"\x0f\xa8slow consumer")]
    await line.send(frame(CLOSE, b"\x0f\xa8"))
    assert await line.closed() == (4008, True)


def test_a_slow_consumer_that_has_whole_frames_reads_its_close_frame_next() -> None:
    hand = HandWire(message_bytes=1024, binary=False)
    payloads = [bytes([letter]) * 8 for letter in b"abcd"]
    for payload in payloads:
        hand.wire.put(frames.text(payload))
    hand.write(15)  # the first, and half of the second
    hand.write(5)
    hand.wire.close(CloseCode.SLOW_CONSUMER)
    hand.write()
    assert hand.said() == [("text", payloads[0]), ("text", payloads[1]), ("close", b"\x0f\xa8")]


def test_a_frame_that_was_cut_once_is_forgotten_when_it_has_gone() -> None:
    hand = HandWire(message_bytes=1024, binary=False)
    hand.wire.put(frames.text(b"first"))
    hand.write(4)
    hand.write()
    hand.wire.put(frames.text(b"second"))
    hand.wire.close(CloseCode.SLOW_CONSUMER)
    hand.write()
    assert hand.said() == [("text", b"first"), ("close", b"\x0f\xa8")]


async def test_other_closes_come_after_all_that_waits(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL)
    line.put(*[b"*" * 50_000] * 5)
    await line.stalled()
    line.wire.close(CloseCode.RESTART, "service restart")
    found = await line.frames(6)
    assert found[-1] == ("close", b"\x03\xf4service restart")
    assert found[:-1] == [("text", b"*" * 50_000)] * 5


# Reading


async def test_messages_that_come_together_are_all_heard(lines: Callable[..., Line]) -> None:
    line = lines()
    await line.send(frame(TEXT, b"one") + frame(BINARY, b"\xff") + frame(PONG, b"p") + frame(TEXT, b"x" * 1000))
    await eventually(lambda: len(line.heard.messages) == 4)
    assert line.heard.messages == [("text", b"one"), ("binary", b"\xff"), ("pong", b"p"), ("text", b"x" * 1000)]


async def test_pings_are_answered_in_one_write(lines: Callable[..., Line]) -> None:
    line = lines()
    await line.send(b"".join(frame(PING, bytes([number])) for number in range(10)))
    assert await line.frames(10) == [("pong", bytes([number])) for number in range(10)]
    assert len(line.ours.sent) == 1


@pytest.mark.parametrize("cut", [0, 1, 7, 12, 20])
async def test_bytes_that_came_with_the_handshake_are_heard_first(lines: Callable[..., Line], cut: int) -> None:
    data = frame(TEXT, b"early") + frame(TEXT, b"and late")
    line = lines(early=data[:cut])
    await line.send(data[cut:])
    await eventually(lambda: len(line.heard.messages) == 2)
    assert line.heard.messages == [("text", b"early"), ("text", b"and late")]


async def test_a_connection_may_end_with_the_bytes_that_came_with_the_handshake(lines: Callable[..., Line]) -> None:
    line = lines(early=frame(TEXT, b"hi") + frame(CLOSE, b"\x03\xe8"))
    assert line.heard.messages == [("text", b"hi")]
    assert line.heard.closed == (1000, False)
    assert await line.end() == [("close", b"\x03\xe8")]
    assert closed_with(await lines(early=frame(TEXT, b"", mask=None)).end()) == 1002


async def test_nothing_is_heard_while_reading_is_paused(lines: Callable[..., Line]) -> None:
    line = lines()
    line.heard.on_text_do = lambda payload: line.wire.pause_reading() if payload in (b"2", b"5") else None
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(10))
    await line.send(data[:-3])
    await eventually(lambda: line.wire.paused)
    await line.send(data[-3:])
    assert [payload for _, payload in line.heard.messages] == [b"0", b"1", b"2"]
    line.wire.resume_reading()
    assert len(line.heard.messages) == 3, "what had been read before has its turn like anything else"
    await eventually(lambda: len(line.heard.messages) == 6)
    assert line.wire.paused, "again"
    assert [payload for _, payload in line.heard.messages][3:] == [b"3", b"4", b"5"]
    line.wire.resume_reading()
    await eventually(lambda: len(line.heard.messages) == 10)
    assert [payload for _, payload in line.heard.messages][6:] == [b"6", b"7", b"8", b"9"]


async def test_what_was_left_by_a_pause_is_judged_when_reading_goes_on(lines: Callable[..., Line]) -> None:
    line = lines()
    line.heard.on_text_do = lambda payload: line.wire.pause_reading()
    await line.send(frame(TEXT, b"one") + frame(TEXT, b"two", mask=None))
    await eventually(lambda: line.wire.paused)
    assert line.ours.sent == []
    line.wire.resume_reading()
    assert closed_with(await line.end()) == 1002


async def test_silence_counts_from_when_reading_goes_on(lines: Callable[..., Line]) -> None:
    line = lines()
    line.wire.pause_reading()
    before = line.wire.seen
    line.wire.resume_reading()
    assert line.wire.seen > before


def test_a_peer_that_takes_nothing_is_not_read_from_half_of_its_outbox_on() -> None:
    hand = HandWire(message_bytes=1024, binary=False)
    hand.wire.put(frames.text(b"*" * (hand.wire.limit // 2 - 2000)))
    hand.write(0)
    hand.feed(frame(PING, b"is answered"))
    paused = [hand.wire.paused]
    hand.wire.put(frames.text(b"*" * 4000))
    waiting = hand.wire.size
    hand.feed(frame(PING, b"is not read"))
    paused.append(hand.wire.paused)
    assert paused == [0, FULL]
    assert hand.wire.size == waiting
    assert hand.said() == []


async def test_a_close_of_ours_ends_a_pause(lines: Callable[..., Line]) -> None:
    line = lines()
    line.heard.on_text_do = lambda payload: line.wire.pause_reading()
    await line.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
    await eventually(lambda: line.wire.paused)
    line.wire.close(4501)
    await line.frames(1)
    await line.send(frame(CLOSE, b"\x11\x95"))
    assert await line.closed() == (4501, True)
    assert line.heard.messages == [("text", b"one")]


# Closing


async def test_an_answered_close_confirms_what_was_sent_before_it(lines: Callable[..., Line]) -> None:
    line = lines()
    line.put(b"last words")
    line.wire.close(4501, "bye")
    assert line.heard.closing == 1
    assert await line.frames(2) == [("text", b"last words"), ("close", b"\x11\x95bye")]
    await line.send(frame(PONG, b"late") + frame(TEXT, b"not heard") + frame(PING) + frame(CLOSE, b"\x11\x95bye"))
    assert await line.closed() == (4501, True)
    assert line.heard.messages == [("pong", b"late")]
    assert len(await line.end()) == 2


@pytest.mark.parametrize("answer", [b"\x03\xe8", b"", b"\x03\xe9going"])
async def test_a_close_with_another_code_may_have_crossed_ours_and_confirms_nothing(
    lines: Callable[..., Line], answer: bytes
) -> None:
    line = lines()
    line.wire.close(4501)
    await line.frames(1)
    await line.send(frame(CLOSE, answer))
    assert await line.closed() == (4501, False)


def test_a_close_that_crosses_ours_before_it_is_written_is_answered_all_the_same() -> None:
    hand = HandWire(message_bytes=1024, binary=False)
    hand.wire.put(frames.text(b"before"))
    hand.wire.close(4501)
    hand.feed(frame(CLOSE, b"\x11\x95"))  # even with our code: it can't be an answer
    assert hand.heard.closed == (4501, False)
    assert hand.said() == [("text", b"before"), ("close", b"\x11\x95")]


@pytest.mark.parametrize(
    ("sent", "answered", "code"),
    [(b"\x03\xe8", b"\x03\xe8", 1000), (b"\x0b\xb8bye", b"\x0b\xb8", 3000), (b"", b"\x03\xe8", 1005)],
)
async def test_a_close_by_the_peer_is_answered_with_its_code(
    lines: Callable[..., Line], sent: bytes, answered: bytes, code: int
) -> None:
    line = lines()
    await line.send(frame(TEXT, b"one") + frame(CLOSE, sent) + frame(TEXT, b"two") + frame(PING))
    assert await line.end() == [("close", answered)]
    assert line.heard.closed == (code, False)
    assert line.heard.messages == [("text", b"one")]


async def test_the_answer_to_a_close_waits_for_a_peer_that_reads_slowly(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL)
    line.put(b"*" * 500_000)
    await line.stalled()
    await line.send(frame(CLOSE, b"\x03\xe8"))
    await eventually(lambda: line.wire.state is WireState.ANSWERING)
    assert line.heard.closed is None
    assert await line.end() == [("text", b"*" * 500_000), ("close", b"\x03\xe8")]
    assert line.heard.closed == (1000, False)


async def test_a_peer_that_goes_on_sending_after_it_broke_the_protocol_still_reads_why(
    lines: Callable[..., Line],
) -> None:
    line = lines()
    line.put(b"before")
    await line.send(frame(TEXT, b"fine") + frame(TEXT, b"not masked", mask=None))
    for _ in range(100):
        await line.send(frame(TEXT, b"*" * 60_000))
    found = await line.end()
    assert found[0] == ("text", b"before")
    assert closed_with(found) == 1002
    assert line.heard.closed is None, "who broke it ends it"
    assert line.heard.messages == [("text", b"fine")]
    await line.send(frame(CLOSE, b"\x03\xea"))
    line.theirs.close()
    assert await line.closed() == (1002, False)


async def test_a_peer_that_breaks_the_protocol_in_its_answer_hears_no_second_close(lines: Callable[..., Line]) -> None:
    line = lines()
    line.wire.close(4501)
    await line.frames(1)
    await line.send(frame(CLOSE, b"\x11"))
    assert await line.end() == [("close", b"\x11\x95")]
    line.theirs.close()
    assert await line.closed() == (4501, False)


@pytest.mark.parametrize("half", [b"", frame(TEXT, b"half")[:-1]])
async def test_an_end_of_file_is_a_cut(lines: Callable[..., Line], half: bytes) -> None:
    line = lines()
    await line.send(frame(TEXT, b"whole") + half)
    line.theirs.close()
    assert await line.closed() == (1006, False)
    assert line.heard.messages == [("text", b"whole")]


async def test_a_reset_is_a_cut(lines: Callable[..., Line]) -> None:
    line = lines()
    line.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    line.theirs.close()
    assert await line.closed() == (1006, False)


async def test_a_write_to_a_peer_that_has_gone_is_a_cut(lines: Callable[..., Line]) -> None:
    line = lines()
    line.wire.pause_reading()  # it does not hear of the end
    line.theirs.close()

    def write() -> bool:
        line.put(b"anyone?")
        return line.heard.closed is not None

    await eventually(write)
    assert line.heard.closed == (1006, False)


async def test_an_abort_says_nothing_to_the_peer_and_the_code_to_the_log(lines: Callable[..., Line]) -> None:
    line = lines(buffers=SMALL)
    line.put(b"*" * 500_000)
    await line.stalled()
    line.wire.abort(CloseCode.SLOW_CONSUMER)
    assert line.heard.closed == (4008, False)
    assert not line.turn.blocked
    line.wire.abort()
    line.wire.close(4501)
    line.wire.pause_reading()
    line.wire.resume_reading()
    line.put(b"nobody")
    await asyncio.sleep(0)
    assert line.ours.fileno() == -1


# What a peer may cost


async def test_a_megabyte_in_one_frame_is_refused_before_it_is_kept(lines: Callable[..., Line]) -> None:
    line = lines()
    await line.send(b"\x81\xff" + (2**20).to_bytes(8, "big"))
    [(name, body)] = await line.frames(1)
    assert (name, body[:2]) == ("close", b"\x03\xf1")
    for _ in range(16):
        await line.send(b"*" * 2**16)
    assert not _readers()
    assert len(await line.end()) == 1


async def test_a_reader_lives_only_while_something_is_pending(lines: Callable[..., Line]) -> None:
    assert not _readers()
    many = [lines() for _ in range(10)]
    data = frame(TEXT, b"hello", fin=False) + frame(0, b" world")
    for line in many:
        await line.send(data[:-1])
    await eventually(lambda: len(_readers()) == 10)
    for line in many:
        await line.send(data[-1:])
    await eventually(lambda: all(line.heard.messages == [("text", b"hello world")] for line in many))
    assert not _readers()


def _readers() -> list[Reader]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Reader)]


async def test_a_fault_of_ours_while_reading_closes_that_connection_and_says_so(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    expected_logs.expect("connection.failed")
    line = lines()
    line.heard.on_text_do = lambda payload: fail()
    await line.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
    assert await line.end() == [("close", b"\x03\xf3internal error")]
    assert line.heard.messages == [("text", b"one")]


async def test_a_fault_of_ours_while_writing_costs_the_others_nothing(
    lines: Callable[..., Line], expected_logs: Logs
) -> None:
    expected_logs.expect("connection.failed")
    turn = WriteBatch(asyncio.get_running_loop().call_soon)
    failing, others = lines(turn, outbox_bytes=0, buffers=SMALL), [lines(turn), lines(turn)]
    failing.heard.on_slow_do = fail
    others[0].put(b"before")
    failing.put(b"*" * 500_000)
    others[1].put(b"behind")
    assert await others[0].frames(1) == [("text", b"before")]
    assert await others[1].frames(1) == [("text", b"behind")]
    assert await failing.closed() == (1011, False)
