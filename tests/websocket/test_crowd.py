"""Hundreds of clients that come to a node in one moment."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.handshakes import JWT, connected, refused, token
from tests.peer import Peer, Refusal
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled
from tests.trunk.worker import linked
from tidegate.app import App
from tidegate.core.model import Publication, encode_cursor

RATE, CROWD = 300, 400


class Comers:
    """Clients, and how many there were as time passed."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.peers: list[Peer] = []
        self._counts: list[tuple[float, int]] = []

    async def __aenter__(self) -> Comers:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.gather(*(peer.cut() for peer in self.peers))

    async def come(self, **query: Any) -> Peer:
        peer = Peer(self._app.public_port, **query)
        await peer.connect()
        self.peers.append(peer)
        return peer

    async def look(self) -> None:
        """Until it is cancelled."""
        while True:
            self._counts.append((time.monotonic(), self._app.metrics.handshakes["accepted",]))
            await asyncio.sleep(0.005)

    def most_in_a_second(self) -> int:
        """As the node has counted them."""
        counts = self._counts
        return max(
            max(count for at_s, count in counts[first:] if at_s < since_s + 1) - before
            for first, (since_s, before) in enumerate(counts)
        )


@pytest.mark.parametrize("auth", ["none", "jwt"])
async def test_a_crowd_is_let_in_at_the_rate_and_has_what_it_missed(auth: str) -> None:
    settings = JWT if auth == "jwt" else {}
    async with running(LIMITS__HANDSHAKES_PER_SECOND=RATE, **settings) as app:
        (position,) = await app.gateway.push([Publication("all", b"0", None)])
        await app.gateway.push([Publication("all", b"%d" % n, None) for n in range(1, 4)])
        cursor = encode_cursor({"all": position})  # type: ignore[dict-item] # it was accepted
        assert cursor is not None
        begun_s = time.monotonic()
        async with Comers(app) as them:
            names = [f"c{n}" for n in range(CROWD)]
            who = [{"token": token(sub=name)} if auth == "jwt" else {"client": name} for name in names]
            looking = asyncio.create_task(them.look())  # noqa: TID251 - cancelled below
            peers = await asyncio.gather(*(them.come(**one, cursor=cursor) for one in who))
            looking.cancel()
            for peer in peers:
                events = await peer.events(4)
                assert [event.get("data") for event in events] == [None, 1, 2, 3]
            took_s = time.monotonic() - begun_s
            assert took_s > (CROWD - RATE) / RATE
            assert took_s < scaled(CROWD / RATE + 4)
            assert them.most_in_a_second() <= RATE + 6  # who had their turn and were not counted yet
        assert app.metrics.handshakes["accepted",] == CROWD


async def test_who_is_there_notices_nothing_of_a_crowd_at_the_door() -> None:
    async with running(LIMITS__HANDSHAKES_PER_SECOND=RATE) as app, connected(app) as alice, Comers(app) as them:
        coming = asyncio.gather(*(them.come(client=f"c{n}") for n in range(CROWD)))
        await eventually(lambda: app.admission.waiting > CROWD / 2)
        for number in range(10):
            begun_s = time.monotonic()
            await alice.ask(type="ping", id=number)
            assert time.monotonic() - begun_s < scaled(0.1)
        assert app.admission.waiting
        await coming


async def test_who_cannot_have_its_turn_in_time_is_told_when_to_come(expected_logs: Logs) -> None:
    expected_logs.expect("handshakes.refused")
    async with running(LIMITS__HANDSHAKES_PER_SECOND=10, LIMITS__HANDSHAKE_WAIT_S=0.5) as app, Comers(app) as them:
        found = await asyncio.gather(*(them.come(client=f"c{n}") for n in range(40)), return_exceptions=True)
        refusals = [one for one in found if isinstance(one, Refusal)]
        assert len(refusals) + len(them.peers) == 40
        assert 5 <= len(them.peers) <= 9
        assert {(one.status, one.code) for one in refusals} == {(503, "busy")}
        again = [int(one.headers["retry-after"]) for one in refusals]
        assert (min(again), max(again)) in {(1, 4), (1, 5), (2, 5)}
        assert {one.headers["connection"] for one in refusals} == {"close"}
        assert app.metrics.handshakes["busy",] == len(refusals)


async def test_what_is_wrong_anyway_is_told_without_a_wait() -> None:
    async with running(LIMITS__HANDSHAKES_PER_SECOND=1, ORIGINS=["https://app.example"], **JWT) as app:
        async with connected(app, token=token(sub="alice")):
            begun_s = time.monotonic()
            await refused(app, {"Origin": "https://other.example"}, token=token(sub="bob"))
            await refused(app, {"Upgrade": ""}, token=token(sub="bob"))
            assert time.monotonic() - begun_s < 0.5
            for _ in range(20):  # what is wrong with a token costs no place
                assert (await refused(app, token="bad")).status == 401
            assert time.monotonic() - begun_s < scaled(2)


async def test_a_node_that_stops_keeps_nobody_waiting() -> None:
    async with running(LIMITS__HANDSHAKES_PER_SECOND=1) as app, Comers(app) as them, connected(app):
        waiting = asyncio.gather(*(them.come(client=f"c{n}") for n in range(4)), return_exceptions=True)
        await eventually(lambda: app.admission.waiting == 4)
        begun_s = time.monotonic()
        await app.drain(0)
        found = await waiting
        assert time.monotonic() - begun_s < 0.8
        assert [one.code for one in found if isinstance(one, Refusal)] == ["draining"] * 4


async def test_who_has_gone_when_its_turn_comes_takes_no_place() -> None:
    async with running(LIMITS__HANDSHAKES_PER_SECOND=1) as app, Comers(app) as them, connected(app):
        gone = [Peer(app.public_port, client=f"gone{n}") for n in range(3)]
        knocking = asyncio.gather(*(peer.connect() for peer in gone), return_exceptions=True)
        await eventually(lambda: app.admission.waiting == 3)
        knocking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await knocking
        begun_s = time.monotonic()
        await them.come(client="bob")
        assert time.monotonic() - begun_s < scaled(1.5)
        assert app.metrics.open_connections == 2


async def test_clients_on_a_trunk_wait_with_the_others(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(LIMITS__HANDSHAKES_PER_SECOND=5, TRUNK__SOCKET=path) as app, linked(path) as worker:
        begun_s = time.monotonic()
        for number in range(6):
            await worker.welcome(f"client=c{number}")
        assert time.monotonic() - begun_s > 0.9
        assert app.metrics.open_connections == 6


async def test_who_moves_here_from_another_node_waits_for_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "t.sock")
    async with running(LIMITS__HANDSHAKES_PER_SECOND=1, TRUNK__SOCKET=path) as app, linked(path) as worker:
        begun_s = time.monotonic()
        moved = [worker.resume(f"c{n}", f"other-{n}", app.broker.orders_heard) for n in range(20)]
        await eventually(lambda: app.metrics.moves["in",] == 20)
        assert time.monotonic() - begun_s < scaled(0.8)
        assert all(client.accepted for client in moved)
        begun_s = time.monotonic()
        await worker.welcome("client=alice")  # but others wait for them
        assert time.monotonic() - begun_s > 0.8
