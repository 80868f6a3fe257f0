"""What goes over an open connection: heartbeats, and whose they are; whole frames; and a close that is answered."""

from __future__ import annotations

import json
import statistics
import time

from tidegate.core import frames
from tidegate.doctor.link import Ended, Link
from tidegate.doctor.report import Finding, number, ok, size, unknown, wrong

TIMES = 5
ANSWER_S = 5.0
_DELICATE = "<a href='http://doctor.invalid/'>é\u2028\\\"</a>"  # what rewriters of pages rewrite


async def examine(link: Link) -> list[Finding]:
    """``link`` is closed when it returns. Where it ends before, the rest is not known."""
    findings: list[Finding] = []
    steps = (("control heartbeat", _control), ("text heartbeat", _text), ("content", _content), ("size", _size))
    for what, step in (*steps, ("goodbye", _close)):
        try:
            findings.append(await step(link))
        except TimeoutError:
            findings.append(_SILENT[what])
        except Ended as exc:
            findings.append(wrong(what, f"the connection is {exc}", _SILENT[what].do))
            break
    link.cut()
    return findings


_SILENT = {
    "control heartbeat": wrong(
        "control heartbeat",
        f"a ping is not answered within {ANSWER_S:g} s",
        "something in between swallows control frames: nothing proves then that messages arrive (cursor=last)",
    ),
    "text heartbeat": wrong(
        "text heartbeat", f"ping is not answered within {ANSWER_S:g} s", "see nginx's error log, and the node's"
    ),
    "content": wrong("content", "a command is not answered", "see nginx's error log, and the node's"),
    "size": wrong(
        "size", "a message of the size that the gateway takes is not answered", "something in between bounds messages"
    ),
    "goodbye": wrong(
        "goodbye", "a close frame is not answered", "clients wait for it: something in between swallows it"
    ),
}


async def _control(link: Link) -> Finding:
    """Five in turn, then one behind a command, which only a node answers: who overtakes it is not the node."""
    took_ms = []
    for n in range(TIMES):
        begun_s, mark = time.monotonic(), b"doctor-%d" % n
        link.send((frames.PING, mark))
        await link.until(lambda opcode, payload, mark=mark: (opcode, payload) == (frames.PONG, mark), ANSWER_S)  # type: ignore[misc]
        took_ms.append((time.monotonic() - begun_s) * 1000)
    whose = await _whose(link, frames.PING, b"who", frames.PONG, b"who")
    return ok("control heartbeat", f"answered by {whose} within {number(statistics.median(took_ms), 'ms')}")


async def _text(link: Link) -> Finding:
    begun_s = time.monotonic()
    link.send((frames.TEXT, b"ping"))
    await link.until(lambda opcode, payload: payload == b"pong", ANSWER_S)
    took_ms = (time.monotonic() - begun_s) * 1000
    whose = await _whose(link, frames.TEXT, b"ping", frames.TEXT, b"pong")
    return ok("text heartbeat", f"answered by {whose} within {number(took_ms, 'ms')}")


async def _whose(link: Link, opcode: int, asked: bytes, answer: int, said: bytes) -> str:
    """A node answers what comes in one write in its order (a command ``ping`` needs no turn)."""
    first: list[bool] = []
    for n in range(3):
        link.send((frames.TEXT, b'{"type":"ping","id":"w%d"}' % n), (opcode, asked))
        order: list[bool] = []  # of the two, as they come: whether it is the heartbeat

        def wanted(opcode: int, payload: bytes, mark: bytes = b'"w%d"' % n, order: list[bool] = order) -> bool:
            if (opcode, payload) == (answer, said):
                order.append(True)
            elif opcode == frames.TEXT and mark in payload:
                order.append(False)
            return len(order) == 2

        await link.until(wanted, ANSWER_S)
        first.append(order[0])
    return "the edge" if sum(first) >= 2 else "the node"


async def _content(link: Link) -> Finding:
    asked = json.dumps(_DELICATE)
    link.send((frames.TEXT, f'{{"type":"ping","id":{asked}}}'.encode()))
    answer = await link.event(ANSWER_S, type="pong")
    if answer.get("id") == _DELICATE:
        return ok("content", "passes as it is")
    return wrong(
        "content",
        f"{_DELICATE!r} comes back as {str(answer.get('id'))[:80]!r}",
        "something in between rewrites what passes, as it would a page: take the path of the WebSocket out of it",
    )


async def _size(link: Link) -> Finding:
    most = link.welcome.get("limits", {}).get("message_bytes")
    if most is None:
        return unknown("size", "this gateway does not say what it takes")
    command = b'{"type":"ping","id":1'
    link.send((frames.TEXT, command + b" " * (most - len(command) - 1) + b"}"))
    await link.event(ANSWER_S, type="pong", id=1)
    return ok("size", f"a message of {size(most)} passes")


async def _close(link: Link) -> Finding:
    link.send((frames.CLOSE, (1000).to_bytes(2, "big")))
    try:
        await link.until(lambda opcode, payload: False, ANSWER_S)
    except Ended as exc:
        if exc.code == 1000:
            return ok("goodbye", "a close frame is answered")
        if exc.code is not None:
            return wrong("goodbye", f"1000 is answered by {exc.code}", "something in between changes close codes")
        raise
    raise TimeoutError
