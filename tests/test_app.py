"""The service as a process: it starts, says where to look, drains and ends."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.peer import Peer, Refusal
from tests.support import ROOT, Logs, Process, eventually, free_port, scaled
from tidegate.node import warn_of_backlog

Start = Callable[..., Process]


class Node:
    """``tidegate serve`` on free ports, with these settings."""

    def __init__(self, start_process: Start, **environment: str) -> None:
        self.port = int(environment.pop("TIDEGATE_SERVER__PORT", 0)) or free_port()
        self.internal = int(environment.pop("TIDEGATE_INTERNAL__PORT", 0)) or free_port()
        self.process = start_process(
            ROOT / ".venv/bin/python",
            "-m",
            "tidegate",
            "serve",
            env={
                "TIDEGATE_SERVER__PORT": str(self.port),
                "TIDEGATE_INTERNAL__PORT": str(self.internal),
                **environment,
            },
        )

    async def started(self) -> Self:
        await self.process.port(self.internal)
        return self

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{self.internal}{path}") as answer:
            return answer.status, await answer.text()

    async def push(self, path: str, data: Any, **headers: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.internal}/api/{path}/push"
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json={"data": data}) as answer:
            assert answer.status == 202
            position: dict[str, Any] = await answer.json()
            return position

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.process.stderr.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


async def test_it_says_where_to_look_and_logs_its_effective_settings(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_HISTORY__MESSAGES="77").started()
    await node.process.line("and push:")
    assert f"http://127.0.0.1:{node.internal}/" in node.process.stdout
    (started,) = node.logged("service.started")
    assert started["settings"]["history"]["messages"] == 77
    assert (await node.get("/healthz"))[0] == 200
    assert (await node.get("/readyz"))[0] == 200


async def test_sigterm_refuses_new_connections_and_spreads_the_closes_over_the_drain_time(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__DRAIN_S="2").started()
    peers = [Peer(node.port, client=f"c{n}") for n in range(10)]
    for peer in peers:
        await peer.connect()
        await peer.event()
    begun_s = time.monotonic()
    ends: list[float] = []

    async def watch(peer: Peer) -> None:
        assert await peer.ended(10) == 1012
        ends.append(time.monotonic() - begun_s)

    watchers = asyncio.gather(*map(watch, peers))
    node.process.signal(signal.SIGTERM)
    await eventually(lambda: node.logged("drain.started"))
    assert (await node.get("/readyz"))[0] == 503
    assert (await node.get("/healthz"))[0] == 200
    with pytest.raises(Refusal) as refused:
        await Peer(node.port, client="late").connect()
    assert (refused.value.status, refused.value.code) == (503, "draining")
    assert int(refused.value.headers["retry-after"]) >= 1
    await watchers
    for peer in peers:
        await peer.cut()
    assert max(ends) >= 1.5, "all were closed at once"
    assert max(ends) <= scaled(4)
    ordered = sorted(ends)
    assert max(b - a for a, b in itertools.pairwise(ordered)) < 1, "they went in bursts"
    assert await node.process.ended() == 0
    assert node.logged("service.stopped")


async def test_sigint_closes_everybody_at_once_with_1012(start_process: Start) -> None:
    node = await Node(start_process).started()
    async with Peer(node.port, client="alice") as alice:
        await alice.event()
        node.process.signal(signal.SIGINT)
        assert await alice.ended() == 1012
    assert await node.process.ended(5) == 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
async def test_signals_that_mean_nothing_are_ignored_with_a_line_and_do_not_stop_a_drain(
    start_process: Start, number: signal.Signals
) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__DRAIN_S="0.5").started()
    async with Peer(node.port, client="alice") as alice, Peer(node.port, client="bob") as bob:
        await alice.event()
        await bob.event()
        node.process.signal(number)
        (line,) = await eventually(lambda: node.logged("signal.ignored"))
        assert (line["level"], line["signal"]) == ("info", number.name)
        assert (await node.get("/readyz"))[0] == 200
        node.process.signal(signal.SIGTERM)
        await eventually(lambda: node.logged("drain.started"))
        node.process.signal(number)
        assert [await alice.ended(), await bob.ended()] == [1012, 1012]
    assert await node.process.ended() == 0
    assert len(node.logged("signal.ignored")) == 2


async def test_sigquit_drains_as_sigterm_does(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__DRAIN_S="0").started()
    async with Peer(node.port, client="alice") as alice:
        await alice.event()
        node.process.signal(signal.SIGQUIT)
        assert await alice.ended() == 1012
    assert await node.process.ended() == 0
    assert node.logged("service.stopped")


async def test_a_node_that_has_not_started_yet_can_be_stopped(start_process: Start) -> None:
    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: silent.append(writer), "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    node = Node(start_process, TIDEGATE_BROKER__KIND="redis", TIDEGATE_BROKER__URL=url)
    await eventually(lambda: silent, 15)
    begun_s = time.monotonic()
    node.process.signal(signal.SIGHUP)
    node.process.signal(signal.SIGTERM)
    assert await node.process.ended() == 0
    assert time.monotonic() - begun_s < scaled(2.5)
    assert node.logged("service.stopped")
    assert not node.logged("service.started")
    for writer in silent:
        writer.close()
    server.close()


async def test_a_second_signal_does_not_wait_for_the_drain(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__DRAIN_S="60").started()
    async with Peer(node.port, client="a") as a, Peer(node.port, client="b") as b:
        await a.event()
        await b.event()
        node.process.signal(signal.SIGTERM)
        await eventually(lambda: node.logged("drain.started"))
        node.process.signal(signal.SIGTERM)
        assert await node.process.ended(10) == 0


async def test_a_peer_that_does_not_answer_the_close_frame_does_not_hold_up_the_end(start_process: Start) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__DRAIN_S="0").started()
    async with Peer(node.port, client="mute", answer_close=False) as mute:
        await mute.event()
        node.process.signal(signal.SIGTERM)
        assert await node.process.ended(15) == 0


async def test_what_cannot_be_used_is_refused_with_the_reason_and_exit_code_1(start_process: Start) -> None:
    node = Node(start_process, TIDEGATE_SERVER__ADDRESS="0.0.0.0")
    assert await node.process.ended() == 1
    assert "auth.mode" in node.process.stderr
    assert "Traceback" not in node.process.stderr


@pytest.mark.parametrize("key", ["server.port", "internal.port"])
async def test_a_taken_port_is_said_in_words_with_its_key(start_process: Start, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        name = "TIDEGATE_" + key.upper().replace(".", "__")
        node = Node(start_process, **{name: str(port)})
        assert await node.process.ended() == 1
    assert f"cannot start: {key}: cannot listen on 127.0.0.1:{port}: address already in use" in node.process.stderr
    assert f"set {key} ({name}) to another" in node.process.stderr
    assert "Traceback" not in node.process.stderr
    assert "Unclosed" not in node.process.stderr


@pytest.mark.slow
async def test_a_redis_that_is_not_there_is_said_in_words_with_its_key(start_process: Start) -> None:
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    node = Node(start_process, TIDEGATE_BROKER__KIND="redis", TIDEGATE_BROKER__URL=url)
    assert await node.process.ended() == 1
    shown = url.replace(":hunter2", "***")
    assert f'cannot start: broker.url = "{shown}": Redis does not listen; see that it runs' in node.process.stderr
    assert "hunter2" not in node.process.stderr
    assert "Traceback" not in node.process.stderr


@pytest.fixture
def path() -> Iterator[str]:
    """Of a Unix socket; short, whatever the test's name."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/node.sock"


def is_there(path: str) -> bool:
    return os.path.exists(path)


async def test_a_unix_socket_serves_what_the_public_port_serves(start_process: Start, path: str) -> None:
    node = await Node(start_process, TIDEGATE_SERVER__SOCKET=path, TIDEGATE_SERVER__DRAIN_S="0.2").started()
    await node.process.line("service.started")
    assert node.logged("service.started")[0]["socket"] == path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    async with Peer(path, client="alice", groups="news") as alice, Peer(node.port, client="bob", groups="news") as bob:
        await alice.event()
        await bob.event()
        await node.push("groups/news", "x" * 60_000)
        assert [(await peer.event())["offset"] for peer in (alice, bob)] == [1, 1]
        for headers in ({"Host": "gateway.example"}, {"Origin": "https://elsewhere.example"}):
            with pytest.raises(Refusal) as refused:
                await Peer(path, client="carol", headers=headers).connect()
            assert refused.value.status == 403
        node.process.signal(signal.SIGTERM)
        await eventually(lambda: node.logged("drain.started"))
        with pytest.raises(Refusal) as refused:
            await Peer(path, client="late").connect()
        assert (refused.value.status, refused.value.code) == (503, "draining")
        assert [await alice.ended(), await bob.ended()] == [1012, 1012]
    assert await node.process.ended() == 0
    assert not is_there(path)


async def test_who_starts_again_after_it_was_killed_takes_its_socket_and_no_other_can(
    start_process: Start, path: str
) -> None:
    killed = await Node(start_process, TIDEGATE_SERVER__SOCKET=path).started()
    killed.process.kill()
    assert is_there(path)
    node = await Node(start_process, TIDEGATE_SERVER__SOCKET=path).started()
    other = Node(start_process, TIDEGATE_SERVER__SOCKET=path)
    assert await other.process.ended() == 1
    assert f"cannot start: server.socket: cannot listen on {path}: another process listens" in other.process.stderr
    assert "Traceback" not in other.process.stderr
    assert "Unclosed" not in other.process.stderr
    async with Peer(path, client="alice") as alice:
        assert (await alice.event())["type"] == "welcome"
    assert await node.process.stop() == 0


async def test_a_start_that_fails_leaves_no_socket(start_process: Start, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        node = Node(start_process, TIDEGATE_SERVER__SOCKET=path, TIDEGATE_INTERNAL__PORT=port)
        assert await node.process.ended() == 1
    assert "cannot start: internal.port" in node.process.stderr
    assert not is_there(path)


def test_a_kernel_that_lets_fewer_wait_than_are_asked_for_is_told_of(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "somaxconn"
    monkeypatch.setattr("tidegate.process.addresses._SOMAXCONN", limit)
    for text in ("", "4096\n", "70000\n"):  # at first there is no such file
        warn_of_backlog()
        limit.write_text(text)
    assert not expected_logs.records
    limit.write_text("128\n")
    expected_logs.expect("backlog.limited")
    warn_of_backlog()


@pytest.mark.parametrize(("address", "shown"), [("::1", "[::1]"), ("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1")])
async def test_the_url_that_is_printed_is_one_that_answers(start_process: Start, address: str, shown: str) -> None:
    settings = {"TIDEGATE_INTERNAL__ADDRESS": address, "TIDEGATE_INTERNAL__KEYLESS_ANYWHERE": "true"}
    node = Node(start_process, **settings)
    line = await node.process.line("and push:")
    url = f"http://{shown}:{node.internal}/"
    assert f"Open {url} and push" in line
    pushing = f"{url}api/clients/alice/push"
    quoted = f"'{pushing}'" if "[" in pushing else pushing  # shells take [::1] for a pattern
    await node.process.line(f"  curl {re.escape(quoted)} ")
    assert (await eventually(lambda: node.logged("service.started")))[0]["console"] == url
    async with aiohttp.ClientSession() as http:
        for path in ("", "healthz", "api/nodes"):
            async with http.get(url + path) as answer:
                assert answer.status == 200
        if address != "0.0.0.0":
            async with http.get(url, headers={"Host": "gateway.example"}) as answer:
                assert answer.status == 403


async def test_the_command_that_is_printed_has_a_place_for_the_key(start_process: Start) -> None:
    for keys, told in ((["0123456789abcdef"], True), ([], False)):
        node = Node(start_process, TIDEGATE_INTERNAL__API_KEYS=json.dumps(keys))
        line = await node.process.line("  curl ")
        assert ("-H 'Authorization: Bearer <key>'" in line) == told
        assert "0123456789abcdef" not in line


async def test_the_metrics_tell_what_happened(start_process: Start) -> None:
    node = await Node(start_process).started()
    async with Peer(node.port, client="alice", groups="news") as alice:
        await alice.event()
        position = await node.push("groups/news", 1)
        await node.push("clients/alice", 2)
        await alice.events(2)
        await alice.ask(type="call", id=1, method="echo", data=1)
    with pytest.raises(Refusal):
        await Peer(node.port, client="!").connect()
    async with Peer(node.port, client="bob") as bob:
        await bob.event()
        await bob.ask(type="join", id=1, group="news", epoch=position["epoch"], offset=0)
        await bob.event()
        await bob.ask(type="join", id=2, group="other", epoch="another", offset=3)
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families((await node.get("/metrics"))[1]):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}"] = sample.value
    expected = {
        "tidegate_handshakes_total{result=accepted}": 2,
        "tidegate_handshakes_total{result=bad_request}": 1,
        "tidegate_pushes_total{kind=group,result=accepted}": 1,
        "tidegate_pushes_total{kind=client,result=accepted}": 1,
        "tidegate_deliveries_total{}": 2,
        "tidegate_recoveries_total{result=recovered}": 1,
        "tidegate_recoveries_total{result=reset}": 1,
        "tidegate_missed_messages_total{}": 1,
        "tidegate_gaps_total{}": 1,
        "tidegate_push_to_write_seconds_count{}": 2,
        "tidegate_call_seconds_count{outcome=call_unavailable}": 1,
        "tidegate_outbox_bytes{}": 0,
        "tidegate_ready{}": 1,
    }
    assert {name: samples.get(name) for name in expected} == expected
    assert samples["tidegate_delivered_bytes_total{}"] > 100


async def test_no_payload_and_no_token_reaches_the_log(start_process: Start) -> None:
    secret = "payload-that-nobody-may-log"
    node = await Node(start_process, TIDEGATE_LOG__LEVEL="debug").started()
    async with Peer(node.port, client="alice", token="eyJhbGciOi.secret-token") as alice:
        await alice.event()
        await node.push("clients/alice", secret)
        await alice.event()
        alice.send(type="publish", id=1, group="news", data=secret)
        alice.send_text('{"type":"nonsense","data":"' + secret + '"}')
        await alice.events(2)
    await eventually(lambda: node.logged("connection.closed"))
    assert secret not in node.process.stderr
    assert "secret-token" not in node.process.stderr
