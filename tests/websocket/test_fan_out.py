"""One message to many: what is written at once, and what must wait."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest

from tests.support import Logs
from tests.websocket.hand import HandWire
from tests.wires import Line
from tidegate.core import frames
from tidegate.core.errors import CloseCode
from tidegate.turn import WriteBatch
from tidegate.websocket.fan_out import WRITE_BYTES, fan_out

SMALL = 8192  # of kernel buffers: what passes it waits in the outbox


async def test_a_message_to_many_is_written_at_once(lines: Callable[..., Line]) -> None:
    few = [lines() for _ in range(3)]
    fan_out([line.wire for line in few], [frames.text(b"one"), frames.text(b"two")])
    assert [line.ours.sent for line in few] == [[10], [10], [10]]
    for line in few:
        assert await line.frames(2) == [("text", b"one"), ("text", b"two")]


async def test_it_waits_behind_what_waits(lines: Callable[..., Line]) -> None:
    line = lines()
    line.put(b"first")
    fan_out([line.wire], [frames.text(b"then")])
    line.put(b"last")
    assert line.ours.sent == []
    assert await line.frames(3) == [("text", b"first"), ("text", b"then"), ("text", b"last")]


async def test_what_a_socket_does_not_take_of_it_follows(lines: Callable[..., Line]) -> None:
    slow, quick = lines(buffers=SMALL), lines()
    payloads = [bytes([65 + number]) * 10_000 for number in range(20)]
    for half in (payloads[:10], payloads[10:]):
        fan_out([slow.wire, quick.wire], [frames.text(payload) for payload in half])
    await slow.stalled()
    assert 0 < slow.wire.size < 200_000
    assert await quick.frames(20) == await slow.frames(20) == [("text", payload) for payload in payloads]
    assert slow.wire.size == 0


@pytest.mark.parametrize("most", [0, 1, 8, 9, 17])
def test_a_slow_consumer_gets_the_frame_that_was_cut_and_no_other(most: int) -> None:
    hand = HandWire(message_bytes=1024, binary=False)
    hand.ours.most = most
    payloads = [b"a" * 6, b"b" * 6, b"c" * 6]
    fan_out([hand.wire], [frames.text(payload) for payload in payloads])
    hand.ours.most = 0
    hand.loop.turn()
    hand.wire.close(CloseCode.SLOW_CONSUMER)
    hand.write()
    whole = -(-most // 8)
    assert hand.said() == [*(("text", payload) for payload in payloads[:whole]), ("close", b"\x0f\xa8")]


async def test_who_is_lost_hears_of_it_when_the_turn_ends(lines: Callable[..., Line]) -> None:
    gone, there = lines(), lines()
    gone.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.wire.pause_reading()  # or its end of file would tell first
    gone.theirs.close()
    fan_out([gone.wire, there.wire], [frames.text(b"news")])
    assert gone.heard.closed is None
    assert await gone.closed() == (1006, False)
    assert await there.frames(1) == [("text", b"news")]


async def test_very_much_is_not_joined(lines: Callable[..., Line]) -> None:
    line = lines()
    fan_out([line.wire], [frames.text(b"*" * 9996)] * 60)
    assert line.ours.sent == []
    assert len(await line.frames(60)) == 60
    assert max(line.ours.sent) <= WRITE_BYTES + 10_000


async def test_what_was_heard_in_a_turn_leaves_with_what_was_put_in_it(lines: Callable[..., Line]) -> None:
    turn = WriteBatch(asyncio.get_running_loop().call_soon)
    line = lines(turn)
    turn.before_writing(lambda: fan_out([line.wire], [frames.text(b"heard")]))
    line.put(b"put")
    assert await line.frames(2) == [("text", b"put"), ("text", b"heard")]
    assert line.ours.sent == [5 + 7]


def fail() -> None:
    raise LookupError("a fault of ours")


async def test_a_delivery_that_fails_does_not_keep_what_waits(lines: Callable[..., Line], expected_logs: Logs) -> None:
    expected_logs.expect("delivery.failed")
    turn = WriteBatch(asyncio.get_running_loop().call_soon)
    line = lines(turn)
    for payload in (b"one", b"two"):
        turn.before_writing(fail)
        line.put(payload)
        await asyncio.sleep(0.01)
    assert await line.frames(2) == [("text", b"one"), ("text", b"two")]
