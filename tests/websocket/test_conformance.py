"""The cases of the Autobahn test suite, sections 1 to 7 and 10, against an echo over the service's own wire.

``vectors/rfc6455.json`` has our own wording of them, under their numbers. ``send`` is what the client sends: frames
(``op`` is a name or a number, ``fin`` true and ``rsv`` 0 unless they say otherwise, ``code`` opens a close's payload,
``form`` is 126 or 127 where the length is written so though it is shorter;
with ``fragments`` a message in frames of so many bytes; with ``cut`` only so many bytes of the payload ever come).
``chop`` is how it is written: all at once, ``"frame"`` by frame, or so many bytes at a time. ``back`` is what must come
back before the close frame, and ``end`` that one's code; without ``end`` the client closes when all is sent, with 1000.
Payloads are text, or ``hex`` or ``text`` repeated ``times``. The limits of the service hold, so section 9 is left out,
and 7.1.6 sends what just fits. Section 0 has what that suite leaves out.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peer import CLOSE, frame
from tests.support import Process, scaled
from tests.wires import NAMES, Frames, closed_with, frames_of

CASES = json.loads((Path(__file__).parent.parent / "vectors" / "rfc6455.json").read_text())
OPCODES = {name: opcode for opcode, name in NAMES.items()}
HANDSHAKE = (
    b"GET /any/path HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # to that key: RFC 6455, section 1.3


@pytest.fixture(scope="module")
def echo_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    process = Process(sys.executable, "-m", "bench", "echo", "--port", "0", folder=tmp_path_factory.mktemp("echo"))
    try:
        yield int(asyncio.run(process.line(r"^echo on ")).rpartition(":")[2])
        assert not process.stderr
    finally:
        process.kill()


@pytest.mark.parametrize("case", CASES, ids=[f"{case['id']} {case['what']}" for case in CASES])
def test_it_answers_as_the_rfc_says(case: dict[str, Any], echo_port: int) -> None:
    sent = [raw for one in case["send"] for raw in raw_frames(one)]
    if "end" not in case:
        sent.append(frame(CLOSE, b"\x03\xe8"))
    back = talk(echo_port, chopped(sent, case.get("chop")))
    assert closed_with(back) == case.get("end", 1000)
    assert back[:-1] == [(name, payload_of(data)) for name, data in case.get("back", [])]


def test_no_case_is_there_twice() -> None:
    numbers = [case["id"] for case in CASES]
    assert len(set(numbers)) == len(numbers) == 255


def payload_of(data: str | dict[str, Any]) -> bytes:
    if isinstance(data, str):
        return data.encode()
    part = bytes.fromhex(data["hex"]) if "hex" in data else data["text"].encode()
    return bytes(part) * data.get("times", 1)


def raw_frames(one: dict[str, Any]) -> list[bytes]:
    opcode = OPCODES.get(one["op"], one["op"])
    payload = payload_of(one.get("data", ""))
    if "code" in one:
        payload = one["code"].to_bytes(2, "big") + payload
    if "fragments" in one:
        size = one["fragments"]
        parts = [payload[at : at + size] for at in range(0, len(payload), size)]
        return [frame(0 if n else opcode, part, fin=n == len(parts) - 1) for n, part in enumerate(parts)]
    raw = frame(opcode, payload, fin=one.get("fin", True), rsv=one.get("rsv", 0) << 4, form=one.get("form", 0))
    return [raw[: len(raw) - len(payload) + one["cut"]] if "cut" in one else raw]


def chopped(sent: list[bytes], chop: int | str | None) -> list[bytes]:
    if chop == "frame":
        return sent
    data = b"".join(sent)
    size = chop if isinstance(chop, int) else len(data)
    return [data[at : at + size] for at in range(0, len(data), size)]


def talk(port: int, parts: list[bytes]) -> Frames:
    """Everything that comes back until the end of file; there must be one."""
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(10)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(HANDSHAKE)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += sock.recv(65536)
        head, _, back = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert ACCEPT in head
        try:
            for part in parts:
                sock.sendall(part)
        except ConnectionError:
            pass  # it has closed already, as it may
        try:
            while part := sock.recv(2**20):
                back += part
        except ConnectionResetError:
            pass  # what came before the reset was read
    return frames_of(back)
