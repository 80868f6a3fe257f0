"""``python -m bench url``, against a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from bench.load import remote
from bench.load.remote_client import Client, Tally
from bench.report.comparison import Cell
from examples.rest_app.__main__ import make_app
from tests.service_fixture import running
from tests.support import Process
from tests.tokens import SECRET, make_token
from tidegate.app import App

QUICK = ("--connections", "4", "--rate", "50", "--seconds", "1")
NAMES = ["handshake", "text heartbeat", "JSON ping", "call echo"]


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[App]:
    """A service, and an application for its calls."""
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(make_app())
    server.add_sockets(sockets)
    try:
        async with running(CALLS__URL=f"http://127.0.0.1:{sockets[0].getsockname()[1]}", **settings) as app:
            yield app
    finally:
        server.stop()


class Runs:
    """Runs of the command; ``found`` is what the last one wrote."""

    def __init__(self, start: Callable[..., Process], folder: Path) -> None:
        self._start = start
        self.out = folder / "found.json"

    async def run(self, url: str, *args: str, code: int = 0) -> Process:
        process = self._start(sys.executable, "-m", "bench", "url", url, *QUICK, "--out", self.out, *args)
        assert await process.ended(60) == code, str(process)
        return process

    @property
    def found(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.read_text())["found"]
        return found


@pytest.fixture
def runs(start_process: Callable[..., Process], tmp_path: Path) -> Runs:
    return Runs(start_process, tmp_path)


def ws(app: App) -> str:
    return f"ws://127.0.0.1:{app.public_port}/ws-notifications/"


def api(app: App) -> str:
    return f"http://127.0.0.1:{app.internal_port}"


async def test_all_is_measured_from_outside(runs: Runs) -> None:
    async with serving() as app:
        process = await runs.run(ws(app), "--push-url", api(app))
    assert list(runs.found) == [*NAMES, "push to a client", "push to a group of 4"]
    for name, cell in runs.found.items():
        assert cell["fault"] == "", name
        assert 0 < cell["values"]["p50_ms"] <= cell["values"]["p99_ms"], name
        assert name in process.stdout
    assert runs.found["handshake"]["notes"]["count"] == 4
    assert runs.found["JSON ping"]["notes"]["count"] == 50
    assert (
        runs.found["push to a group of 4"]["notes"]["count"] == 4 * runs.found["push to a group of 4"]["notes"]["sent"]
    )


@pytest.mark.slow
async def test_it_makes_tokens_for_a_client_each(runs: Runs) -> None:
    key = "an-api-key-of-this-test"
    async with serving(AUTH__MODE="jwt", AUTH__KEY=SECRET, INTERNAL__API_KEYS=[key], AUTH__AUDIENCE="here") as app:
        args = ("--token-key", SECRET, "--claim", "aud=here", "--push-url", api(app), "--api-key", key)
        await runs.run(ws(app), *args)
    assert not any(cell["fault"] for cell in runs.found.values())
    assert SECRET not in runs.out.read_text()
    assert key not in runs.out.read_text()


@pytest.mark.slow
async def test_connections_of_one_token_are_one_client_who_gets_each_push_on_all_of_them(runs: Runs) -> None:
    async with serving(AUTH__MODE="jwt", AUTH__KEY=SECRET) as app:
        await runs.run(ws(app), "--token", make_token(sub="alice"), "--push-url", api(app), code=1)
    assert runs.found["push to a client"]["notes"] == {"count": 200, "sent": 50}
    assert runs.found["push to a group of 4"]["fault"].startswith("joining bench-")


async def test_what_can_not_be_called_has_no_figures_and_the_rest_has(runs: Runs) -> None:
    async with running(CALLS__ALLOW=[]) as app:
        process = await runs.run(ws(app), code=1)
    assert runs.found["call echo"]["values"] == {}
    assert runs.found["JSON ping"]["values"]
    assert "no figures: not_allowed" in process.stdout


@pytest.mark.parametrize(
    ("settings", "args", "said"),
    [
        ({"AUTH__MODE": "jwt", "AUTH__KEY": SECRET}, ("--token", "nonsense"), "HTTP 401 unauthorized"),
        ({"AUTH__MODE": "jwt", "AUTH__KEY": SECRET}, ("--token", "nonsense"), "give --token or --token-key"),
        ({"AUTH__MODE": "jwt", "AUTH__KEY": SECRET}, (), "does it want a token"),
        ({"LIMITS__CONNECTIONS": 1}, (), "HTTP 503"),
    ],
)
async def test_a_refusal_is_told_in_the_words_of_the_service(
    runs: Runs, settings: dict[str, Any], args: tuple[str, ...], said: str
) -> None:
    async with running(**settings) as app:
        process = await runs.run(ws(app), *args, code=1)
    assert said in process.stderr
    assert "Traceback" not in process.stderr


async def test_nobody_there_is_told(runs: Runs) -> None:
    async with running() as app:
        url = ws(app)
    process = await runs.run(url, code=1)
    assert process.stderr.startswith(f"cannot connect to {url}")
    assert not runs.out.exists()


@pytest.mark.parametrize(
    ("url", "args", "said"),
    [
        ("ws://192.0.2.1/ws-notifications/", (), "Give --yes"),
        ("ws://127.0.0.1:1/", ("--push-url", "http://192.0.2.1:8001"), "192.0.2.1: not this machine"),
        ("http://127.0.0.1:1/", (), "ws://host:port"),
        ("ws://127.0.0.1:x/", (), "malformed address"),
        ("ws://127.0.0.1:1/", ("--rate", "100000"), "1 to 1000"),
        ("ws://127.0.0.1:1/", ("--connections", "0"), "1 to 1000"),
        ("ws://127.0.0.1:1/", ("--token", "a", "--token-key", "b"), "not both"),
        ("ws://127.0.0.1:1/", ("--token", "@/nowhere"), "No such file"),
    ],
)
async def test_nothing_is_tried_that_was_not_meant(runs: Runs, url: str, args: tuple[str, ...], said: str) -> None:
    process = await runs.run(url, *args, code=2)
    assert said in process.stderr


# What is right and what is wrong


async def client() -> Client:
    """One that has been welcomed, without a socket."""
    client = Client(0, "run")
    client._event({"type": "welcome", "client": "a", "streams": {"client:a": {"epoch": "e", "offset": 4}}})
    client.tally = Tally(2, {0: 0.0, 1: 0.0})
    return client


def message(offset: int, number: int, run: str = "run") -> dict[str, Any]:
    return {
        "type": "message",
        "stream": "client:a",
        "epoch": "e",
        "offset": offset,
        "data": {"bench": run, "n": number, "pad": ""},
    }


async def test_messages_in_their_turn_are_right() -> None:
    found = await client()
    for event in (message(5, 0), message(6, 7, "somebody else's"), message(7, 1)):
        found._event(event)
    assert found.tally.wrong == ""
    assert found.tally.complete.is_set()
    assert len(found.tally.took_ms) == 2


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([message(6, 0)], "offset 6 after 4"),
        ([message(5, 0), message(5, 0)], "offset 5 after 5"),
        ([message(5, 0), message(6, 0)], "came twice"),
        ([message(5, 9)], "nobody asked for"),
        ([{"type": "gap", "stream": "client:a", "reason": "expired"}], "a gap in client:a: expired"),
        ([{"type": "reply", "id": 0, "status": 200, "data": "another"}], "a call was answered with"),
        ([{"type": "error", "id": 0, "code": "call_timeout", "message": "late"}], "call_timeout: late"),
    ],
)
async def test_what_is_wrong_is_a_fault(events: list[dict[str, Any]], wrong: str) -> None:
    found = await client()
    for event in events:
        found._event(event)
    assert wrong in found.tally.wrong
    assert found.tally.complete.is_set()


def test_no_figure_is_shown_where_the_client_was_the_limit() -> None:
    cell = Cell({"p50_ms": 1.0, "p99_ms": 2.0, "rate": 3.0}, {"latency": [(100.0, 4.0)]}, 0.95, notes={"count": 5})
    assert "this client was the limit" in remote.table({"JSON ping": cell})
    cell.client_share = 0.5
    assert "this client was the limit" not in remote.table({"JSON ping": cell})


async def test_a_loopback_name_is_loopback_and_another_machine_is_not() -> None:
    assert remote._is_loopback("localhost")
    assert remote._is_loopback("::1")
    assert not await asyncio.to_thread(remote._is_loopback, "192.0.2.1")
