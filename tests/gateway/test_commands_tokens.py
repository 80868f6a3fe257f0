"""What a token allows, and what happens when it ends or another one takes its place."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.peer import Peer
from tests.service_fixture import Held, running
from tests.support import eventually
from tests.tokens import SECRET, make_token
from tidegate.app import App
from tidegate.core.model import Publication

JWT = {
    "AUTH__MODE": "jwt",
    "AUTH__KEY": SECRET,
    "AUTH__LEEWAY_S": 0,
    "GROUPS": {"chat*": {"publish": "members"}, "open*": {"publish": "anyone"}, "hall": {"join": "nobody"}},
}


def token(lasts_s: float = 3600, **claims: Any) -> str:
    return make_token(exp=time.time() + lasts_s, **claims)


@contextlib.asynccontextmanager
async def connected(app: App, token: str, **query: Any) -> AsyncIterator[Peer]:
    """Past the welcome."""
    async with Peer(app.public_port, headers={"Authorization": f"Bearer {token}"}, **query) as peer:
        await peer.event()
        yield peer


async def code(peer: Peer, **command: Any) -> str:
    """The error's code, or the type of what is none."""
    answer = await peer.ask(id="?", **command)
    result: str = answer.get("code", answer["type"])
    return result


async def test_a_token_says_which_groups_may_be_joined_and_published_to() -> None:
    async with running(**JWT) as app:
        async with connected(app, token(groups=["news", "chat-*"], publish=["chat-*", "open"])) as alice:
            assert await code(alice, type="join", group="news") == "reply"
            assert await code(alice, type="join", group="newsroom") == "not_allowed"
            assert await code(alice, type="join", group="chat-1") == "reply"
            assert await code(alice, type="join", group="chat") == "not_allowed"
            assert await code(alice, type="publish", group="chat-1", data=1) == "reply"
            assert await code(alice, type="publish", group="open", data=1) == "reply"
            assert await code(alice, type="publish", group="open-2", data=1) == "not_allowed"
            assert await code(alice, type="publish", group="news", data=1) == "not_allowed", "the policy comes first"
            assert await code(alice, type="publish", group="chat-2", data=1) == "not_allowed", "not a member"


async def test_without_the_claims_nothing_may_be_joined_but_by_a_lasting_membership() -> None:
    async with running(**JWT) as app:
        await app.gateway.add_member("chat", "alice")
        async with connected(app, token()) as alice:
            assert set(alice.seen[0]["streams"]) == {"client:alice", "all", "group:chat"}
            assert await code(alice, type="join", group="news") == "not_allowed"
            assert await code(alice, type="publish", group="open", data=1) == "not_allowed"
        async with connected(app, token(groups=["*"])) as alice:
            assert await code(alice, type="join", group="hall") == "not_allowed", "the policy holds for tokens too"


async def test_groups_asked_for_at_connect_are_checked_too() -> None:
    async with running(**JWT) as app:
        async with connected(app, token(groups=["chat"]), groups="chat,news,hall", cursor="last") as alice:
            assert set(alice.seen[0]["streams"]) == {"client:alice", "all", "group:chat"}
            assert await alice.events(2) == [
                {"type": "left", "stream": "group:hall", "reason": "not_allowed"},
                {"type": "left", "stream": "group:news", "reason": "not_allowed"},
            ]
            assert app.metrics.refusals["not_allowed",] == 2
            await app.gateway.push([Publication(f"group:{group}", b"1") for group in ("news", "hall", "chat")])
            assert [event["stream"] for event in await alice.events(4)][3] == "group:chat", "after three resets"


# Refresh


async def test_a_new_token_takes_the_place_of_the_old_one() -> None:
    async with running(**JWT) as app:
        async with connected(app, token(groups=["*"], publish=["open"]), groups="news,chat,vip") as alice:
            exp = int(time.time()) + 7200
            new = make_token(exp=exp, groups=["chat", "late"], publish=["chat"])
            assert await alice.ask(type="refresh", id=1, token=new) == {"type": "reply", "id": 1, "expires": exp}
            assert await alice.events(2) == [
                {"type": "left", "stream": "group:news", "reason": "not_allowed"},
                {"type": "left", "stream": "group:vip", "reason": "not_allowed"},
            ]
            await app.gateway.push([Publication(f"group:{group}", b"1") for group in ("news", "vip", "chat")])
            assert (await alice.event())["stream"] == "group:chat"
            assert await code(alice, type="join", group="late") == "reply"
            assert await code(alice, type="join", group="news") == "not_allowed"
            assert await code(alice, type="publish", group="chat", data=1) == "reply"
            assert await code(alice, type="publish", group="open", data=1) == "not_allowed"
            assert await app.gateway.presence("news") == ([], 0)
            assert await app.gateway.presence("chat") == (["alice"], 1)


async def test_a_lasting_membership_needs_no_token_to_stay() -> None:
    async with running(**JWT) as app:
        await app.gateway.add_member("vip", "alice")
        async with connected(app, token(groups=["*"]), groups="news") as alice:
            assert (await alice.ask(type="refresh", id=1, token=token()))["type"] == "reply"
            assert await alice.event() == {"type": "left", "stream": "group:news", "reason": "not_allowed"}
            await app.gateway.push([Publication("group:vip", b"1")])
            assert (await alice.event())["stream"] == "group:vip"


@pytest.mark.parametrize(
    "bad",
    [
        lambda: token(sub="bob", groups=["chat"]),
        lambda: token(lasts_s=-60),
        lambda: token(name="another secret"),
        lambda: token()[:-3],
        lambda: "",
        lambda: "é",
        lambda: "a.b.c",
        lambda: "x" * 60_000,
    ],
    ids=["another client's", "expired", "forged", "cut", "empty", "not ASCII", "no JWT", "long"],
)
async def test_a_bad_token_is_an_error_and_changes_nothing(bad: Any) -> None:
    async with running(**JWT) as app, connected(app, token(groups=["news"]), groups="news") as alice:
        rights = app.hub.of_client("alice")[0].rights
        assert await code(alice, type="refresh", token=bad()) == "unauthorized"
        assert app.hub.of_client("alice")[0].rights is rights
        await app.gateway.push([Publication("group:news", b"1")])
        assert (await alice.event())["data"] == 1


# The end


async def test_a_connection_hears_that_its_token_ends_and_ends_with_it() -> None:
    async with (
        running(**JWT, AUTH__EXPIRING_S=0.8) as app,
        connected(app, token(lasts_s=1.5)) as alice,
    ):
        async with connected(app, token(sub="bob")) as bob:
            event = await alice.event()
            assert event == {"type": "expiring", "seconds": 1}
            assert await alice.ended() == 4009
            assert alice.close_reason == "token expired"
            assert (await bob.ask(type="ping", id=1))["type"] == "pong"
            assert len(bob.seen) == 2


async def test_a_refresh_in_time_keeps_the_connection() -> None:
    async with running(**JWT, AUTH__EXPIRING_S=0.8) as app, connected(app, token(lasts_s=1)) as alice:
        old = app.hub.of_client("alice")[0].rights
        assert (await alice.event())["type"] == "expiring"
        assert (await alice.ask(type="refresh", id=1, token=token()))["type"] == "reply"
        assert old.expires is not None
        until = old.expires + 0.6  # more than a tick of the heartbeat
        await eventually(lambda: time.time() > until)
        assert (await alice.ask(type="ping", id=2))["type"] == "pong"
        assert [event["type"] for event in alice.seen] == ["welcome", "expiring", "reply", "pong"]


async def test_the_next_token_is_announced_again_and_its_end_counts() -> None:
    async with running(**JWT) as app, connected(app, token(lasts_s=50)) as alice:
        assert (await alice.event())["type"] == "expiring"
        assert (await alice.ask(type="refresh", id=1, token=token(lasts_s=1.1)))["type"] == "reply"
        assert (await alice.event())["seconds"] <= 1
        assert await alice.ended() == 4009


QUICK = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 2, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 4}  # ticks of 0.1 s


async def test_tokens_shorter_than_the_announcement_are_announced_once_each_however_they_are_renewed() -> None:
    """A client that answers each announcement with a refresh does it at half of each token's time, not in each tick."""
    async with running(**JWT, **QUICK) as app, connected(app, token(lasts_s=1.2)) as alice:
        began_s = time.monotonic()
        renewed: list[float] = []
        while len(renewed) < 3:
            assert (await alice.event())["type"] == "expiring"
            renewed.append(time.monotonic() - began_s)
            assert (await alice.ask(type="refresh", id=1, token=token(lasts_s=1.2)))["type"] == "reply"
        assert renewed[0] < 1, "soon, with the one that it came with"
        between = [later - sooner for sooner, later in itertools.pairwise(renewed)]
        assert min(between) > 0.4, f"half of what each has left, and not {between}"


async def test_a_refresh_that_waits_for_its_turn_is_noticed_all_the_same() -> None:
    """The heartbeat looks again as long as it may come."""
    slow = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 8, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 16}  # a ping in 3 s
    async with running(**JWT, **slow) as app, connected(app, token(groups=["*"])) as alice:
        (session,) = app.hub.of_client("alice")
        subscribe = Held(app, "subscribe")
        alice.send(type="join", id=1, group="news")
        alice.send(type="refresh", id=2, token=token(lasts_s=2, groups=["*"]))
        until = time.monotonic() + 1.5 * app.heartbeat.tick_s
        await eventually(lambda: time.monotonic() > until)
        assert app.gateway.waiting(session)
        subscribe.open.set()
        assert [event["type"] for event in await alice.events(3)] == ["reply", "reply", "expiring"]
        assert await alice.ended() == 4009
