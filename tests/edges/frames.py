"""The edge contract's frames and calls: whatever a client's bytes look like, and however they are cut, the answers are
those of the service."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from tests.callee import Peer as Application
from tests.callee import serving
from tests.edges.edge import Stand, stand
from tests.peer import BINARY, CLOSE, PING, TEXT, frame
from tests.support import eventually, scaled

CONTINUATION = 0
KIB = 1024
TRACED = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNTRACED = [
    b"7", b'""', b"[]", b'"%b"' % TRACED.upper(), b'"%b "' % TRACED, b'"ff%b"' % TRACED[2:], b'"%b-x"' % TRACED,
    b'"00-%b-00f067aa0ba902b7-01"' % (b"0" * 32), b'"00-4bf92f3577b34da6a3ce929d0e0e4736-%b-01"' % (b"0" * 16),
]  # fmt: skip
SPANNED = b'{"type":"call","id":%d,"method":"orders.create","data":1,"traceparent":%b}'


def call(number: int, method: str, data: str) -> bytes:
    """A call whose ``data`` is this JSON text, byte for byte."""
    return b'{"type":"call","id":%d,"method":"%b","data":%b}' % (number, method.encode(), data.encode())


def data_of(reply: bytes) -> bytes:
    """The bytes of a reply's data, which comes last in it."""
    return reply[reply.index(b'"data":') + 7 : -1]


class Frames:
    async def test_fragments_and_pings_between_them_are_one_message(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            text = call(1, "echo", json.dumps({"a": "x" * 3000}))
            pieces = [text[:1], b"", *(text[at : at + 500] for at in range(1, len(text), 500))]
            for number, piece in enumerate(pieces):
                opcode = CONTINUATION if number else TEXT
                peer.send_raw(frame(opcode, piece, fin=number == len(pieces) - 1))
                peer.send_raw(frame(PING, b"%d" % number))
            reply = await peer.event()
            assert (reply["id"], reply["data"]) == (1, {"a": "x" * 3000})
            await eventually(lambda: len(peer.pongs) == len(pieces))
            assert peer.pongs == [b"%d" % number for number in range(len(pieces))]

    async def test_frames_may_be_cut_anywhere(self, s: Stand, name: str) -> None:
        """A heartbeat, a call, a command, a ping and fragments, cut in two at every byte."""
        sent = b"".join(
            [
                frame(TEXT, b"ping"),
                frame(TEXT, call(1, "echo", "[1]")),
                frame(TEXT, b'{"type":"ping","id":2}'),
                frame(PING, b"between"),
                frame(TEXT, call(3, "echo", '"%s"' % ("x" * 200))[:100], fin=False),
                frame(CONTINUATION, call(3, "echo", '"%s"' % ("x" * 200))[100:]),
            ]
        )
        for first in range(1, len(sent), 25):  # an edge that reads frames may not do so for ever
            async with s.peer(name) as peer:
                await peer.event()
                cuts = range(first, min(first + 25, len(sent)))
                for cut in cuts:
                    peer.send_raw(sent[:cut])
                    await asyncio.sleep(0.001)  # two segments, not one
                    peer.send_raw(sent[cut:])
                    answers = {await peer.raw() for _ in range(4)}
                    assert b"pong" in answers
                    answers.remove(b"pong")
                    assert sorted(json.loads(answer)["id"] for answer in answers) == [1, 2, 3]
                assert (await peer.ask(type="ping", id=4))["type"] == "pong"  # what is before it in order is answered
                assert peer.pongs == [b"between"] * len(cuts)

    async def test_one_byte_at_a_time_is_enough(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            for byte in frame(TEXT, b"ping") + frame(TEXT, call(1, "echo", "[]")):
                peer.send_raw(bytes([byte]))
                await asyncio.sleep(0.001)
            assert {await peer.raw(), data_of(await peer.raw())} == {b"pong", b"[]"}

    @pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536, 128 * KIB])
    async def test_a_message_of_any_size_up_to_the_limit_is_taken(self, s: Stand, name: str, size: int) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            text = b'{"type":"ping","id":1,"x":"%b"}'
            peer.send_text(text % (b"x" * (size - len(text) + 2)))
            assert (await peer.event())["type"] in ("pong", "error")
            assert (await peer.ask(type="ping", id=2))["type"] == "pong"

    @pytest.mark.parametrize("pieces", [1, 2])
    async def test_a_message_over_the_limit_is_1009(self, s: Stand, name: str, pieces: int) -> None:
        s.provoked("reset by peer|Broken pipe")
        async with s.peer(name) as peer:
            await peer.event()
            part = b"x" * ((128 * KIB + pieces) // pieces)
            for number in range(pieces):
                peer.send_raw(frame(CONTINUATION if number else TEXT, part, fin=number == pieces - 1))
            assert await peer.ended() == 1009

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (frame(BINARY, b"x"), 1003),
            (frame(TEXT, b"ping", mask=None), 1002),
            (frame(TEXT, b"ping", rsv=0x40), 1002),
            (frame(3, b"ping"), 1002),
            (frame(PING, b"x", fin=False), 1002),
            (frame(PING, b"x" * 126), 1002),
            (frame(CONTINUATION, b"x"), 1002),
            (frame(TEXT, b"\xff\xfe"), 1007),
            (frame(TEXT, b"ping", form=126), 1002),
            (frame(TEXT, b"ping", form=127), 1002),
            (frame(TEXT, b" " * 65535, form=127), 1002),
            (frame(TEXT, b"pi", fin=False) + frame(CONTINUATION, b"ng", form=126), 1002),
            (frame(TEXT, b"pi", fin=False) + frame(BINARY, b"x"), 1002),
            (b"\x81\xff" + b"\x80" * 8 + b"mask", 1002),  # a length of 2^63 and more
            (b"\x89\xff" + b"\x80" * 8 + b"mask", 1002),
            (frame(BINARY, b"x", form=127), 1003),
            (frame(CLOSE, b"\x03\xe7"), 1002),
            (frame(CLOSE, b"\x03\xed"), 1002),
            (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        ],
    )
    async def test_broken_frames_end_it_with_their_code(self, s: Stand, name: str, sent: bytes, code: int) -> None:
        s.provoked("reset by peer|Broken pipe")
        async with s.peer(name) as peer:
            await peer.event()
            peer.send_raw(sent)
            assert await peer.ended() == code

    async def test_a_close_frame_reaches_who_goes_on_sending(self, s: Stand, name: str) -> None:
        """A socket that is closed with unread bytes is reset, and the other side may never see what was said last."""
        s.provoked("reset by peer|Broken pipe")

        async def code(number: int) -> int | None:
            async with s.peer(f"{name}-{number}") as peer:
                await peer.event()
                peer.send_raw(frame(TEXT, b"\xff\xfe"))
                for _ in range(200):
                    peer.send_raw(frame(TEXT, b"x" * 500))
                    await asyncio.sleep(0)
                    if peer.gone.is_set() or peer.close_code:
                        break
                return await peer.ended(10)

        for round_ in range(4):
            assert set(await asyncio.gather(*(code(round_ * 10 + number) for number in range(10)))) == {1007}

    async def test_the_largest_events_come_through(self, s: Stand, name: str) -> None:
        text = "☂" * (64 * KIB // 3 - 1)
        async with s.peer(name, groups=name) as peer:
            await peer.event()
            for number in range(1, 9):
                await s.node.push(f"groups/{name}", text)
                assert (await peer.event())["data"] == text
                assert peer.seen[-1]["offset"] == number
            epoch = peer.seen[-1]["epoch"]
            history = await peer.ask(type="history", id=1, group=name, epoch=epoch, offset=0, limit=100)
            assert len(history["messages"]) == 3
            assert history["more"] is True


class Calls:
    variant: str

    @pytest.mark.parametrize(
        "data",
        [
            "12345678901234567890123456789012345678901234567890",
            "-9007199254740993",
            "[]",
            "{}",
            '{"a":[],"b":{},"c":[[]]}',
            "1.0",
            "1e400",
            "-0",
            '{"a":1,"a":2}',
            '{"b": [1 , 2],\n "a":\t"\\u0041\\ud83d\\ude00 ☂ \\/"}',
            '"\\u2028\\u0000"',
            "null",
            "false",
            '""',
        ],
    )
    async def test_a_calls_data_and_its_answer_are_not_changed(self, s: Stand, name: str, data: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            peer.send_text(call(1, "echo", data))
            reply = await peer.raw()
            assert reply.startswith(b'{"type":"reply","id":1,"status":200,"data":')
            assert data_of(reply) == data.encode()

    @pytest.mark.parametrize("id_", [2**53, -(2**53), 0, "", "x" * 64, "☂", '"\\'])
    async def test_an_answer_has_the_id_of_its_call(self, s: Stand, name: str, id_: Any) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            reply = await peer.ask(type="call", id=id_, method="echo", data=1)
            assert (reply["type"], reply["data"]) == ("reply", 1)

    async def test_the_application_learns_who_calls_and_nobody_else_says_it(self, s: Stand, name: str) -> None:
        liar = {"X-Client-Id": "root", "X-Connection-Id": "c", "X-Request-Id": "r", "X-Tidegate-Via": "root"}
        async with s.peer(name, headers=liar) as peer:
            await peer.event()
            reply = await peer.ask(type="call", id=1, method="orders.create", data={"n": 1})
            assert (reply["status"], reply["data"]["client"]) == (201, name)
            again = await peer.ask(type="call", id=2, method="orders.create", data={"n": 1})
            assert again["data"]["order"] == reply["data"]["order"] + 1  # another X-Request-Id

    async def test_a_call_passes_the_span_on_that_it_comes_from(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            for text, said in ((b'"%b"' % TRACED, TRACED.decode()), (b"null", None)):
                peer.send_text(SPANNED % (1, text))
                reply = await peer.event()
                assert (reply["status"], reply["data"].get("traceparent")) == (201, said)
            for text in UNTRACED:
                peer.send_text(SPANNED % (2, text))
                error = await peer.event()
                assert (error["id"], error["code"]) == (2, "bad_request"), text

    async def test_what_goes_wrong_with_a_call_is_said(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            failed = await peer.ask(type="call", id=1, method="fail", data=None)
            assert (failed["type"], failed["status"], failed["data"]) == ("reply", 500, {"error": "failed as asked"})
            missing = await peer.ask(type="call", id=2, method="missing", data=None)
            assert (missing["type"], missing["status"]) == ("reply", 404)
            for method, data, code in (
                ("other", 1, "not_allowed"),
                ("echo.", 1, "not_allowed"),
                ("../echo", 1, "not_allowed"),
                ("echo", "x" * 65535, "too_large"),
            ):
                error = await peer.ask(type="call", id=3, method=method, data=data)
                assert (error["type"], error["code"]) == ("error", code), method

    async def test_an_application_that_takes_too_long_is_a_timeout(self, s: Stand, name: str) -> None:
        s.provoked("upstream timed out")
        async with s.peer(name) as peer:
            await peer.event()
            peer.send(type="call", id=1, method="slow", data={"seconds": 5})
            assert (await peer.ask(type="call", id=2, method="echo", data=2))["data"] == 2
            error = await peer.event()
            assert (error["id"], error["type"], error["code"]) == (1, "error", "call_timeout")

    async def test_an_answer_that_nobody_asked_for_answers_nobody(self, name: str) -> None:
        """The application sends a second one, when the first has arrived and its connection is idle."""
        arrived = asyncio.Queue[None]()

        async def exchange(application: Application) -> None:
            while True:
                request = await application.request()
                await application.answer(request.body)
                await arrived.get()
                await application.answer(b'"stray"')

        async with serving(exchange) as application, stand(self.variant, CALLS__URL=application.url) as s:
            async with s.peer(name) as one, s.peer(name) as other:
                await one.event()
                await other.event()
                for number in range(20):
                    reply = await (one, other)[number % 2].ask(type="call", id=number, method="echo", data=number)
                    assert (reply["type"], reply["data"]) == ("reply", number)
                    arrived.put_nowait(None)
                    await eventually(lambda: arrived.empty())

    async def test_a_connection_cannot_have_more_calls_in_flight_than_allowed(self, s: Stand, name: str) -> None:
        async with s.peer(name) as peer:
            await peer.event()
            for number in range(260):
                peer.send(type="call", id=number, method="slow", data={"seconds": 0.6})
            codes = [event.get("code") for event in await peer.events(260)]
            assert set(codes) == {None, "too_many_calls"}
            assert codes.count("too_many_calls") == 4

    @pytest.mark.timeout(seconds=90)
    async def test_200_calls_are_answered_as_they_come_while_20_mb_of_pushes_flow(self, s: Stand, name: str) -> None:
        """Each answer once, out of order, and each push in order, on one connection."""
        pushes, size = 320, 64 * KIB - 2
        async with s.peer(name) as peer:
            await peer.event()
            chance = random.Random(name)

            ahead = asyncio.Semaphore(8)  # pushes: half of what may wait for a client

            async def push() -> None:
                for number in range(pushes):
                    await ahead.acquire()
                    await s.node.push(f"clients/{name}", f"{number:06}" + "x" * (size - 6))

            async def ask() -> None:
                for number in range(200):
                    peer.send(type="call", id=number, method="slow", data={"seconds": chance.random() / 2})
                    await peer.writer.drain()

            tasks = asyncio.gather(push(), ask())
            order, pushed = [], 0
            for _ in range(pushes + 200):
                event = await peer.event(20)
                peer.seen.clear()
                if event["type"] == "message":
                    assert event["offset"] == pushed + 1
                    assert int(event["data"][:6]) == pushed
                    assert len(event["data"]) == size
                    pushed += 1
                    ahead.release()
                else:
                    assert (event["type"], event["status"]) == ("reply", 200)
                    order.append(event["id"])
            await asyncio.wait_for(tasks, scaled(5))
            assert sorted(order) == list(range(200))
            assert order != sorted(order)
            assert pushed == pushes
