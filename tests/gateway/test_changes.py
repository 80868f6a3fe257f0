"""What happens to a connection without its asking takes effect at once, however slowly its client reads and whatever
its commands wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.gateway.test_last import push
from tests.gateway.test_slow import KIB, flood, session
from tests.peer import Peer
from tests.service_fixture import Held, running
from tests.support import eventually
from tidegate.app import App
from tidegate.auth.grants import Grant
from tidegate.config.settings import GroupPolicy
from tidegate.gateway.changes import NewRights

POLICIES = {"news": {"presence": "members"}}
# By an order, by what the application says of a login, by what groups allow from now on.
Take = Callable[[App], Awaitable[object]]
TAKES: dict[str, Take] = {
    "removed": lambda app: app.gateway.remove_member("news", "alice"),
    "not_allowed": lambda app: _new_rights(app),
    "by new policies": lambda app: app.policies.take({"news": GroupPolicy(join="nobody")}),
}


async def _new_rights(app: App) -> None:
    app.gateway.change(session(app, "alice"), NewRights(Grant("alice", ("other",), (), None)))


@asynccontextmanager
async def stopped(app: App) -> AsyncIterator[Peer]:
    """Alice, who reads nothing for now: as much waits for her as it takes for no command to have its turn."""
    async with Peer(app.public_port, client="alice", groups="news", rcvbuf=64 * KIB) as alice:
        await alice.event()
        alice.reading.clear()
        wire = session(app, "alice").wire
        while wire.size + app.config.limits.answer_bytes <= wire.limit:
            await flood(app, "client:alice", 1, 60 * KIB)
        yield alice


async def rest(alice: Peer, app: App) -> list[dict[str, Any]]:
    """What she was told since, but for the flood, when she reads on."""
    await push(app, 1, 1, "all")
    alice.reading.set()
    await alice.until(lambda event: event.get("stream") == "all", 20)
    return [event for event in alice.seen[1:-1] if event.get("stream") != "client:alice"]


@pytest.mark.parametrize("how", TAKES)
async def test_what_is_taken_from_a_client_that_reads_slowly_is_taken_at_once(how: str) -> None:
    async with running() as app, stopped(app) as alice:
        await TAKES[how](app)
        await push(app, 1, 3, "group:news")
        await eventually(lambda: _present(app))
        (left,) = await rest(alice, app)
        assert (left["type"], left["stream"]) == ("left", "group:news")


async def _present(app: App) -> bool:
    """Whether the others see that nobody is in the group."""
    return await app.gateway.presence("news") == ([], 0)


async def test_who_reads_slowly_is_a_member_at_once() -> None:
    async with running() as app, stopped(app) as alice:
        alice.send(type="leave", id=1, group="news")  # which waits
        await app.gateway.add_member("late", "alice")
        await eventually(lambda: "group:late" in app.hub.audiences)
        await push(app, 1, 2, "group:late")
        told = [event for event in await rest(alice, app) if event.get("stream") == "group:late"]
        assert [event["type"] for event in told] == ["joined", "message", "message"]


@pytest.mark.parametrize("how", TAKES)
@pytest.mark.parametrize("command", ["history", "presence", "join"])
async def test_a_command_that_waits_for_room_is_answered_as_things_are_then(command: str, how: str) -> None:
    async with running(GROUPS=POLICIES) as app:
        async with Peer(app.public_port, client="alice", groups="news", rcvbuf=64 * KIB) as alice:
            epoch = (await alice.event())["streams"]["group:news"]["epoch"]
            await push(app, 1, 1, "group:news")
            await alice.event()
            alice.reading.clear()
            while session(app, "alice").wire.has_room:
                await flood(app, "client:alice", 1, 60 * KIB)
            position = {"epoch": epoch, "offset": 0} if command == "join" else {}
            alice.send(type=command, id=1, group="news", **position)
            await eventually(lambda: app.gateway.waiting(session(app, "alice")) == 0)
            await TAKES[how](app)
            await push(app, 2, 4, "group:news")
            told = await rest(alice, app)
            answer = await alice.until(lambda event: event.get("id") == 1)
            told = [event for event in told if event.get("stream") == "group:news" and event["type"] != "reply"]
            if command == "join" and how == "removed":  # the group is open to anyone: it is joined anew
                assert answer["type"] == "reply"
                await eventually(lambda: not session(app, "alice").tracks)
                assert alice.seen.index(answer) > next(n for n, e in enumerate(alice.seen) if e["type"] == "left")
            else:
                assert (answer["type"], answer["code"]) == ("error", "not_allowed")
                assert [event["type"] for event in told] == ["message", "left"]
                assert session(app, "alice").group_count == 0


async def test_a_membership_that_ends_while_it_is_made_leaves_nothing() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        held = Held(app, "subscribe")
        await app.gateway.add_member("late", "alice")
        await eventually(lambda: held.waiting)
        await app.gateway.remove_member("late", "alice")
        held.open.set()
        await eventually(lambda: "group:late" not in app.hub.audiences)
        assert [event["type"] for event in await rest(alice, app)] == []
        assert not list(session(app, "alice").groups)


async def test_a_group_that_is_joined_while_the_application_makes_the_client_a_member_is_told_once() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        held = Held(app, "subscribe")
        alice.send(type="join", id=1, group="late")
        await eventually(lambda: held.waiting)
        await app.gateway.add_member("late", "alice")
        await app.gateway.remove_member("late", "alice")
        await app.gateway.add_member("late", "alice")
        held.open.set()
        assert (await alice.event())["type"] == "reply"
        await push(app, 1, 1, "group:late")
        assert [event["type"] for event in await rest(alice, app)] == ["reply", "message"]
        assert await app.gateway.presence("late") == (["alice"], 1)


async def test_a_join_under_way_is_refused_when_new_rights_do_not_cover_it() -> None:
    async with running() as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        held = Held(app, "subscribe")
        alice.send(type="join", id=1, group="news")
        await eventually(lambda: held.waiting)
        await _new_rights(app)
        held.open.set()
        assert (await alice.event())["code"] == "not_allowed"
        assert not list(session(app, "alice").groups)
        await eventually(lambda: "group:news" not in app.hub.audiences)
        assert await app.gateway.presence("news") == ([], 0)


async def test_what_happens_before_the_welcome_is_told_behind_it() -> None:
    async with running() as app:
        held = Held(app, "memberships")
        alice = Peer(app.public_port, client="alice", groups="news")
        connecting = app.tasks.spawn(alice.connect(), "connect")
        await eventually(lambda: held.waiting)
        for _ in range(2):
            await app.gateway.add_member("news", "alice")
            await app.gateway.remove_member("news", "alice")
        held.open.set()
        await connecting
        assert [event["type"] for event in await alice.events(2)] == ["welcome", "left"]
        await alice.cut()


@pytest.mark.parametrize("how", TAKES)
@pytest.mark.parametrize("groups", ["", "news"])
async def test_what_is_taken_while_a_join_reads_its_page_is_not_had_by_it(groups: str, how: str) -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups=groups) as alice:
        await alice.event()
        await push(app, 1, 2, "group:news")
        (await alice.events(2)) if groups else None
        epoch = (await app.broker.top("group:news")).epoch
        held = Held(app, "history")
        alice.send(type="join", id=1, group="news", epoch=epoch, offset=1)
        await eventually(lambda: held.waiting)
        await TAKES[how](app)
        held.open.set()
        await alice.until(lambda event: event.get("id") == 1)
        told = [event["type"] for event in alice.seen[1:] if "data" not in event]
        await push(app, 3, 3, "group:news")
        await push(app, 1, 1, "all")
        await alice.until(lambda event: event["stream"] == "all")
        behind = alice.seen[alice.seen.index(next(event for event in alice.seen if event.get("id") == 1)) + 1 : -1]
        left = ["left"] if groups else []
        if how == "removed":  # it is open to anyone, so the join counts
            assert told == [*left, "reply"]
            assert [event["data"] for event in behind] == [2, 3]
            assert await app.gateway.presence("news") == (["alice"], 1)
        else:
            assert (told, behind) == ([*left, "error"], [])
            await eventually(lambda: _present(app))


async def test_a_page_that_cannot_be_read_for_who_was_removed_meanwhile_is_no_fault() -> None:
    async with running() as app, Peer(app.public_port, client="alice", groups="news") as alice:
        await alice.event()
        await push(app, 1, 1, "group:news")
        epoch = (await alice.event())["epoch"]
        held = Held(app, "history")
        alice.send(type="join", id=1, group="news", epoch=epoch, offset=0)
        await eventually(lambda: held.waiting)
        await app.gateway.remove_member("news", "alice")
        held.fails = True
        held.open.set()
        assert [event["type"] for event in await alice.events(2)] == ["left", "error"]
        assert (await alice.ask(type="ping", id=2))["type"] == "pong"
