"""Who answers is no gateway, or means harm: it is named in a finding, whatever it sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest

from tests.service_fixture import running
from tidegate.cli import api_client
from tidegate.cli.command import Failed
from tidegate.cli.doctor import _print
from tidegate.config.settings import Config
from tidegate.core import frames
from tidegate.doctor import examination, handshake, link
from tidegate.doctor.api import Api
from tidegate.doctor.examination import Wishes
from tidegate.doctor.report import Finding, wrong
from tidegate.doctor.target import read

WELCOME = {"type": "welcome", "client": "a", "connection": "n-1", "node": "n", "ping_interval": 1, "ping_timeout": 2}
DEEP = b'{"a":' * 10_000


@contextlib.asynccontextmanager
async def server(said: bytes, more: bytes = b"") -> AsyncIterator[str]:
    """Answers each request with ``said``, in which ACCEPT is what its key asks for, then with ``more`` without end."""

    answering = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
            writer.write(said.replace(b"ACCEPT", link.accept_of(key).encode()))
            while more:
                writer.write(more)
                await writer.drain()
            await reader.read()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        try:
            yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        finally:
            await asyncio.gather(*filter(None, answering))


async def examine(url: str, ask: Any = None) -> list[Finding]:
    target = msgspec.structs.replace(read(url), client="a")
    return await examination.examine(target, None if ask is None else Api(ask), Wishes(hold_s=0.05))


def upgraded(*sent: bytes) -> bytes:
    return b"HTTP/1.1 101 x\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n" + b"".join(sent)


def welcome(**changes: object) -> bytes:
    return upgraded(frames.text(json.dumps(WELCOME | changes).encode()))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"HTTP/1.1 404 x\r\nContent-Length: 50000\r\n\r\n" + DEEP, "404"),
        (upgraded(frames.text(b'{"type":"welcome"}')), "is not the gateway"),
        (welcome(ping_interval="soon"), "is not the gateway"),
        (welcome(ping_timeout=-1), "is not the gateway"),
        (welcome(limits=[1]), "is not the gateway"),
        (welcome(limits={"message_bytes": 10**12}), "is not the gateway"),
        (upgraded(frames.text(DEEP)), "none comes"),
        (upgraded(bytes((frames.FIN | frames.PING, 126, 255, 255))), "cut"),
    ],
)
async def test_what_is_not_the_gateways_is_a_finding(said: bytes, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TIMEOUT_S", 0.2)
    async with server(said) as url:
        findings = await examine(url)
    found = [finding for finding in findings if finding.what in ("handshake", "welcome") and finding.level == "wrong"]
    assert len(found) == 1, list(map(str, findings))
    assert word in found[0].how
    assert all(finding.how for finding in findings)


async def test_who_is_turned_away_for_lack_of_room_knows_nothing_of_the_rules() -> None:
    error = b'{"error":{"code":"too_many_connections","message":"too many"}}'
    async with server(b"HTTP/1.1 429 x\r\nContent-Length: %d\r\n\r\n" % len(error) + error) as url:
        findings = await handshake.rules(read(url))
    assert {finding.level for finding in findings} == {"unknown"}
    assert len(findings) == 5
    assert all("edge.handshakes_per_second" in finding.do for finding in findings)


@pytest.mark.parametrize(
    ("said", "more"),
    [
        (b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n", b"x" * 65536),
        (upgraded(bytes((frames.TEXT, 1)) + b"{"), bytes((0, 126, 250, 0)) + b"x" * 64000),
    ],
    ids=["a chunk", "fragments"],
)
async def test_what_never_ends_is_not_kept(said: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TIMEOUT_S", 0.4)
    async with server(said, more) as url:
        tracemalloc.start()
        try:
            await examine(url)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert most < 16 * link.MESSAGE_BYTES


@pytest.mark.parametrize("health", [{}, {"nodes": []}, {"node": "n", "settings": {}, "nodes": [{}]}])
async def test_an_api_of_another_server_or_version_is_a_finding(health: Mapping[str, Any]) -> None:
    async with server(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n") as url:
        findings = await examine(url, lambda method, path, body: health)
    (found,) = [finding for finding in findings if finding.what == "API"]
    assert "as a node of this version does" in found.how


def test_what_a_server_says_is_no_order_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    _print([wrong("handshake", "404 \x1b[2Jx: a\nok      handshake: 101", "do")])
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.splitlines()[1] == "1 wrong"


async def test_an_api_that_answers_without_depth_or_end_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "ANSWER_BYTES", 200_000)
    for said, more in (
        (b"HTTP/1.1 200 x\r\nContent-Length: 50000\r\n\r\n" + DEEP, b""),
        (b"HTTP/1.1 200 x\r\n\r\n", b"x"),
    ):
        async with server(said, more * 65536) as url:
            client = api_client.ApiClient(url.replace("ws", "http"), Config())
            with contextlib.closing(client), pytest.raises(Failed, match="is not the internal port of a gateway"):
                await asyncio.to_thread(client.call, "GET", "/api/trace", dict)


async def test_what_a_node_says_is_taken_as_it_is() -> None:
    async with running(CALLS__ALLOW="[]") as app:
        client = api_client.ApiClient(f"http://localhost:{app.internal_port}", Config())
        with contextlib.closing(client):
            findings = await examine(
                f"ws://127.0.0.1:{app.public_port}", lambda method, path, body: client.call(method, path, dict, body)
            )
    levels = {finding.what: finding.level for finding in findings}
    assert {levels[what] for what in ("push", "close codes", "readiness", "settings", "content", "size")} == {"ok"}
    assert "API" not in levels
