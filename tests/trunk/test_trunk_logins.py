"""Clients of an edge whose application says who they are: let in over a trunk, and taken up by another node."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.login import Site, as_page, site
from tests.service_fixture import running
from tests.support import eventually, scaled
from tests.trunk.worker import HANDSHAKE, LinkedClient, Worker, linked
from tidegate.app import App
from tidegate.auth import callback
from tidegate.core.model import Position
from tidegate.trunk import codec
from tidegate.trunk.codec import Kind

HEADERS = "".join(f"{name}: {value}\r\n" for name, value in as_page("s-alice").items())
EDGE = HEADERS + "X-Forwarded-For: 198.51.100.7\r\n"


@contextlib.asynccontextmanager
async def started(folder: Path, **settings: Any) -> AsyncIterator[tuple[Site, App, Worker]]:
    path = str(folder / "t.sock")
    async with site() as asked, running(**asked.settings(TRUNK__SOCKET=path, **settings)) as app:
        async with linked(path) as worker:
            yield asked, app, worker


async def welcomed(worker: Worker) -> tuple[LinkedClient, dict[str, Any]]:
    client = worker.open("groups=news", EDGE)
    welcome = await client.gets("welcome")
    await eventually(lambda: client.token)
    return client, welcome


async def closed(client: LinkedClient) -> Any:
    return await eventually(lambda: client.closed)


def resume(worker: Worker, client: LinkedClient, welcome: dict[str, Any], token: str | None) -> LinkedClient:
    """Its node has gone: it is asked for at another, which is the same one here."""
    client.gone()
    fields = {"connection": welcome["connection"], "term": "1", "orders": worker.orders}
    if token is not None:
        fields["token"] = token
    known = codec.fields(**fields)
    positions = {name: (at["epoch"], at["offset"]) for name, at in welcome["streams"].items()}
    cursor = codec.cursor({name: Position(*at) for name, at in positions.items()})
    head = HANDSHAKE.format(query="groups=news", headers=EDGE).encode()
    return worker.ask(Kind.RESUME, codec.count(len(known)) + known + cursor + head)


async def test_a_handshake_over_a_trunk_is_asked_for_with_the_clients_address(tmp_path: Path) -> None:
    async with started(tmp_path) as (asked, _, worker):
        _, welcome = await welcomed(worker)
        assert welcome["client"] == "alice"
        assert asked.asked[0]["address"] == "198.51.100.7"
        assert asked.asked[0]["headers"]["cookie"] == "session=s-alice"
        refused = worker.open("", EDGE.replace("s-alice", "s-nobody"))
        await eventually(lambda: refused.answer)
        assert refused.answer.startswith(b"HTTP/1.1 401 ")


async def test_who_is_let_in_over_a_trunk_takes_a_place_then_and_who_is_refused_none(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, app, worker):
        entry = app.admission._next
        assert entry is not None
        refused = worker.open("", EDGE.replace("s-alice", "s-nobody"))
        await eventually(lambda: refused.answer)
        assert (app.admission.begun, entry.begun) == (1, 0)
        await welcomed(worker)
        assert (app.admission.begun, entry.begun) == (2, 1)


async def test_a_moved_session_is_asked_for_anew_and_goes_on(tmp_path: Path) -> None:
    async with started(tmp_path) as (asked, app, worker):
        client, welcome = await welcomed(worker)
        moved = resume(worker, client, welcome, client.token)
        await eventually(lambda: moved.welcomed)
        assert len(asked.asked) == 2
        assert [session.client for session in app.hub.sessions()] == ["alice"]
        assert "group:news" in next(iter(app.hub.sessions())).streams


@pytest.mark.parametrize("answer", [401, 403, {"client": "mallory"}])
async def test_a_moved_session_that_was_revoked_is_not_let_in_again(tmp_path: Path, answer: Any) -> None:
    async with started(tmp_path) as (asked, app, worker):
        client, welcome = await welcomed(worker)
        asked.sessions["s-alice"] = answer
        moved = resume(worker, client, welcome, client.token)
        assert await closed(moved) == (4009, "token expired")
        assert not moved.accepted
        assert not list(app.hub.sessions())


async def test_a_slow_application_cuts_no_moved_session_and_its_answer_counts_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.app.LOOK_S", 0.1)
    async with started(tmp_path) as (asked, app, worker):
        asked.sessions["s-alice"]["groups"] = ["news"]
        client, welcome = await welcomed(worker)
        asked.hangs = True
        del asked.sessions["s-alice"]  # it was revoked, and the application does not say so yet
        moved = resume(worker, client, welcome, client.token)
        await eventually(lambda: moved.welcomed)
        (session,) = app.hub.sessions()
        assert (session.client, session.rights.may_join("news"), session.rights.may_join("x")) == ("alice", True, False)
        asked.go_on()
        assert await closed(moved) == (4009, "token expired")


async def test_nothing_to_go_by_and_no_answer_has_the_client_come_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback, "MOVE_S", 0.05)
    async with started(tmp_path) as (asked, _, worker):
        for token in (None, "{", '{"client":1}'):
            asked.hangs = False
            client, welcome = await welcomed(worker)
            asked.hangs = True
            moved = resume(worker, client, welcome, token)
            assert await closed(moved) == (1012, "service restart")
        asked.go_on()


async def test_new_rights_are_given_to_the_edge_for_the_next_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.app.LOOK_S", 0.1)
    async with started(tmp_path, AUTH__RECHECK_S=0.2) as (asked, _, worker):
        client, _ = await welcomed(worker)
        before = client.token
        asked.sessions["s-alice"] = {"client": "alice", "groups": ["other"]}
        assert (await client.gets("left"))["stream"] == "group:news"
        assert "other" in client.token
        assert client.token != before


async def test_many_that_move_at_once_wait_for_a_hung_application_no_longer_than_one(tmp_path: Path) -> None:
    """With three seconds for each, the last of these would wait for nine: an edge holds clients for ten in all."""
    async with started(tmp_path, LIMITS__CONNECTIONS_PER_CLIENT=200) as (asked, app, worker):
        clients = [await welcomed(worker) for _ in range(120)]
        asked.hangs = True
        begun_s = time.monotonic()
        moved = [resume(worker, client, welcome, client.token) for client, welcome in clients]
        await eventually(lambda: all(one.welcomed for one in moved))
        assert time.monotonic() - begun_s < scaled(3)
        assert len(list(app.hub.sessions())) == 120
        asked.go_on()
