"""The part of the API that looks back. What it says of messages, ``tests/cli/test_trace.py`` has."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from tests.brokers.server import RedisServer
from tests.cli.test_trace import later
from tests.http.node import BEARER, KEY, KEYED, node
from tests.peer import Peer, Refusal
from tests.service_fixture import Down
from tests.support import ROOT
from tidegate.core.model import Position, encode_cursor
from tidegate.gateway.verdicts import Code


async def test_a_client_is_followed_and_says_where_it_stands() -> None:
    async with node() as n, Peer(n.app.public_port, client="alice", groups="news", cursor="last") as alice:
        await n.push("groups/news", 1)
        await alice.until(lambda event: event["type"] == "message")
        found = (await n.call("GET", "/api/trace?client=alice")).json
        (connection,) = found["connections"]
        assert (connection["connection"], connection["node"]) == ("n1-1", "n1")
        at = connection["positions"]["group:news"]
        assert (at["offset"], at["state"], at["confirmed"]) == (1, "live", 0)
        assert [step["kind"] for step in found["steps"] if step["kind"] != "gap"] == ["connected"]
        assert [(each["node"], each["answered"]) for each in found["nodes"]] == [("n1", True)]


@pytest.mark.parametrize(
    ("page", "heading"),
    [("operations", "## A message that did not arrive\n"), ("runbook", "## A message did not arrive\n")],
)
def test_each_verdict_is_in_the_tables_for_operators(page: str, heading: str) -> None:
    section = (
        (ROOT / "docs" / f"{page}.md").read_text().partition(heading)[2].partition("\n## ")[0].partition("\n### ")[0]
    )
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    assert sorted(code for row in rows for code in re.findall(r"`([a-z_]+)`", row[1])) == sorted(get_args(Code))


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "trace: of a client"),
        ("?stream=news", "stream: client:ID"),
        ("?client=a%20b", "client"),
        ("?stream=all&offset=-1", "offset"),
        ("?stream=all&epoch=e1", "epoch"),
        ("?stream=all&epoch=%20&offset=1", "epoch"),
        ("?client=a&offset=1", "epoch, offset"),
        ("?stream=client:a&client=b", "client: only a hears client:a"),
        ("?client=a&limit=0", "limit"),
        ("?client=a&limit=1001", "limit"),
        ("?client=a&what=1", "unknown query key"),
    ],
)
async def test_what_is_malformed_is_named(query: str, named: str) -> None:
    async with node() as n:
        answer = await n.call("GET", f"/api/trace{query}")
        assert (answer.status, answer.code) == (400, "bad_request")
        assert answer.json["error"]["message"].startswith(named)


async def test_refused_handshakes_are_listed_newest_first() -> None:
    async with node() as n:
        for query in ("client=alice&groups=a/b", "client=a/b"):
            with pytest.raises(Refusal):
                await Peer(n.app.public_port, raw_query=query).connect()
        found = (await n.call("GET", "/api/refusals?limit=5")).json["refusals"]
        assert [(each["client"], each["claimed"], each["status"]) for each in found] == [
            (None, False, 400),
            ("alice", True, 400),
        ]
        assert {each["address"] for each in found} == {"127.0.0.1"}
        assert len((await n.call("GET", "/api/refusals?limit=1")).json["refusals"]) == 1


async def test_it_needs_a_key_that_reads_and_is_for_all_groups() -> None:
    keys = [KEY, {"name": "team", "key": "a-key-of-a-team-for-this-test", "may": ["read"], "groups": ["team.*"]}]
    async with node(**(KEYED | {"INTERNAL__API_KEYS": json.dumps(keys)})) as n:
        team = {"Authorization": "Bearer a-key-of-a-team-for-this-test"}
        for path in ("/api/trace?stream=group:team.a", "/api/refusals"):
            assert (await n.call("GET", path)).status == 401
            assert (await n.call("GET", path, headers=team)).status == 403
            assert (await n.call("GET", path, headers=BEARER)).status == 200


async def test_without_its_broker_the_node_answers_alone() -> None:
    async with node() as n, Peer(n.app.public_port, client="alice", groups="news") as alice:
        position = await n.push("groups/news", 1)
        await alice.until(lambda event: event["type"] == "message")
        down = [Down(n.app, name) for name in ("ask", "top", "connections")]
        query = f"stream=group:news&epoch={position['epoch']}&offset=1"
        found = (await n.call("GET", f"/api/trace?{query}&client=alice")).json
        assert found["journal"]["state"] == "unknown"
        assert [verdict["code"] for verdict in found["verdicts"]] == ["broker_unknown", "delivered"]
        for query in ("", "&offset=1"):
            found = (await n.call("GET", f"/api/trace?stream=group:news{query}")).json
            assert (found["epoch"], found["offset"]) == (position["epoch"], 1), "as the node itself knows it"
            assert [verdict["code"] for verdict in found["verdicts"]] == ["broker_unknown", "delivered"]
        found = (await n.call("GET", "/api/trace?stream=group:other&offset=1")).json
        assert [verdict["code"] for verdict in found["verdicts"]] == ["broker_unknown"]
        for each in down:
            each.up()
        found = (await n.call("GET", "/api/trace?stream=group:other")).json
        assert found["verdicts"][0]["words"].startswith("group:other has none: what was pushed was not journalled")


async def test_what_a_newer_node_says_is_taken_as_far_as_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node() as n, Peer(n.app.public_port, client="alice", groups="news") as alice:
        await n.push("groups/news", 1)
        await alice.until(lambda event: event["type"] == "message")
        newer = {
            "node": "n2",
            "since_ms": 0,
            "novel": 1,
            "counts": {"vanished": 1},
            "deliveries": [{"client": "bob", "connection": "n2-1", "state": "vanished"}],
            "steps": [{"time_ms": 1, "kind": "vanished", "client": "bob", "connection": "n2-1"}],
        }

        async def ask(question: bytes) -> dict[str, bytes | None]:
            return {"n2": json.dumps(newer).encode(), "n3": b"{", "n4": None}

        monkeypatch.setattr(n.app.broker, "ask", ask)
        found = (await n.call("GET", "/api/trace?stream=group:news&offset=1")).json
        assert [verdict["code"] for verdict in found["verdicts"]] == ["no_answer", "no_answer", "too_old", "delivered"]
        assert (await n.call("GET", "/api/trace?client=bob")).status == 200


async def test_what_was_before_a_node_began_is_not_said_to_have_had_no_followers() -> None:
    """As behind each rolling upgrade: who followed, and who was connected, has gone with the nodes."""
    with RedisServer() as redis:
        settings = {"BROKER__KIND": "redis", "BROKER__URL": redis.url}
        async with node(**settings) as n, Peer(n.app.public_port, client="alice", groups="news") as alice:
            await n.push("groups/news", 1)
            await alice.until(lambda event: event["type"] == "message")
        await later()
        async with node(**settings) as n:
            for query in ("", "&client=alice"):
                found = (await n.call("GET", f"/api/trace?stream=group:news&offset=1{query}")).json
                (verdict,) = found["verdicts"]
                assert verdict["code"] == "too_old"
                assert "is not known any more (nothing is remembered of before " in verdict["words"]
            async with Peer(n.app.public_port, client="alice"):
                found = (await n.call("GET", "/api/trace?stream=group:news&offset=1&client=alice")).json
                assert [verdict["code"] for verdict in found["verdicts"]] == ["too_old"]


async def test_the_span_that_pushed_a_message_is_shown() -> None:
    span = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with node() as n:
        await n.push("groups/news", 1, traceparent=span)
        await n.push("groups/news", 2)
        found = [(await n.call("GET", f"/api/trace?stream=group:news&offset={offset}")).json for offset in (1, 2)]
        assert found[0]["journal"]["traceparent"] == span
        assert "traceparent" not in found[1]["journal"]


async def test_another_epoch_is_a_reset_and_a_replay_is_named_one() -> None:
    async with node() as n:
        position = await n.push("clients/alice", 1)
        found = (await n.call("GET", "/api/trace?stream=client:alice&epoch=other&offset=1")).json
        assert (found["journal"]["state"], found["verdicts"][0]["code"]) == ("reset", "reset")
        await later()
        cursor = encode_cursor({"client:alice": Position(position["epoch"], 0)})
        assert cursor is not None
        async with Peer(n.app.public_port, client="alice", cursor=cursor) as alice:
            await alice.until(lambda event: event["type"] == "message")
            found = (await n.call("GET", "/api/trace?stream=client:alice&offset=1")).json
            assert [(each["state"], each["replayed"]) for each in found["connections"]] == [("written", True)]
