"""The HTTP API of a real node, over real sockets. ``Node.call`` checks every answer against the API's description."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from service import config, errors, http_api, openapi
from service.errors import BrokerDown, NotTried, Refused
from service.model import Position, Publication
from tests.http_node import JSON, Answer, Node, head, node
from tests.peer import Peer
from tests.schema import faults, resolve
from tests.service_fixture import running
from tests.support import Logs, eventually, scaled

KEY = "a-key-for-the-api-made-for-this-test"
KEYED = {"INTERNAL__API_KEYS": json.dumps([KEY])}
PAGE = "https://app.example.org"  # whose pages may call the API
BEARER = {"Authorization": f"Bearer {KEY}"}


# Pushes


@pytest.mark.parametrize(
    ("address", "stream"), [("clients/alice", "client:alice"), ("groups/news", "group:news"), ("all", "all")]
)
async def test_a_push_is_answered_by_its_position(address: str, stream: str) -> None:
    async with node() as n:
        first = await n.push(address, {"n": 1})
        assert first == {"stream": stream, "epoch": first["epoch"], "offset": 1}
        assert await n.push(address, {"n": 2}) == {**first, "offset": 2}


async def test_a_push_reaches_who_follows_the_stream() -> None:
    async with node() as n, Peer(n.app.public_port, client="alice", groups="news") as alice:
        await alice.event()
        for address in ("clients/alice", "groups/news", "all"):
            position = await n.push(address, address)
            event = await alice.event()
            del event["time"]
            assert event == {"type": "message", **position, "data": address}


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"0",
        b'""',
        b"[ 1 ,\t2\r\n]",
        b'{"a":1e400,"a":-0.0}',
        b"123456789012345678901234567890.50",
        '{"é": "\\u00e9\\/ €"}'.encode(),
    ],
)
async def test_data_comes_through_byte_for_byte(data: bytes) -> None:
    async with node() as n:
        assert (await n.call("POST", "/api/all/push", b'{ "data" : %b }' % data)).status == 202
        answer = await n.call("GET", "/api/all/history")
        assert b'"data":%b}]' % data in answer.body


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_request"),
        (b"nonsense", 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b"{}", 400, "bad_request"),
        (b'{"data":}', 400, "bad_request"),
        (b'{"data":NaN}', 400, "bad_request"),
        (b'{"data":1} x', 400, "bad_request"),
        (b'{"data":1,"key":"k"}', 400, "bad_request"),
        (b'{"data":"\xff"}', 400, "bad_request"),
        (b'\xef\xbb\xbf{"data":1}', 400, "bad_request"),
        (b'{"data":' + b"[" * 64 + b"]" * 64 + b"}", 400, "too_deep"),
        (b'{"data":' + b"[" * 400_000 + b"}", 400, "too_deep"),
        (b'{"data":"' + b"x" * 65535 + b'"}', 413, "too_large"),
        (b'{"data":"' + b"x" * 1_100_000 + b'"}', 413, "too_large"),
    ],
)
async def test_a_body_that_is_not_a_push_is_refused(body: bytes, status: int, code: str) -> None:
    async with node() as n:
        answer = await n.call("POST", "/api/clients/alice/push", body)
        assert (answer.status, answer.code) == (status, code)
        assert (await n.history("clients/alice"))["top"] == 0


async def test_the_limits_themselves_are_allowed() -> None:
    async with node() as n:
        await n.push("all", "x" * 65534)
        assert (await n.call("POST", "/api/all/push", b'{"data":' + b"[" * 63 + b"]" * 63 + b"}")).status == 202


async def test_no_body_however_broken_makes_the_service_fail() -> None:
    chance = random.Random(7)
    seeds = [
        b'{"data":{"a":[1,2.5e3,"x\\n"],"b":null}}',
        b'{"pushes":[{"client":"a","data":1},{"all":true,"data":{}}]}',
    ]
    async with node() as n, n.connection() as link:
        for number in range(300):
            body = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 4)):
                body[chance.randrange(len(body))] = chance.choice([*b'{}[]":,0-\\', chance.randrange(256)])
            headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": str(len(body))}
            target = ("/api/all/push", "/api/push")[number % 2]
            answer = await link.ask(head("POST", target, headers) + body)
            assert answer.status in (200, 202, 400), (answer, bytes(body))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a%2Fb", "a%20b", "%", "%zz", "%ff", "%00", "é", "x" * 129, "a:b", "*"]
)
async def test_a_name_that_is_no_id_is_refused(name: str) -> None:
    async with node() as n:
        answer = await n.call("POST", f"/api/clients/{name}/push".encode().decode("latin-1"), {"data": 1})
        assert answer.status == (400 if name else 404)
        assert answer.code == ("bad_request" if name else "not_found")


async def test_a_name_may_be_percent_encoded() -> None:
    async with node() as n:
        assert (await n.push("clients/alice%40example.org", 1))["stream"] == "client:alice@example.org"


# Idempotency


async def test_a_repeated_key_returns_the_first_position_in_its_stream_only() -> None:
    async with node() as n:
        first = await n.push("clients/alice", {"n": 1}, Idempotency_Key="k")
        await n.push("clients/alice", {"n": 2})
        assert await n.push("clients/alice", {"n": 1}, Idempotency_Key="k") == first
        assert (await n.push("clients/bob", {"n": 1}, Idempotency_Key="k"))["stream"] == "client:bob"
        answer = await n.call("POST", "/api/clients/alice/push", {"data": 3}, {"Idempotency-Key": "k"})
        assert (answer.status, answer.code) == (409, "key_reused")


async def test_a_key_means_the_same_in_a_header_and_in_a_batch() -> None:
    key = "schlüssel"
    async with node() as n:
        first = await n.push("all", 1, Idempotency_Key=key.encode().decode("latin-1"))
        answer = await n.call("POST", "/api/push", {"pushes": [{"all": True, "data": 1, "key": key}]})
        assert answer.json["results"] == [first]


@pytest.mark.parametrize("key", ["", "x" * 129, "\xff"])
async def test_a_key_that_is_none_is_refused(key: str) -> None:
    async with node() as n:
        answer = await n.call("POST", "/api/all/push", {"data": 1}, {"Idempotency-Key": key})
        assert (answer.status, answer.code) == (400, "bad_request")
        await n.push("all", 1, Idempotency_Key="x" * 128)


# Batches


async def test_a_batch_is_answered_in_order_and_what_is_wrong_with_one_does_not_stop_the_others() -> None:
    items: list[tuple[Any, str]] = [
        ({"client": "alice", "data": 1}, "client:alice"),
        ({"group": "news", "data": [2]}, "group:news"),
        ({"all": True, "data": None}, "all"),
        ({"client": "alice", "data": 3, "key": "k"}, "client:alice"),
        ({"client": "alice", "data": 4, "key": "k"}, "key_reused"),
        ({"client": "alice", "group": "news", "data": 1}, "bad_request"),
        ({"client": "alice", "all": True, "data": 1}, "bad_request"),
        ({"all": False, "data": 1}, "bad_request"),
        ({"data": 1}, "bad_request"),
        ({"client": "alice"}, "bad_request"),
        ({"client": "a/b", "data": 1}, "bad_request"),
        ({"group": "", "data": 1}, "bad_request"),
        ({"client": 7, "data": 1}, "bad_request"),
        ({"client": "alice", "data": 1, "more": 1}, "bad_request"),
        ({"client": "alice", "data": 1, "key": ""}, "bad_request"),
        ("nonsense", "bad_request"),
        ({"client": "alice", "data": "x" * 65536}, "too_large"),
        ({"client": "alice", "data": json.loads("[" * 64 + "]" * 64)}, "too_deep"),
        ({"client": "alice", "data": 5}, "client:alice"),
    ]
    async with node() as n:
        answer = await n.call("POST", "/api/push", {"pushes": [item for item, _ in items]})
        assert answer.status == 200
        results = answer.json["results"]
        assert [r["stream"] if "stream" in r else r["error"]["code"] for r in results] == [what for _, what in items]
        assert [r["offset"] for r in results if r.get("stream") == "client:alice"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        ({"pushes": [{"all": True, "data": 1}]}, {"Idempotency-Key": "k"}, 400, "bad_request"),
        ({"pushes": [{"all": True, "data": 1}] * 1001}, {}, 413, "too_large"),
        ({"pushes": {}}, {}, 400, "bad_request"),
        ({"pushes": [], "more": 1}, {}, 400, "bad_request"),
        ({}, {}, 400, "bad_request"),
    ],
)
async def test_a_batch_that_is_none_is_refused_as_a_whole(body: Any, headers: Any, status: int, code: str) -> None:
    async with node() as n:
        answer = await n.call("POST", "/api/push", body, headers)
        assert (answer.status, answer.code) == (status, code)
        assert (await n.history("all"))["top"] == 0


async def test_a_batch_may_be_empty_or_as_long_as_the_limit() -> None:
    async with node() as n:
        assert (await n.call("POST", "/api/push", {"pushes": []})).json == {"results": []}
        answer = await n.call("POST", "/api/push", {"pushes": [{"all": True, "data": 1}] * 1000})
        assert [result["offset"] for result in answer.json["results"]] == list(range(1, 1001))


# A broker in trouble


async def test_a_push_that_the_broker_did_not_confirm_is_503_and_says_when_to_come_back() -> None:
    async def publish(publications: list[Publication]) -> list[Position | Refused]:
        return [BrokerDown("no confirmation"), *(NotTried("an earlier one failed") for _ in publications[1:])]

    async with node() as n:
        n.app.broker.publish = publish  # type: ignore[method-assign, assignment]
        answer = await n.call("POST", "/api/all/push", {"data": 1})
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "broker_down", "1")
        answer = await n.call("POST", "/api/push", {"pushes": [{"all": True, "data": 1}] * 2})
        assert [result["error"]["code"] for result in answer.json["results"]] == ["broker_down", "not_tried"]


async def test_an_unexpected_failure_is_500_and_one_line_in_the_log(expected_logs: Logs) -> None:
    expected_logs.expect("request.failed")

    async def fail(*args: Any) -> None:
        raise RuntimeError("a fault planted by the test")

    async with node() as n:
        n.app.broker.connections = fail  # type: ignore[method-assign, assignment]
        answer = await n.call("GET", "/api/clients/alice?", headers=BEARER)
        assert (answer.status, answer.code) == (500, "internal_error")
        assert b"planted" not in answer.body
        (record,) = expected_logs.records
        assert record.levelname == "ERROR"
        assert record.exc_info
        assert KEY not in str(record.__dict__)


# Who may come in


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x"])
async def test_without_the_key_the_api_is_closed(authorization: str | None) -> None:
    async with node(**KEYED) as n:
        for (method, path), operation in openapi.OPERATIONS.items():
            target = path.format(client="alice", group="news")
            body = {"data": 1} if method == "POST" else None
            answer = await n.call(method, target, body, {"Authorization": authorization})
            if operation.keyed:
                assert (answer.status, answer.code) == (401, "unauthorized"), path
                assert answer.headers["www-authenticate"] == "Bearer"
            else:
                assert answer.status == 200, path
        answer = await n.call("POST", "/api/all/push", {"data": 1}, BEARER)
        assert answer.json["offset"] == 1


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 403, "host_not_allowed"),
        ({"Host": "localhost.evil.example:8001"}, 403, "host_not_allowed"),
        ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"Origin": "null"}, 403, "origin_not_allowed"),
        ({"Origin": "http://localhost:1"}, 403, "origin_not_allowed"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "origin_not_allowed"),
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        ({"Content-Type": None}, 415, "unsupported_media_type"),
    ],
)
@pytest.mark.parametrize("environ", [{}, KEYED], ids=["keyless", "keyed"])
async def test_a_page_of_another_site_cannot_push_key_or_no_key(
    environ: Any, headers: Any, status: int, code: str
) -> None:
    async with node(**environ) as n:
        answer = await n.call("POST", "/api/clients/alice/push", {"data": 1}, BEARER | headers)
        assert (answer.status, answer.code) == (status, code)
        assert "access-control-allow-origin" not in answer.headers
        assert (await n.call("GET", "/api/clients/alice/history", headers=BEARER)).json["top"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "Application/JSON ;charset=UTF-8"},
        {"Host": "[::1]:8001"},
        {"Host": "127.0.0.1"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_who_belongs_here_may_push(headers: Any) -> None:
    async with node() as n:
        assert (await n.call("POST", "/api/all/push", {"data": 1}, headers)).status == 202


async def test_the_console_own_page_may_push() -> None:
    async with node() as n:
        headers = {"Origin": f"http://{n.host}", "Sec-Fetch-Site": "same-origin"}
        assert (await n.call("POST", "/api/all/push", {"data": 1}, headers)).status == 202


async def test_pages_of_configured_origins_may_call_and_no_others() -> None:
    async with node(**KEYED, INTERNAL__CORS_ORIGINS=json.dumps([PAGE])) as n:
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
        answer = await n.call("OPTIONS", "/api/clients/alice/push", headers=asks)
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-methods"] == "POST"
        assert "Authorization, Content-Type, Idempotency-Key" in answer.headers["access-control-allow-headers"]
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        for extra, status in ((BEARER, 202), ({}, 401)):
            answer = await n.call("POST", "/api/clients/alice/push", {"data": 1}, headers | extra)
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, PAGE)
            assert answer.headers["vary"] == "Origin"
        answer = await n.call("OPTIONS", "/api/clients/alice/push", headers=asks | {"Origin": PAGE + ".evil.example"})
        assert (answer.status, answer.code) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in answer.headers


async def test_a_preflight_without_configured_origins_is_refused() -> None:
    async with node() as n:
        asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        assert (await n.call("OPTIONS", "/api/all/push", headers=asks)).status == 403
        answer = await n.call("OPTIONS", "/api/all/push")
        assert (answer.status, answer.code) == (405, "method_not_allowed")


# Bodies too large, read to their end or not at all


async def test_a_body_too_large_gets_its_answer_although_all_of_it_is_sent_first() -> None:
    async with node() as n, n.connection() as link:
        body = b'{"data":"' + b"x" * 8_000_000 + b'"}'
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": str(len(body))}
        answer = await link.ask(head("POST", "/api/all/push", headers) + body)
        assert (answer.status, answer.code) == (413, "too_large")
        assert (await link.ask(head("GET", "/healthz", {"Host": n.host}))).status == 200


async def test_a_chunked_body_is_taken_and_counted() -> None:
    async with node() as n, n.connection() as link:
        request = head("POST", "/api/all/push", {"Host": n.host, "Content-Type": JSON, "Transfer-Encoding": "chunked"})
        assert (await link.ask(request + b'4\r\n{"da\r\n7\r\nta":17}\r\n0\r\n\r\n')).status == 202
        answer = await link.ask(request + b"100000\r\n" + b" " * 0x100000 + b"\r\n1\r\n \r\n0\r\n\r\n")
        assert (answer.status, answer.code) == (413, "too_large")
        assert (await link.ask(head("GET", "/healthz", {"Host": n.host}))).status == 200


async def test_who_waits_to_be_asked_for_the_body_is_not_asked_for_one_too_large() -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "2000000", "Expect": "100-continue"}
        answer = await link.ask(head("POST", "/api/all/push", headers))
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "too_large", "close")
        assert await link.reader.read() == b""


@pytest.mark.parametrize("length", ["99999999999", "9" * 40])
async def test_a_body_without_end_is_not_waited_for(length: str) -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": length}
        answer = await link.ask(head("POST", "/api/all/push", headers))
        assert (answer.status, answer.code, answer.headers["connection"]) == (413, "too_large", "close")


async def test_a_chunked_body_without_end_is_cut_off() -> None:
    async with node() as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Transfer-Encoding": "chunked"}
        link.writer.write(head("POST", "/api/all/push", headers))
        chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

        async def send(megabytes: int) -> None:
            for _ in range(megabytes):
                link.writer.write(chunk)
                await link.writer.drain()

        with pytest.raises(ConnectionError):
            await send(200)


async def test_who_has_no_key_gets_his_answer_after_his_body() -> None:
    async with node(**KEYED) as n, n.connection() as link:
        headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "500000"}
        for _ in range(2):
            assert (await link.ask(head("POST", "/api/all/push", headers) + b" " * 500000)).status == 401


async def test_who_goes_away_in_the_middle_of_a_request_is_not_worth_a_line() -> None:
    async with node() as n:
        for length in (0, 10, 200_000):
            async with n.connection() as link:
                headers = {"Host": n.host, "Content-Type": JSON, "Content-Length": "300000"}
                link.writer.write(head("POST", "/api/all/push", headers) + b" " * length)
                await link.writer.drain()
                link.writer.transport.abort()
        await n.push("all", 1)


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
        "limit=0",
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


async def test_a_node_is_ready_while_its_broker_is_and_until_it_drains() -> None:
    async with node() as n:
        answer = await n.call("GET", "/readyz")
        assert (answer.status, answer.json["status"]) == (200, "ready")
        n.app.gateway.ready = False
        answer = await n.call("GET", "/readyz")
        assert (answer.status, answer.json["status"]) == (503, "not_ready")
        n.app.gateway.ready = n.app.gateway.draining = True
        answer = await n.call("GET", "/readyz")
        assert (answer.status, answer.json["status"]) == (503, "draining")
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


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/console.json", "/api/openapi.json", "/nowhere"])
async def test_every_path_answers_configured_hosts_only(path: str) -> None:
    async with node() as n:
        answer = await n.call("GET", path, headers={"Host": "evil.example"})
        assert (answer.status, answer.code) == (403, "host_not_allowed")


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
            assert (shown["auth"], shown["key_required"]) == ("none", bool(environ))


@pytest.mark.parametrize("path", ["/../config.py", "/%2e%2e/config.py", "/console/console.js", "/.git", "/logo.svg/"])
async def test_nothing_else_is_served(path: str) -> None:
    async with node() as n:
        answer = await n.call("GET", path)
        assert (answer.status, answer.code) == (404, "not_found")


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


# The description


def test_every_call_is_described_and_every_description_served() -> None:
    assert set(http_api._RUN) | {("GET", "/"), ("GET", "/api/openapi.json")} == set(openapi.OPERATIONS)


async def test_the_description_is_served_and_its_parts_exist() -> None:
    async with node(**KEYED) as n:
        document = (await n.call("GET", "/api/openapi.json")).json
    assert document == openapi.document(n.app.config)
    codes = {
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, Refused) and error is not Refused
    }

    def walk(part: Any) -> None:
        match part:
            case dict():
                if "$ref" in part:
                    resolve(part["$ref"], document)
                if part.get("properties", {}).get("code", {}).get("enum"):
                    assert codes.issuperset(part["properties"]["code"]["enum"])
                for value in part.values():
                    walk(value)
            case list():
                for value in part:
                    walk(value)

    walk(document)
    assert document["openapi"].startswith("3.1")
    push = document["paths"]["/api/clients/{client}/push"]["post"]
    assert [parameter["name"] for parameter in push["parameters"]] == ["client", "Idempotency-Key"]
    assert push["security"] == [{"key": []}]


def test_the_description_takes_the_bodies_that_the_api_takes() -> None:
    document = openapi.document(config.load(None, {}))
    item = {"$ref": "#/components/schemas/Pushes"}
    assert faults({"pushes": [{"client": "a", "data": 1}, {"all": True, "data": {}, "key": "k"}]}, item, document) == []
    assert faults({"pushes": [{"client": "a", "group": "b", "data": 1}]}, item, document)
    assert faults({"pushes": [{"client": "a/b", "data": 1}]}, item, document)
    assert faults({"pushes": [{"client": "a"}]}, item, document)
    assert faults({"more": 1, "data": 1}, {"$ref": "#/components/schemas/Push"}, document)


def test_the_checker_of_answers_finds_faults() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}
    assert faults({"n": 1}, schema, {}) == []
    wrong: list[Any] = [{}, {"n": 0}, {"n": True}, {"n": "1"}, []]
    for value in wrong:
        assert faults(value, schema, {})


def test_the_node_of_these_tests_refuses_an_answer_that_is_not_described() -> None:
    checked = Node.__new__(Node)
    checked.document = openapi.document(config.load(None, {}))
    checked.check("GET", "/healthz", Answer(200, {"content-type": JSON}, b'{"status":"alive"}'))
    for status, body in ((200, b'{"status":"dead"}'), (201, b'{"status":"alive"}')):
        with pytest.raises(AssertionError):
            checked.check("GET", "/healthz", Answer(status, {"content-type": JSON}, body))


@pytest.mark.parametrize("header", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_is_not_waited_for(header: str) -> None:
    async with running(SERVER__HEADER_TIMEOUT_S=1) as app:
        reader, writer = await asyncio.open_connection("127.0.0.1", app.internal_port)
        request = (
            f"POST /api/all/push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
        )
        writer.write(request.encode())
        async with asyncio.timeout(scaled(5)):
            assert await reader.read() == b""
        writer.close()
