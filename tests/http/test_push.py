"""Pushes over the HTTP API of a real node, one by one and in batches."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.brokers.contract_words import SPAN
from tests.http.node import BEARER, JSON, KEY, Node, head, node
from tests.http.schema import faults
from tests.peer import Peer
from tests.support import Logs
from tidegate.core.errors import BrokerDown, NotTried, Refused
from tidegate.core.model import Position, Publication

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


async def test_a_push_is_kept_with_the_span_of_its_request_or_its_own() -> None:
    other = SPAN.replace("4bf9", "4bfa")
    async with node() as n:
        for header in (SPAN, "00-broken", SPAN + ", " + SPAN):  # malformed: as if there were none
            await n.push("groups/a", 1, traceparent=header)
        items = [{"group": "a", "data": 2}, {"group": "a", "data": 3, "traceparent": other}]
        answer = await n.call("POST", "/api/push", {"pushes": items}, {"traceparent": SPAN})
        assert [result["offset"] for result in answer.json["results"]] == [4, 5]
        kept = [await n.app.broker.entry("group:a", await position(n, offset)) for offset in range(1, 6)]
        assert [message and message.traceparent for message in kept] == [SPAN, None, None, SPAN, other]
        wrong = {"pushes": [{"group": "a", "data": 1, "traceparent": "00-broken"}]}
        assert (await n.call("POST", "/api/push", wrong)).json["results"][0]["error"]["code"] == "bad_request"
        assert list((await n.history("groups/a"))["messages"][0]) == ["offset", "time", "data"]


async def position(n: Node, offset: int) -> Position:
    return Position((await n.app.broker.top("group:a")).epoch, offset)


async def test_a_push_may_name_the_word_that_it_is_conflated_by() -> None:
    async with node() as n:
        assert (await n.call("POST", "/api/groups/a/push", {"data": 1, "conflate": "north"})).status == 202
        items = [{"group": "a", "data": 2, "conflate": "south"}, {"group": "a", "data": 3, "conflate": "a b"}]
        results = (await n.call("POST", "/api/push", {"pushes": items})).json["results"]
        assert [result.get("offset") for result in results] == [2, None]
        assert results[1]["error"]["code"] == "bad_request"
        page = await n.app.broker.history("group:a", None, messages=9, size=999)
        assert [message.conflate for message in page.messages] == ["north", "south"]
        assert list((await n.history("groups/a"))["messages"][0]) == ["offset", "time", "data"]


async def test_what_is_optional_may_be_null_as_if_it_were_not_there() -> None:
    """As libraries of typed languages write it; the description of the API says so too."""
    async with node() as n:
        document = (await n.call("GET", "/api/openapi.json")).json
        nothing = {"key": None, "conflate": None, "traceparent": None}
        items = [
            {"client": "a", "group": None, "all": False, "data": 1, **nothing},
            {"client": None, "group": "a", "all": False, "data": 1, **nothing},
            {"client": None, "group": None, "all": True, "data": 1, **nothing},
            {"client": None, "group": None, "all": False, "data": 1, **nothing},
            {"client": "a", "group": "a", "data": 1},
            {"client": "a", "all": None, "data": 1},
        ]
        results = (await n.call("POST", "/api/push", {"pushes": items})).json["results"]
        assert [result.get("stream") for result in results] == ["client:a", "group:a", "all", None, None, None]
        item = {"$ref": "#/components/schemas/Item"}
        assert [faults(each, item, document) == [] for each in items] == [True, True, True, False, False, False]
        push = {"data": 1, "conflate": None}
        assert (await n.call("POST", "/api/all/push", push)).status == 202
        assert faults(push, {"$ref": "#/components/schemas/Push"}, document) == []


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
        (b'{"data":1,"conflate":""}', 400, "bad_request"),
        (b'{"data":1,"conflate":"a b"}', 400, "bad_request"),
        (b'{"data":1,"conflate":7}', 400, "bad_request"),
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
