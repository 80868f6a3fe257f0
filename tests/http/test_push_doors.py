"""A push meets the same rules by HTTP and through Redis: the same inputs are taken or refused by both."""

from __future__ import annotations

import json
from typing import Any

from tests.brokers.contract_words import SPAN
from tests.brokers.server import RedisServer
from tests.http.node import node
from tests.support import eventually
from tidegate.core.model import Position

ITEMS: list[dict[str, Any]] = [
    {"group": "a", "data": '"plain"'},
    {"client": "a@b.c", "data": "2"},
    {"all": True, "data": "3"},
    {"group": "x" * 128, "data": "4"},
    {"group": "x" * 129, "data": "5"},
    {"client": "..", "data": "6"},
    {"group": "ä", "data": "7"},
    {"data": "8"},
    {"client": "a", "group": "a", "data": "9"},
    {"client": "a", "all": True, "data": "10"},
    {"group": "key", "data": "11", "key": ""},
    {"group": "key", "data": "12", "key": "k" * 128},
    {"group": "key", "data": "13", "key": "k" * 129},
    {"group": "key", "data": "14", "key": "ä" * 100},
    {"group": "key", "data": "15", "key": "\U0001f30a" * 128},
    {"group": "key", "data": "16", "key": "\U0001f30a" * 129},
    {"group": "key", "data": "17", "key": "\U0001f30a" * 127 + "a"},
    {"group": "word", "data": "18", "conflate": "north"},
    {"group": "word", "data": "19", "conflate": "x" * 129},
    {"group": "word", "data": "20", "conflate": "a/b"},
    {"group": "word", "data": "21", "conflate": ""},
    {"group": "span", "data": "22", "traceparent": SPAN},
    {"group": "span", "data": "23", "traceparent": SPAN.upper()},
    {"group": "span", "data": "24", "traceparent": ""},
    {"group": "size", "data": '"%s"' % ("x" * 98)},
    {"group": "size", "data": '"%s"' % ("x" * 99)},
    {"group": "size", "data": '"%s"' % ("ä" * 49)},
    {"group": "size", "data": '"%s"' % ("ä" * 50)},
    {"group": "depth", "data": "[" * 7 + "]" * 7},
    {"group": "depth", "data": "[" * 8 + "]" * 8},
]


async def test_a_push_by_http_and_one_through_redis_meet_the_same_rules() -> None:
    with RedisServer() as server:
        settings = {
            "BROKER__KIND": "redis",
            "BROKER__URL": server.url,
            "LIMITS__DATA_BYTES": "100",
            "LIMITS__JSON_DEPTH": "8",
        }
        async with node(**settings) as n:
            by_http = []
            for item in ITEMS:
                fields = {name: value for name, value in item.items() if name != "data"}
                body = json.dumps(fields | {"data": 0}).replace('"data": 0', f'"data": {item["data"]}')
                answer = await n.call("POST", "/api/push", b'{"pushes":[%b]}' % body.encode())
                by_http.append("offset" in answer.json["results"][0])
            ids = []
            for item in ITEMS:
                # Keys of their own, or they would be repeats.
                given = dict(item) | ({"key": "z" + item["key"][1:]} if item.get("key") else {})
                pairs = [text for name, value in given.items() for text in (name, "1" if value is True else value)]
                ids.append(server.command("XADD", "tidegate:push", "*", *pairs))
            await eventually(lambda: server.command("XLEN", "tidegate:push") == 0)
            rejected = [fields["id"] for _, fields in server.command("XRANGE", "tidegate:push:rejected", "-", "+")]
            through_redis = [id not in rejected for id in ids]
            assert by_http == through_redis
            page = await n.app.broker.history("group:word", None, messages=9, size=999)
            assert [message.conflate for message in page.messages] == ["north", "north"]
            for offset in (1, 2):
                kept = await n.app.broker.entry("group:span", Position(page.start.epoch, offset))
                assert kept is not None
                assert kept.traceparent == SPAN
            assert by_http.count(True) == 13
