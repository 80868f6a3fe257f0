"""What a node says to an edge: whether it takes handshakes, and to which it says "next"."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.edges.edge import ask
from tests.handshakes import connected, handshake, refused
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled
from tidegate.app import App
from tidegate.core.errors import BrokerDown
from tidegate.websocket.standing import OLD_S, Standing

NEXT = {"X-Tidegate-Next": "404"}


async def probe(app: App) -> int:
    """Its status, to whoever asks: the host is that of an edge's upstream."""
    answer = await ask(app.public_port, "GET", "/.probe", {"Host": "tidegate"})
    assert answer.body == b""
    return answer.status


async def test_a_node_takes_handshakes_unless_it_is_full_or_draining() -> None:
    async with running(LIMITS__CONNECTIONS=1) as app:
        assert await probe(app) == 204
        async with connected(app):
            assert await probe(app) == 503
        app.gateway.draining = True
        assert await probe(app) == 503
        assert +app.metrics.handshakes == {("accepted",): 1}  # it is no handshake


async def test_a_probe_is_answered_and_the_handshake_comes_over_the_same_connection() -> None:
    async with running() as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.public_port)
        for request, status in ((b"GET /.probe HTTP/1.1\r\nHost: x\r\n\r\n", b"204"), (handshake(), b"101")):
            writer.write(request)
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), scaled(5))
            assert answer.split()[1] == status
        writer.close()
        await eventually(lambda: not app.metrics.open_connections)


async def test_the_first_handshake_of_an_edge_goes_on_to_another_node_where_no_probe_came_before_it() -> None:
    async with running() as app:
        refusal = await refused(app, NEXT)
        assert (refusal.status, refusal.code) == (404, "unavailable")
        assert refusal.headers["x-accel-redirect"] == "/.refused/502"
        for _ in range(2):
            async with connected(app, NEXT):
                pass


async def test_a_node_that_was_asked_takes_the_first_handshake() -> None:
    async with running() as app:
        assert await probe(app) == 204
        async with connected(app, NEXT):
            pass


async def test_without_an_edge_the_first_handshake_is_taken() -> None:
    async with running() as app, connected(app):
        pass


def test_who_stood_still_believes_no_probe_of_before() -> None:
    standing = Standing()
    standing.probed(100)
    assert not standing.passes_on()
    standing.stood_still(100)
    standing.probed(100 + OLD_S / 2)
    assert standing.passes_on()
    assert not standing.passes_on(), "one is enough"
    standing.stood_still(200)
    standing.probed(200 + OLD_S)
    assert not standing.passes_on()


async def test_an_edge_hears_next_and_the_words_where_a_client_would_hear_503(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*args: object) -> None:
        raise BrokerDown("weg: \u00e4\n" + "x" * 5000)

    async with running(LIMITS__CONNECTIONS=1) as app:
        await probe(app)
        async with connected(app):
            refusal = await refused(app)
            assert (refusal.status, refusal.code) == (503, "full")
            assert "x-accel-redirect" not in refusal.headers
            refusal = await refused(app, NEXT)
            assert (refusal.status, refusal.code) == (404, "full")
            assert refusal.headers["x-accel-redirect"] == "/.refused/502"
            assert refusal.headers["retry-after"] == "5"
            assert json.loads(refusal.headers["tidegate-refusal"]) == json.loads(refusal.body)
        monkeypatch.setattr(app.broker, "presence_join", lost)
        refusal = await refused(app, NEXT)
        assert refusal.status == 404
        assert len(refusal.headers["tidegate-refusal"]) < 1000
        error = json.loads(refusal.headers["tidegate-refusal"])["error"]
        assert (error["code"], error["message"][:7]) == ("broker_down", "weg: \u00e4\n")


async def test_what_concerns_one_client_is_said_to_it_through_an_edge_too() -> None:
    async with running(LIMITS__CONNECTIONS_PER_CLIENT=1) as app, connected(app):
        await probe(app)
        refusal = await refused(app, NEXT)
        assert (refusal.status, refusal.code) == (429, "too_many_connections")
        refusal = await refused(app, NEXT, client="..")
        assert (refusal.status, refusal.code) == (400, "bad_request")


async def test_a_node_whose_canary_did_not_pass_refuses_at_once(
    monkeypatch: pytest.MonkeyPatch, expected_logs: Logs
) -> None:
    expected_logs.expect("broker.lost")

    async def lost() -> float:
        raise BrokerDown("gone")

    async with running() as app:
        canary = app.broker.canary
        monkeypatch.setattr(app.broker, "canary", lost)
        await app.readiness.probe()
        refusal = await refused(app)
        assert (refusal.status, refusal.code) == (503, "broker_down")
        assert await probe(app) == 204
        monkeypatch.setattr(app.broker, "canary", canary)
        await app.readiness.probe()
        async with connected(app):
            pass
