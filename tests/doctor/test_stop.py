"""What clients see while nodes stop, as the doctor says it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer
from tests.edges.edge import Node, Stand, stand
from tests.http.node import node as running
from tests.support import Process, eventually
from tidegate.cli.api_client import ApiClient
from tidegate.cli.doctor import asking
from tidegate.config.load import load
from tidegate.doctor import stop
from tidegate.doctor.api import Api
from tidegate.doctor.report import Finding
from tidegate.doctor.target import read


def said(findings: Sequence[Finding]) -> list[str]:
    """A line each, without what differs from run to run: ends of names, times, and how many tries there were."""
    lines = [f"{each.level} {each.what}: {each.how}" for each in findings]
    for pattern, text in (
        (r"(n\d)\.\w{4}\b", r"\1"),
        (r"[\d.]+ m?s\b", "…"),
        (r"http://[\d.:]+ does not answer \(.*?\)", "no answer"),
        (r"the last with .*", "the last with …"),
        (r"\d+ of \d+", "… of …"),
        (r"\d+ (failed|not accepted|arrived)", r"… \1"),
    ):
        lines = [re.sub(pattern, text, line) for line in lines]
    return lines


@contextlib.asynccontextmanager
async def direct(folder: Path, **settings: Any) -> AsyncIterator[Node]:
    node = Node(folder, {"SERVER__NODE": "n1", "SERVER__DRAIN_S": 0.2, **settings})
    node.start()
    try:
        await node.ready()
        yield node
    finally:
        node.process.kill()


@contextlib.contextmanager
def watching(port: int, internal: int, begun: Callable[[str], None]) -> Iterator[stop.Watch]:
    target = msgspec.structs.replace(read(f"ws://127.0.0.1:{port}"), client="a")
    with contextlib.closing(ApiClient(f"http://127.0.0.1:{internal}", load(None, {}))) as service:
        yield stop.Watch(target, Api(asking(service)), 60, begun)


REFUSED = os.strerror(errno.ECONNREFUSED)
ENDS = {
    signal.SIGTERM: "ok stop of n1: no moving came, and the connection was closed with 1012 service restart",
    signal.SIGKILL: "wrong stop of n1: the connection was cut without a close frame (1006)",
}


@pytest.mark.parametrize("number", ENDS)
async def test_how_a_node_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(stop, "BACK_S", 0.1)
    monkeypatch.setattr(stop, "ARRIVAL_S", 0.1)
    monkeypatch.setattr(stop, "PUSH_S", 0.05)
    begun = asyncio.Event()
    async with direct(tmp_path) as node:
        with watching(node.public, node.internal, lambda words: begun.set()) as watch:

            async def end_it() -> None:
                await begun.wait()
                await eventually(lambda: watch._held[0].arrived)
                node.process.signal(number)
                await node.process.ended()
                await eventually(
                    lambda: watch._refused and [each.trouble for each in watch._held[0].stops] == [REFUSED]
                )
                watch.enough()

            findings, _ = await asyncio.gather(watch.findings(), end_it())
    assert said(findings) == [
        "ok nodes through the edge: the only one is reached",
        ENDS[number],
        f"wrong return from n1: no handshake was taken within …: {REFUSED}",
        "ok pushes meanwhile: all … arrived, each within …; … not accepted: no answer",
    ]


async def test_a_push_that_does_not_come_is_wrong_though_nothing_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "ARRIVAL_S", 0.1)
    async with running() as n, Proxy(n.app.public_port, lambda data: b"" if b'"doctor"' in data else data) as proxy:
        with watching(proxy.port, n.app.internal_port, lambda words: watch.enough()) as watch:
            findings = await watch.findings()
    assert said(findings)[1:] == [
        "unknown stop of n1: nothing happened to the session there within …",
        "wrong pushes meanwhile: … of … did not come to a session that is at n1",
    ]
    assert re.fullmatch(r"`tidegate trace client:a \w+:1` says why", findings[-1].do)


async def test_an_api_that_goes_with_its_node_is_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "ARRIVAL_S", 0.1)
    async with running() as n, Proxy(n.app.internal_port) as proxy:

        def begun(words: str) -> None:
            proxy.refuse()
            watch.enough()

        with watching(n.app.public_port, proxy.port, begun) as watch:
            findings = await watch.findings()
    how = "the session there stayed open for …, and the API does not say whether its node is the same"
    assert said(findings)[1:] == [
        f"unknown stop of n1: {how}: no answer",
        "unknown pushes meanwhile: none was accepted: no answer",
    ]


async def test_without_the_api_what_stays_open_says_nothing() -> None:
    async with running() as n:
        target = msgspec.structs.replace(read(f"ws://127.0.0.1:{n.app.public_port}"), client="a")
        watch = stop.Watch(target, None, 0.1, lambda words: None)
        assert said(await watch.findings()) == [
            "unknown stop of n1: the session there stayed open for …",
            "unknown pushes meanwhile: not made",
        ]


@pytest.mark.slow  # a node starts twice
async def test_the_only_node_that_dies_with_its_journal_is_no_alarm_where_clients_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "ARRIVAL_S", 0.1)
    monkeypatch.setattr(stop, "PUSH_S", 0.05)
    begun = asyncio.Event()
    async with direct(tmp_path) as node, Proxy(node.public) as proxy:
        with watching(proxy.port, node.internal, lambda words: begun.set()) as watch:

            async def restart() -> None:
                await begun.wait()
                await eventually(lambda: watch._held[0].arrived)
                proxy.cut()  # what is pushed from now on is in the journal alone
                await eventually(lambda: len(watch._pushed) > len(watch._held[0].arrived) + 1)
                node.process.signal(signal.SIGKILL)
                await node.process.ended()
                proxy.heal()
                node.start()

            findings, _ = await asyncio.gather(watch.findings(), restart())
    assert said(findings) == [
        "ok nodes through the edge: the only one is reached",
        ENDS[signal.SIGKILL],
        "weak return from n1: a new handshake was taken within …, by n1; … failed before, the last with …",
        "weak pushes meanwhile: … of … did not come to a session that is at n1; … not accepted: no answer; it was told "
        "so: gap, reset",
    ]


MOVED = [
    "ok stop of n1: moving came, and the connection was closed with 1012 service restart … later",
    "ok return from n1: a new handshake was taken within …, by n2",
]
FIRST = {
    "plain": MOVED,
    "njs": MOVED,
    "openresty-trunk": ["ok stop of n1: the connection stayed open, and went on at n2"],
}


@pytest.mark.slow  # three edges
async def test_what_a_stop_is_through_each_edge_is_named_until_one_has_seen_enough() -> None:
    with RedisServer() as redis:
        shared = {"BROKER__KIND": "redis", "BROKER__URL": redis.url, "EDGE__TRUNK": True}
        async with (
            contextlib.AsyncExitStack() as stack,
            stand("plain", nodes=2, **shared) as plain,
            stand("njs", behind=plain, **shared) as njs,
            stand("openresty-trunk", behind=plain, **shared) as openresty,
        ):
            openresty.provoked(
                "the trunk to .* has ended|no trunk to|Connection refused|reset by peer|no handshake with"
            )
            stands = {"plain": plain, "njs": njs, "openresty-trunk": openresty}
            leaves, goes_on = plain.nodes
            watching = {name: watched(s, goes_on) for name, s in stands.items()}
            for process in watching.values():
                stack.callback(process.kill)
                await process.line(
                    "2 sessions are held, at n1.*, n2.*: stop, restart or upgrade a node now, within 60 s"
                )
            leaves.process.signal(signal.SIGTERM)
            await leaves.process.ended()
            for name, process in watching.items():
                process.signal(signal.SIGINT)
                assert await process.ended() == 0
                answer = msgspec.json.decode(process.stdout)
                assert said(msgspec.convert(answer["findings"], list[Finding])) == [
                    "ok nodes through the edge: all 2 are reached",
                    *FIRST[name],
                    "unknown stop of n2: nothing happened to the session there within …",
                    "ok pushes meanwhile: all … arrived, each within …",
                ]


def watched(s: Stand, node: Node) -> Process:
    """A doctor as one runs it."""
    folder = s.folder / "doctor"
    folder.mkdir()
    api = f"http://127.0.0.1:{node.internal}"
    program = ("-m", "tidegate", "doctor", f"ws://127.0.0.1:{s.port}", "--api", api, "--stop", "60", "--json")
    return Process(sys.executable, *program, folder=folder)
