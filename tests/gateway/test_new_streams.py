"""What a client that may join and publish anywhere can begin, and that a neighbour notices nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.brokers.server import RedisServer
from tests.peer import Peer, Refusal
from tests.service_fixture import running
from tests.support import Logs, eventually
from tidegate.app import App
from tidegate.core.model import Position, Publication

ANYWHERE: dict[str, Any] = {"GROUPS": {"*": {"publish": "anyone"}}}
SLOWLY: dict[str, Any] = {
    **ANYWHERE,
    "LIMITS__NEW_STREAMS_PER_SECOND_PER_CONNECTION": 1,
    "LIMITS__GROUPS_PER_CONNECTION": 10,
}
AT_ONCE = 10


@pytest.fixture
def said(expected_logs: Logs) -> Logs:
    """A refusal is worth a line in the log."""
    expected_logs.expect("streams.refused")
    return expected_logs


async def push(app: App, *streams: str) -> None:
    results = await app.gateway.push([Publication(stream, b"1") for stream in streams])
    assert all(isinstance(result, Position) for result in results)


async def join_and_leave(peer: Peer, group: str) -> str:
    """The code of the join's answer, '' where it was good."""
    answer = await peer.ask(type="join", id=group, group=group)
    if answer["type"] == "error":
        return str(answer["code"])
    await peer.ask(type="leave", id=f"leave {group}", group=group)
    return ""


async def publish(peer: Peer, group: str) -> str:
    answer = await peer.ask(type="publish", id=group, group=group, data=1)
    return str(answer.get("code", ""))


async def test_who_joins_one_new_group_after_the_other_is_refused(said: Logs) -> None:
    async with running(**SLOWLY) as app, Peer(app.public_port, client="mallory") as mallory:
        await mallory.event()
        codes = [await join_and_leave(mallory, f"g{number}") for number in range(AT_ONCE + 5)]
        assert codes == [""] * AT_ONCE + ["too_fast"] * 5
        assert app.metrics.refusals["too_fast",] == 5
        assert app.metrics.new_streams["join",] == AT_ONCE
        await eventually(lambda: set(app.hub.audiences) == {"client:mallory", "all"})
        assert "mallory" in str(vars(said.seen("streams.refused")[0]))


async def test_who_has_used_up_its_share_goes_on_in_streams_that_there_are(said: Logs) -> None:
    async with (
        running(**SLOWLY) as app,
        Peer(app.public_port, client="mallory") as mallory,
        Peer(app.public_port, client="alice", groups="empty") as alice,
    ):
        await mallory.event()
        await alice.event()
        await push(app, "group:news")
        for number in range(AT_ONCE):
            assert await join_and_leave(mallory, f"g{number}") == ""
        assert await join_and_leave(mallory, "other") == "too_fast"
        assert await join_and_leave(mallory, "news") == ""  # it has a message
        assert await join_and_leave(mallory, "empty") == ""  # somebody is there
        assert await publish(mallory, "news") == ""
        assert await publish(mallory, "empty") == "too_fast"  # it would be kept
        assert await publish(alice, "empty") == ""  # the neighbour notices nothing
        assert await join_and_leave(alice, "own") == ""


async def test_who_publishes_into_one_new_group_after_the_other_is_refused(said: Logs) -> None:
    async with running(**SLOWLY) as app, Peer(app.public_port, client="mallory") as mallory:
        await mallory.event()
        codes = [await publish(mallory, f"g{number}") for number in range(AT_ONCE + 5)]
        assert codes == [""] * AT_ONCE + ["too_fast"] * 5
        assert app.metrics.new_streams["publish",] == AT_ONCE
        assert (await app.broker.top("group:g10")).offset == 0


@pytest.mark.parametrize(
    ("setting", "neighbour"), [("LIMITS__NEW_STREAMS_PER_CLIENT", "mallory"), ("LIMITS__NEW_STREAMS", "bob")]
)
async def test_there_is_a_most_that_is_kept_of_a_client_and_of_all(said: Logs, setting: str, neighbour: str) -> None:
    async with (
        running(**ANYWHERE, **{setting: 5}) as app,
        Peer(app.public_port, client="mallory") as one,
        Peer(app.public_port, client=neighbour) as other,
    ):
        await one.event()
        await other.event()
        assert [await publish(one, f"a{number}") for number in range(3)] == [""] * 3
        assert [await publish(other, f"b{number}") for number in range(4)] == ["", "", "too_fast", "too_fast"]
        assert await publish(one, "a3") == "too_fast"
        assert await join_and_leave(one, "c") == ""  # of which nothing is kept
        await push(app, *(f"group:app{number}" for number in range(20)))  # the application is not counted


@pytest.mark.parametrize("whose", ["CLIENT", ""])
async def test_the_rates_of_a_client_and_of_a_node_hold_over_all_connections(said: Logs, whose: str) -> None:
    settings = {"LIMITS__NEW_STREAMS_PER_SECOND" + (f"_PER_{whose}" if whose else ""): 1}
    small = {"LIMITS__GROUPS_PER_CLIENT": AT_ONCE, "LIMITS__GROUPS_PER_CONNECTION": AT_ONCE}
    async with (
        running(**settings, **small) as app,
        Peer(app.public_port, client="mallory") as one,
        Peer(app.public_port, client="mallory" if whose else "bob") as other,
    ):
        await one.event()
        await other.event()
        codes = [await join_and_leave((one, other)[number % 2], f"g{number}") for number in range(AT_ONCE + 2)]
        assert codes == [""] * AT_ONCE + ["too_fast"] * 2


async def test_a_handshake_with_too_many_new_groups_is_refused_and_its_client_may_come_back(said: Logs) -> None:
    async with running(**ANYWHERE, LIMITS__NEW_STREAMS_PER_SECOND=1) as app:
        with pytest.raises(Refusal) as refused:
            async with Peer(app.public_port, client="mallory", groups=",".join(f"g{n}" for n in range(20))):
                pass
        assert (refused.value.status, refused.value.code) == (429, "too_fast")
        assert refused.value.headers["retry-after"] == "1"
        assert app.metrics.handshakes["too_fast",] == 1
        await eventually(lambda: not app.hub.audiences)
        async with Peer(app.public_port, client="alice") as alice:
            assert (await alice.event())["type"] == "welcome"


async def test_groups_of_all_connections_of_a_client_are_bounded() -> None:
    small: dict[str, Any] = {"LIMITS__GROUPS_PER_CONNECTION": 3, "LIMITS__GROUPS_PER_CLIENT": 4}
    async with (
        running(**small) as app,
        Peer(app.public_port, client="alice", groups="a,b,c") as one,
        Peer(app.public_port, client="alice", groups="b,c,d") as other,
    ):
        await one.event()
        await other.event()
        await other.ask(type="leave", id=1, group="d")
        assert (await other.ask(type="join", id=2, group="a"))["type"] == "reply"  # the other has it already
        await other.ask(type="leave", id=3, group="a")
        assert (await other.ask(type="join", id=4, group="d"))["type"] == "reply"
        with pytest.raises(Refusal) as refused:
            async with Peer(app.public_port, client="alice", groups="e"):
                pass
        assert (refused.value.status, refused.value.code) == (400, "too_many_groups")
        async with Peer(app.public_port, client="bob", groups="e") as bob:
            assert (await bob.event())["type"] == "welcome"


async def test_a_node_that_has_as_many_groups_as_it_may_says_full(said: Logs) -> None:
    async with (
        running(LIMITS__GROUPS=3) as app,
        Peer(app.public_port, client="alice", groups="a,b") as alice,
    ):
        await alice.event()
        assert (await alice.ask(type="join", id=1, group="c"))["type"] == "reply"
        answer = await alice.ask(type="join", id=2, group="d")
        assert (answer["type"], answer["code"]) == ("error", "full")
        with pytest.raises(Refusal) as refused:
            async with Peer(app.public_port, client="bob", groups="d"):
                pass
        assert (refused.value.status, refused.value.code) == (503, "full")
        async with Peer(app.public_port, client="bob", groups="a") as bob:  # one that there is
            assert "group:a" in (await bob.event())["streams"]


async def test_lasting_memberships_are_the_applications(said: Logs) -> None:
    async with running(**SLOWLY) as app, Peer(app.public_port, client="alice") as alice:
        await alice.event()
        for number in range(AT_ONCE):
            assert await join_and_leave(alice, f"g{number}") == ""
        assert await join_and_leave(alice, "x") == "too_fast"
        await app.gateway.add_member("y", "alice")
        assert (await alice.event())["type"] == "joined"
        await alice.ask(type="leave", id=1, group="y")
        assert await join_and_leave(alice, "y") == ""


async def test_keys_in_redis_are_bounded_by_what_a_client_may_begin(said: Logs) -> None:
    with RedisServer() as server:
        async with (
            running(**SLOWLY, BROKER__KIND="redis", BROKER__URL=server.url) as app,
            Peer(app.public_port, client="mallory") as mallory,
        ):
            await mallory.event()
            before = server.command("DBSIZE")
            codes = [await publish(mallory, f"g{number}") for number in range(AT_ONCE)]
            codes += [await publish(mallory, f"more{number}") for number in range(30)]
            assert codes[:AT_ONCE] == [""] * AT_ONCE
            assert set(codes[AT_ONCE + 5 :]) == {"too_fast"}
            assert server.command("DBSIZE") - before <= 2 * (AT_ONCE + 5)
            assert await publish(mallory, "g0") == ""
