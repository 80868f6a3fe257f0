"""The HTTP API of a real node, over real sockets. ``Node.call`` checks every answer against the API's description."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.http.node import KEYED, head, node
from tests.peer import Peer
from tests.service_fixture import Down
from tests.support import Logs, eventually

# Clients


async def test_a_client_is_shown_with_its_connections_and_groups() -> None:
    async with node() as n:
        assert (await n.call("GET", "/api/clients/alice")).json == {"client": "alice", "connections": [], "groups": []}
        async with Peer(n.app.public_port, client="alice", groups="b,a") as alice:
            welcome = await alice.event()
            await n.call("PUT", "/api/groups/team/members/alice")
            await alice.until(lambda event: event["type"] == "joined")

            async def shown() -> Any:
                found = (await n.call("GET", "/api/clients/alice")).json
                return found if "team" in found["connections"][0]["groups"] else None

            found = await eventually(shown)
            (connection,) = found["connections"]
            assert (connection["connection"], connection["node"]) == (welcome["connection"], "n1")
            assert sorted(connection["groups"]) == ["a", "b", "team"]
            assert found["groups"] == ["team"]


async def test_disconnecting_closes_all_connections_of_a_client_or_the_one_that_is_named() -> None:
    async with (
        node() as n,
        Peer(n.app.public_port, client="alice") as one,
        Peer(n.app.public_port, client="alice") as two,
    ):
        first, second = (await one.event())["connection"], (await two.event())["connection"]
        answer = await n.call("DELETE", f"/api/clients/alice?connection={first}")
        assert (answer.status, answer.json) == (202, {"client": "alice", "connections": [first]})
        assert await one.ended() == 4501
        assert (await two.ask(type="ping", id=1))["type"] == "pong"
        answer = await n.call("DELETE", "/api/clients/alice?connection=other-1")
        assert answer.json["connections"] == []
        await eventually(lambda: n.app.metrics.open_connections == 1)
        answer = await n.call("DELETE", "/api/clients/alice")
        assert (answer.status, answer.json["connections"]) == (202, [second])
        assert await two.ended() == 4501


@pytest.mark.parametrize("query", ["connection=", "connection=%ff", "connection=a&connection=b", "other=1", "x"])
async def test_a_query_that_is_not_as_described_is_refused(query: str) -> None:
    async with node() as n:
        answer = await n.call("DELETE", f"/api/clients/alice?{query}")
        assert (answer.status, answer.code) == (400, "bad_request")


# Groups


async def test_a_lasting_membership_makes_connections_join_and_leave() -> None:
    async with node() as n, Peer(n.app.public_port, client="alice") as alice:
        await alice.event()
        member = {"group": "team", "client": "alice", "member": True, "changed": True}
        answer = await n.call("PUT", "/api/groups/team/members/alice")
        assert (answer.status, answer.json) == (200, member)
        assert (await alice.event())["stream"] == "group:team"
        assert (await n.call("PUT", "/api/groups/team/members/alice", {})).json == member | {"changed": False}
        answer = await n.call("DELETE", "/api/groups/team/members/alice")
        assert answer.json == member | {"member": False}
        left = await alice.event()
        assert (left["type"], left["stream"]) == ("left", "group:team")
        answer = await n.call("DELETE", "/api/groups/team/members/alice")
        assert answer.json == member | {"member": False, "changed": False}


async def test_a_client_of_too_many_groups_is_409() -> None:
    async with node(LIMITS__GROUPS_PER_CONNECTION="1") as n:
        await n.call("PUT", "/api/groups/a/members/alice")
        answer = await n.call("PUT", "/api/groups/b/members/alice")
        assert (answer.status, answer.code) == (409, "too_many_groups")


async def test_presence_names_each_client_once_and_counts_connections() -> None:
    async with node() as n:
        empty = {"group": "news", "clients": [], "connections": 0}
        assert (await n.call("GET", "/api/groups/news")).json == empty
        port = n.app.public_port
        async with Peer(port, client="b", groups="news") as b1, Peer(port, client="b", groups="news") as b2:
            async with Peer(port, client="a", groups="news") as a:
                for peer in (b1, b2, a):
                    await peer.event()
                assert (await n.call("GET", "/api/groups/news")).json == {
                    "group": "news",
                    "clients": ["a", "b"],
                    "connections": 3,
                }
        await n.call("PUT", "/api/groups/news/members/away")

        async def gone() -> bool:
            return bool((await n.call("GET", "/api/groups/news")).json == empty)

        await eventually(gone)


@pytest.mark.parametrize("body", [{"member": True}, [], 1])
async def test_a_call_that_takes_no_body_refuses_one(body: Any) -> None:
    async with node() as n:
        answer = await n.call("PUT", "/api/groups/news/members/alice", body)
        assert (answer.status, answer.code) == (400, "bad_request")
        answer = await n.call("GET", "/api/nodes", b"x", {"Content-Type": "text/plain"})
        assert answer.status == 415


# Journals


@pytest.mark.parametrize("address", ["clients/alice", "groups/news", "all"])
async def test_a_journal_is_read_page_by_page(address: str) -> None:
    async with node() as n:
        positions = [await n.push(address, number) for number in range(5)]
        page = await n.history(address, limit=2)
        stream, epoch = positions[0]["stream"], positions[0]["epoch"]
        assert {**page, "messages": []} == {
            "stream": stream,
            "epoch": epoch,
            "offset": 0,
            "top": 5,
            "messages": [],
            "more": True,
        }
        assert [(message["offset"], message["data"]) for message in page["messages"]] == [(1, 0), (2, 1)]
        page = await n.history(address, epoch=epoch, offset=2)
        assert ([message["data"] for message in page["messages"]], page["offset"], page["more"]) == (
            [2, 3, 4],
            2,
            False,
        )
        assert (await n.history(address, epoch=epoch, offset=5))["messages"] == []


@pytest.mark.parametrize("address", ["clients/alice", "groups/news", "all"])
async def test_a_limit_of_nothing_gives_the_position_that_a_page_starts_from(address: str) -> None:
    async with node(HISTORY__MESSAGES="2") as n:
        nothing = await n.history(address, limit=0)
        assert (nothing["offset"], nothing["top"], nothing["messages"], nothing["more"]) == (0, 0, [], False)
        positions = [await n.push(address, number) for number in range(3)]
        page = await n.history(address, limit=0)
        assert page == {**positions[-1], "top": 3, "messages": [], "more": False}
        await n.push(address, 3)
        assert [
            message["data"]
            for message in (await n.history(address, epoch=page["epoch"], offset=page["offset"]))["messages"]
        ] == [3]
        behind = await n.history(address, epoch=page["epoch"], offset=0, limit=0)
        assert (behind["offset"], behind["more"], behind["gap"]["to"]) == (2, True, 2), "whether it can be continued"


async def test_a_journal_names_what_it_no_longer_holds() -> None:
    async with node(HISTORY__MESSAGES="2") as n:
        positions = [await n.push("groups/news", number) for number in range(5)]
        epoch = positions[0]["epoch"]
        page = await n.history("groups/news", epoch=epoch, offset=1)
        gap = {"stream": "group:news", "epoch": epoch, "from": 2, "to": 3, "reason": "expired"}
        assert (page["gap"], page["offset"]) == (gap, 3)
        assert [message["data"] for message in page["messages"]] == [3, 4]
        page = await n.history("groups/news", epoch="other", offset=4)
        assert (page["gap"]["reason"], page["gap"]["epoch"]) == ("reset", epoch)
        assert "gap" not in await n.history("groups/news")


async def test_a_journal_shows_who_published() -> None:
    policy = json.dumps({"chat": {"publish": "members"}})
    async with node(GROUPS=policy) as n, Peer(n.app.public_port, client="bob", groups="chat") as bob:
        await bob.ask(type="publish", id=1, group="chat", data="hi")
        (message,) = (await n.history("groups/chat"))["messages"]
        assert (message["client"], message["data"]) == ("bob", "hi")


async def test_an_answer_is_cut_where_it_would_be_too_long() -> None:
    async with node(LIMITS__ANSWER_BYTES="20000", LIMITS__DATA_BYTES="3000") as n:
        await n.call("POST", "/api/push", {"pushes": [{"all": True, "data": number} for number in range(1000)]})
        answer = await n.call("GET", "/api/all/history?limit=1000")
        assert 15_000 < len(answer.body) <= 20_000
        count = len(answer.json["messages"])
        assert (answer.json["more"], answer.json["messages"][-1]["offset"]) == (True, count)
        rest = await n.history("all", epoch=answer.json["epoch"], offset=count)
        assert rest["messages"][0]["offset"] == count + 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "limit=9999999999999999999999",
        "epoch=a",
        "offset=1",
        "epoch=a&offset=-1",
        "epoch=a&offset=x",
        "epoch=a&offset=%D9%A3",
        "epoch=a&offset=9007199254740993",
        "epoch=a%20b&offset=1",
        "epoch=%ff&offset=1",
        "since=1",
        "limit=1&%ff=1",
    ],
)
async def test_a_position_or_limit_that_is_none_is_refused(query: str) -> None:
    async with node() as n:
        answer = await n.call("GET", f"/api/groups/news/history?{query}")
        assert (answer.status, answer.code) == (400, "bad_request")


# Operations


async def test_the_nodes_are_listed() -> None:
    async with node() as n:
        (shown,) = (await n.call("GET", "/api/nodes")).json["nodes"]
        assert (shown["node"], shown["draining"]) == ("n1", False)


async def test_a_node_is_ready_while_its_broker_is_and_until_it_drains(expected_logs: Logs) -> None:
    async with node() as n:
        answer = await n.call("GET", "/readyz")
        assert (answer.status, answer.json["status"]) == (200, "ready")
        assert "reason" not in answer.json
        canary = Down(n.app, "canary")
        expected_logs.expect("broker.lost")
        await n.app.readiness.probe()
        answer = await n.call("GET", "/readyz")
        assert answer.status == 503
        assert answer.json == {
            "status": "not_ready",
            "code": "broker_down",
            "reason": "no answer",
            "for_s": answer.json["for_s"],
            "lag_ms": None,
        }
        canary.up()
        await n.app.readiness.probe()
        assert (await n.call("GET", "/readyz")).status == 200
        n.app.gateway.draining = True
        answer = await n.call("GET", "/readyz")
        assert (answer.status, answer.json["code"], answer.json["lag_ms"]) == (503, "draining", None)
        assert (await n.call("GET", "/healthz")).json == {"status": "alive"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/api/nodes"])
async def test_head_works_where_get_does(path: str) -> None:
    async with node() as n, n.connection() as link:
        for _ in range(2):
            answer = await link.ask(head("HEAD", path, {"Host": n.host}))
            assert (answer.status, answer.body) == (200, b"")
            assert int(answer.headers["content-length"]) > 0


async def test_metrics_count_pushes_and_refusals() -> None:
    async with node() as n:
        await n.push("all", 1)
        await n.call("POST", "/api/push", {"pushes": [{"data": 1}]})
        await n.call("POST", "/api/all/push", {"data": "x" * 65536})
        answer = await n.call("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        lines = answer.body.decode().splitlines()
        assert 'tidegate_pushes_total{kind="all",result="accepted"} 1.0' in lines
        assert 'tidegate_refusals_total{code="bad_request"} 1.0' in lines
        assert 'tidegate_refusals_total{code="too_large"} 1.0' in lines


# The console


async def test_the_console_comes_with_its_types_and_a_policy() -> None:
    async with node(**KEYED) as n:
        for path, kind in (
            ("/", "html"),
            ("/index.html", "html"),
            ("/console.js", "javascript"),
            ("/console.css", "css"),
        ):
            answer = await n.call("GET", path)
            assert answer.status == 200
            assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == (
                "no-cache",
                "nosniff",
            )
            again = await n.call("GET", path, headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status, again.body) == (304, b"")
        answer = await n.call("GET", "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
        assert answer.status == 200


async def test_the_console_learns_where_the_websocket_is_and_whether_a_key_is_needed() -> None:
    for environ in ({}, KEYED):
        async with node(**environ) as n:
            shown = (await n.call("GET", "/console.json")).json
            assert shown["ws"] == {"port": n.app.public_port, "path": "/ws-notifications/"}
            assert (shown["node"], shown["edge"]["port"]) == ("n1", 8080)
            assert (shown["auth"], shown["key_required"]) == ("none", bool(environ))


@pytest.mark.parametrize("path", ["/../config.py", "/%2e%2e/config.py", "/console/console.js", "/.git", "/logo.svg/"])
async def test_nothing_else_is_served(path: str) -> None:
    async with node() as n:
        answer = await n.call("GET", path)
        assert (answer.status, answer.code) == (404, "not_found")


# Rejected pushes


async def test_without_redis_there_are_no_rejected_pushes_and_limits_are_as_for_history() -> None:
    async with node() as n:
        assert (await n.call("GET", "/api/rejected")).json == {"rejected": []}
        for path in ("rejected", "all/history"):
            assert (await n.call("GET", f"/api/{path}?limit=1001")).code == "bad_request"


# Requests that fit nowhere


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/api/all/push", "POST"),
        ("POST", "/api/clients/alice", "GET, DELETE, HEAD"),
        ("PATCH", "/api/groups/news/members/alice", "PUT, DELETE"),
        ("TRACE", "/api/nodes", "GET, HEAD"),
        ("BREW", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allow: str) -> None:
    async with node() as n:
        answer = await n.call(method, path)
        assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", allow)


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/", "/api/clients/", "/api/all/push/", "//api/nodes", "*"])
async def test_an_unknown_path_is_404_for_every_method(path: str) -> None:
    async with node() as n:
        for method in ("GET", "POST", "BREW"):
            answer = await n.call(method, path)
            assert (answer.status, answer.code) == (404, "not_found")


async def test_answers_do_not_say_what_serves_them() -> None:
    async with node() as n:
        for path in ("/healthz", "/", "/nowhere", "/api/all/history"):
            assert "server" not in (await n.call("GET", path)).headers
