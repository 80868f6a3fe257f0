"""Live connections whose application is asked again: who is revoked is out in time, and who is not notices nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.handshakes import connected
from tests.login import Site, as_page, site
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled
from tidegate.auth import callback
from tidegate.gateway import rechecks

ALICE, BOB = as_page("s-alice"), as_page("s-bob")
RECHECK_S = 0.4


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come ten times as often as a node makes them."""
    monkeypatch.setattr("tidegate.app.LOOK_S", rechecks.LOOK_S / 10)


def settings(asked: Site, **more: Any) -> dict[str, Any]:
    asked.sessions["s-bob"] = {"client": "bob", "groups": ["*"]}
    return asked.settings(AUTH__RECHECK_S=RECHECK_S, **more)


@pytest.mark.parametrize("answer", [401, 403, {"client": "mallory"}])
async def test_who_is_revoked_is_out_within_recheck_s_and_a_look_and_nobody_else(answer: Any) -> None:
    async with site() as asked, running(**settings(asked)) as app:
        async with connected(app, ALICE) as one, connected(app, ALICE) as two, connected(app, BOB) as bob:
            asked.sessions["s-alice"] = answer
            begun_s = time.monotonic()
            assert [await one.ended(), await two.ended()] == [4009, 4009]
            assert time.monotonic() - begun_s < scaled(RECHECK_S + 4)  # what docs/protocol.md says
            assert (await bob.ask(type="ping", id=1))["type"] == "pong"


async def test_the_same_question_is_asked_and_a_good_answer_changes_nothing() -> None:
    async with site() as asked, running(**settings(asked)) as app:
        async with connected(app, ALICE, groups="news", device="d") as alice:
            await eventually(lambda: len(asked.asked) >= 3, 8)
            assert asked.asked[1:] == asked.asked[:1] * (len(asked.asked) - 1)
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
            assert [event["type"] for event in alice.seen] == ["welcome", "pong"]


async def test_new_patterns_are_taken_and_groups_that_they_do_not_cover_are_left() -> None:
    async with site() as asked, running(**settings(asked)) as app:
        async with connected(app, ALICE, groups="news,team.a") as alice:
            asked.sessions["s-alice"] = {"client": "alice", "groups": ["news", "extra"]}
            left = await alice.event()
            assert (left["type"], left["stream"], left["reason"]) == ("left", "group:team.a", "not_allowed")
            assert (await alice.ask(type="join", id=1, group="extra"))["type"] == "reply"
            assert (await alice.ask(type="join", id=2, group="team.a"))["code"] == "not_allowed"


async def test_an_earlier_end_that_a_later_answer_says_is_kept() -> None:
    async with site() as asked, running(**settings(asked, AUTH__LEEWAY_S=0)) as app:
        async with connected(app, ALICE) as alice:
            asked.sessions["s-alice"] = {"client": "alice", "expires": time.time() + 1.5}
            await eventually(lambda: len(asked.asked) >= 2)
            asked.sessions["s-alice"] = {"client": "alice", "expires": time.time() + 0.3}
            assert await alice.ended(8) == 4009


@pytest.mark.parametrize("how", ["hangs", "500"])
async def test_a_slow_or_broken_application_ends_nobody_and_is_asked_again(
    how: str, expected_logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback, "ANSWER_S", 0.3)
    monkeypatch.setattr(rechecks, "AGAIN_S", 0.4)
    expected_logs.expect("auth.callback_failed")
    async with site() as asked, running(**settings(asked)) as app:
        async with connected(app, ALICE) as alice:
            asked.hangs = how == "hangs"
            asked.sessions["s-alice"] = 500
            await eventually(lambda: len(asked.asked) >= 3, 8)
            assert (await alice.ask(type="ping", id=1))["type"] == "pong"
            del asked.sessions["s-alice"]
            asked.go_on()
            assert await alice.ended(8) == 4009


async def test_only_a_few_are_asked_for_at_a_time_and_handshakes_do_not_wait_for_them() -> None:
    async with site() as asked, running(**settings(asked, AUTH__CALLBACK_CONNECTIONS=8)) as app:
        peers = [connected(app, ALICE) for _ in range(12)]
        async with asyncio.TaskGroup() as group:
            for peer in peers:
                group.create_task(peer.__aenter__())
        asked.hangs, asked.most_at_once = True, 0
        await eventually(lambda: b"tidegate_auth_overdue 10.0" in app.metrics.text() and asked.most_at_once == 2, 8)
        asked.hangs = False  # for who comes now
        async with connected(app, BOB):
            assert b"tidegate_auth_overdue 10.0" in app.metrics.text()  # none of them has been answered yet
        asked.go_on()
        for peer in peers:
            await peer.__aexit__(None, None, None)


async def test_zero_never_asks_again() -> None:
    async with site() as asked, running(**settings(asked) | {"AUTH__RECHECK_S": 0}) as app:
        async with connected(app, ALICE):
            (session,) = app.hub.sessions()
            assert session.rights.due_s == float("inf")  # type: ignore[attr-defined]
