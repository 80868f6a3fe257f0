"""Handshakes where the application says who a client is: what it is asked, what its answers mean, and how nobody waits
for one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.handshakes import connected, refused, said
from tests.login import ORIGIN, Site, as_page, site
from tests.peer import Peer
from tests.service_fixture import running
from tests.support import Logs, eventually, free_port, scaled
from tidegate.app import App
from tidegate.auth import callback
from tidegate.auth.callback import Callback, question
from tidegate.config.auth import AuthSettings

ALICE = as_page("s-alice")


@contextlib.asynccontextmanager
async def started(**settings: Any) -> AsyncIterator[tuple[Site, App]]:
    async with site() as asked, running(**asked.settings(**settings)) as app:
        yield asked, app


# What it is asked


async def test_it_is_asked_with_what_the_request_has_and_nothing_else() -> None:
    async with started() as (asked, app):
        headers = {**ALICE, "User-Agent": "Page/1", "X-Other": "no", "Authorization": "Basic eA==", "Accept": "no"}
        async with connected(app, headers, groups="news", device="d1") as alice:
            assert alice.answer_headers["tidegate-client"] == "alice"
        (only,) = asked.asked
        assert only == {
            "headers": {
                "cookie": "session=s-alice",
                "authorization": "Basic eA==",
                "origin": ORIGIN,
                "user-agent": "Page/1",
            },
            "query": {"groups": "news", "device": "d1"},
            "address": "127.0.0.1",
        }


def test_a_cookie_is_passed_on_beside_an_origin_only() -> None:
    headers = {"cookie": "session=1", "user-agent": "x"}
    assert json.loads(question(headers, {}, ""))["headers"] == {"user-agent": "x"}
    assert json.loads(question(headers | {"origin": ORIGIN}, {}, ""))["headers"]["cookie"] == "session=1"


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "session=s-alice"},
        {"Cookie": "session=s-alice", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_without_an_origin_nobody_is_logged_in_by_a_cookie(headers: dict[str, str]) -> None:
    async with started() as (asked, app):
        assert await said(app, headers) == (401, "unauthorized")
        assert "cookie" not in asked.asked[0]["headers"]


@pytest.mark.parametrize(
    "headers",
    [
        as_page("s-alice", "https://evil.example"),
        as_page("s-alice", "http://127.0.0.1:1"),  # the same host, and another origin
        as_page("s-alice", "null"),
        {"Cookie": "session=s-alice", "Sec-Fetch-Site": "cross-site"},
        {"Cookie": "session=s-alice", "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_for_pages_of_other_origins_the_application_is_not_even_asked(headers: dict[str, str]) -> None:
    async with started() as (asked, app):
        assert await said(app, headers) == (403, "origin_not_allowed")
        assert asked.asked == []


async def test_what_is_malformed_is_refused_without_a_question() -> None:
    async with started() as (asked, app):
        assert await said(app, ALICE, cursor="?") == (400, "bad_request")
        assert await said(app, ALICE, groups="a/b") == (400, "bad_request")
        assert asked.asked == []


async def test_a_token_of_the_subprotocol_is_asked_for_as_a_header() -> None:
    async with started() as (asked, app):
        await said(app, {"Sec-WebSocket-Protocol": "tidegate.v1, bearer.abc"})
        await said(app, {"Authorization": "Bearer abc"})
        assert [one["headers"] for one in asked.asked] == [{"authorization": "Bearer abc"}] * 2
        both = {"Sec-WebSocket-Protocol": "tidegate.v1, bearer.abc", "Authorization": "Bearer abc"}
        assert await said(app, both) == (400, "bad_request")


@pytest.mark.parametrize(
    ("edges", "address"), [(["127.0.0.0/8"], "198.51.100.7"), (["10.0.0.0/8"], "127.0.0.1"), ([], "127.0.0.1")]
)
async def test_a_clients_address_is_what_its_edge_says_and_nobody_else(edges: list[str], address: str) -> None:
    async with started(SERVER__EDGES=edges) as (asked, app):
        async with connected(app, ALICE | {"X-Forwarded-For": "192.0.2.1, 198.51.100.7"}):
            assert asked.asked[0]["address"] == address


# What its answers mean


async def test_patterns_of_the_answer_are_the_clients_rights() -> None:
    async with started(GROUPS={"*": {"publish": "anyone"}}) as (asked, app):
        asked.sessions["s-alice"]["publish"] = ["chat"]
        async with connected(app, ALICE, groups="news,secret") as alice:
            left = await alice.event()
            assert (left["stream"], left["reason"]) == ("group:secret", "not_allowed")
            assert (await alice.ask(type="join", id=1, group="team.a"))["type"] == "reply"
            assert (await alice.ask(type="join", id=2, group="other"))["code"] == "not_allowed"
            assert (await alice.ask(type="publish", id=3, group="chat", data=1))["type"] == "reply"
            assert (await alice.ask(type="publish", id=4, group="news", data=1))["code"] == "not_allowed"
            assert (await alice.ask(type="refresh", id=5, token="x"))["code"] == "bad_request"


NO_ANSWERS: list[Any] = [
    500, 502, 404, 302, 204, 429, b"", b"[]", b"{", b"\xff", {}, {"client": 1}, {"client": "a/b"},
    {"client": "alice", "groups": "news"}, {"client": "alice", "groups": ["a b"]}, {"client": "alice", "publish": [1]},
    {"client": "alice", "expires": "soon"}, {"client": "alice", "filler": "x" * 70_000},
    b'{"client":"alice","\x94":0}',
]  # fmt: skip


async def test_401_and_403_refuse_and_what_is_no_answer_is_never_taken_for_a_bad_login(expected_logs: Logs) -> None:
    expected_logs.expect("auth.callback_failed")  # a line in ten seconds
    async with started() as (asked, app):
        ended = {"client": "alice", "expires": time.time() - 60}
        refusals = [(401, 401, "unauthorized"), (403, 403, "not_allowed"), (ended, 401, "unauthorized")]
        for answer, *expected in [*refusals, *((answer, 503, "auth_unavailable") for answer in NO_ANSWERS)]:
            asked.sessions["s-alice"] = answer
            refusal = await refused(app, ALICE)
            assert [refusal.status, refusal.code] == expected, answer
            assert ("retry-after" in refusal.headers) == (refusal.status == 503)
    assert "s-alice" not in str([vars(line) for line in expected_logs.records])
    assert len(expected_logs.records) == 1


async def test_an_application_that_is_not_there_is_503_at_once(expected_logs: Logs) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    async with running(AUTH__MODE="callback", AUTH__CALLBACK_URL=url, ORIGINS=[ORIGIN]) as app:
        begun_s = time.monotonic()
        assert await said(app, ALICE) == (503, "auth_unavailable")
        assert time.monotonic() - begun_s < scaled(1)
        expected_logs.expect("auth.callback_failed")


async def test_nothing_is_remembered_so_what_is_revoked_is_revoked_for_the_next_handshake() -> None:
    async with started() as (asked, app):
        async with connected(app, ALICE), connected(app, ALICE):
            assert len(asked.asked) == 2
            del asked.sessions["s-alice"]
            assert await said(app, ALICE) == (401, "unauthorized")


async def test_a_login_that_ends_ends_the_connection_as_a_token_does() -> None:
    async with started(AUTH__LEEWAY_S=0) as (asked, app):
        asked.sessions["s-alice"]["expires"] = time.time() + 1
        async with connected(app, ALICE) as alice:
            assert (await alice.event())["type"] == "expiring"
            assert await alice.ended() == 4009


# One that hangs


async def test_it_has_three_seconds_and_no_more_connections_than_are_its_own(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback, "ANSWER_S", 1.5)
    async with started(AUTH__CALLBACK_CONNECTIONS=8) as (asked, app):
        async with connected(app, ALICE) as alice:
            asked.hangs = True
            headers = [ALICE | {"X-Forwarded-For": f"192.0.2.{n}"} for n in range(20)]
            waiting = asyncio.gather(*(said(app, each) for each in headers))
            await eventually(lambda: asked.most_at_once == 6 and b"tidegate_auth_waiting 14.0" in app.metrics.text())
            # Two of eight are for looks at live connections. Who is in notices nothing.
            assert (await alice.ask(type="join", id=6, group="team.a"))["type"] == "reply"
            assert not waiting.done()
            assert set(await waiting) == {(503, "auth_unavailable")}
            expected_logs.expect("auth.callback_failed")  # one line for all
            asked.go_on()
            async with connected(app, ALICE):
                pass


async def test_one_address_whose_questions_hang_leaves_connections_to_others(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback, "ANSWER_S", 1.5)
    async with started(AUTH__CALLBACK_CONNECTIONS=8) as (asked, app):
        asked.hangs_for = "192.0.2.1"
        waiting = asyncio.gather(*(said(app, ALICE | {"X-Forwarded-For": "192.0.2.1"}) for _ in range(20)))
        await eventually(lambda: b"tidegate_auth_waiting 17.0" in app.metrics.text())
        async with connected(app, ALICE | {"X-Forwarded-For": "192.0.2.2"}):
            assert len(asked.asked) == 4
            assert not waiting.done()
        assert set(await waiting) == {(503, "auth_unavailable")}
        expected_logs.expect("auth.callback_failed")


async def test_no_more_wait_than_may(expected_logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "ANSWER_S", 1.5)
    monkeypatch.setattr(callback, "WAITING", 3)
    async with started(AUTH__CALLBACK_CONNECTIONS=4) as (asked, app):
        asked.hangs = True
        headers = [ALICE | {"X-Forwarded-For": f"192.0.2.{n}"} for n in range(6)]
        waiting = asyncio.gather(*(said(app, each) for each in headers))
        await eventually(lambda: b"tidegate_auth_waiting 3.0" in app.metrics.text())
        assert await said(app, ALICE) == (503, "auth_unavailable")
        assert not waiting.done()
        await waiting
        expected_logs.expect("auth.callback_failed")


async def test_one_address_whose_questions_hang_leaves_room_to_wait_to_others(
    expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs.expect("auth.callback_failed")
    monkeypatch.setattr(callback, "WAITING", 6)
    async with started(AUTH__CALLBACK_CONNECTIONS=4) as (asked, app):
        asked.hangs = True
        flood = asyncio.gather(*(said(app, as_page("s-eve") | {"X-Forwarded-For": "192.0.2.1"}) for _ in range(20)))
        await eventually(lambda: app.metrics.handshakes["auth_unavailable",] == 20 - 2 - 3)
        others = asyncio.gather(*(said(app, as_page("s-bob") | {"X-Forwarded-For": f"192.0.2.{n}"}) for n in (2, 3)))
        await eventually(lambda: b"tidegate_auth_waiting 4.0" in app.metrics.text())  # and one is asked
        asked.go_on()
        assert set(await others) == {(401, "unauthorized")}
        await flood


async def test_who_is_let_in_takes_a_place_then_and_who_is_refused_none() -> None:
    async with started() as (asked, app):
        entry = app.admission._next
        assert entry is not None
        asked.hangs = True
        refusal = asyncio.gather(said(app, as_page("s-nobody")))
        await eventually(lambda: asked.asked)
        asked.go_on()
        assert [*await refusal] == [(401, "unauthorized")]
        assert (app.admission.begun, entry.begun) == (1, 0)
        async with connected(app, ALICE):
            assert (app.admission.begun, entry.begun) == (2, 1)


async def test_who_leaves_while_it_is_asked_leaves_nothing_behind() -> None:
    async with started() as (asked, app):
        asked.hangs = True
        peer = Peer(app.public_port, headers=ALICE)
        connecting = asyncio.gather(peer.connect())
        await eventually(lambda: asked.asked)
        connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await connecting
        asked.go_on()
        await eventually(lambda: app.metrics.handshakes["bad_request",] == 1)
        assert app.metrics.open_connections == 0
        assert not app.hub.clients


async def test_an_edge_hears_503_and_tries_no_other_node_for_it(expected_logs: Logs) -> None:
    expected_logs.expect("auth.callback_failed")
    async with started() as (asked, app):
        app._standing.probed(float("inf"))
        asked.sessions["s-alice"] = 500
        assert await said(app, ALICE | {"X-Tidegate-Next": "404"}) == (503, "auth_unavailable")


async def test_a_node_that_takes_nobody_does_not_ask() -> None:
    async with started(LIMITS__CONNECTIONS=1) as (asked, app):
        async with connected(app, ALICE):
            assert await said(app, ALICE) == (503, "full")
            assert len(asked.asked) == 1
        app.gateway.drain()
        assert await said(app, ALICE) == (503, "draining")
        assert len(asked.asked) == 1


def test_who_came_at_once_is_not_asked_for_at_once() -> None:
    auth = AuthSettings(mode="callback", callback_url="http://127.0.0.1:1/", recheck_s=300)
    asking = Callback(auth, lambda why, outcome, seconds: None)
    now_s = time.monotonic()
    due_s = sorted(asking.next_s() - now_s for _ in range(1000))
    assert 150 <= due_s[0] < 155
    assert 295 < due_s[-1] <= 301
    assert max(sum(at <= each < at + 10 for each in due_s) for at in range(150, 300, 10)) < 120  # of 67 on average


async def test_nobody_is_asked_for_who_has_gone_before_its_turn_came() -> None:
    async with started(LIMITS__HANDSHAKES_PER_SECOND=2) as (asked, app):
        async with connected(app, ALICE):
            impatient = asyncio.ensure_future(Peer(app.public_port, headers=ALICE).connect())  # noqa: TID251 - below
            await eventually(lambda: app.admission.waiting == 1)
            impatient.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await impatient
            await eventually(lambda: app.metrics.handshakes["bad_request",] == 1)
            assert app.admission.begun == 1
            async with connected(app, ALICE):
                assert len(asked.asked) == 2
