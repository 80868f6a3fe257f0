from __future__ import annotations

from typing import Any

import pytest

from tidegate.core.errors import BadPush, TooDeep, TooLarge
from tidegate.core.model import Publication
from tidegate.core.push import PushLimits, check_data, publication

LIMITS = PushLimits(data_bytes=10, json_depth=4)


@pytest.mark.parametrize(
    ("fields", "stream"),
    [({"client": "a"}, "client:a"), ({"group": "g"}, "group:g"), ({"all": True}, "all"), ({"client": "1" * 128}, None)],
)
def test_a_push_has_one_address(fields: dict[str, Any], stream: str | None) -> None:
    assert publication(b"1", **fields) == Publication(stream or f"client:{'1' * 128}", b"1")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no address"),
        ({"client": "a", "group": "b"}, "several addresses"),
        ({"client": "a", "all": True}, "several addresses"),
        ({"client": "a", "group": "b", "all": True}, "several addresses"),
        ({"client": ""}, "bad client"),
        ({"client": "x" * 129}, "bad client"),
        ({"group": ".."}, "bad group"),
        ({"all": True, "key": ""}, "bad key"),
        ({"all": True, "key": "ä" * 129}, "bad key"),
        ({"all": True, "conflate": ""}, "bad conflate"),
        ({"all": True, "conflate": "a b"}, "bad conflate"),
        ({"all": True, "traceparent": "00-1-2-01"}, "bad traceparent"),
    ],
)
def test_what_is_wrong_is_said_in_a_few_words(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadPush) as refused:
        publication(b"1", **fields)
    assert refused.value.reason == reason
    assert (refused.value.status, refused.value.code) == (400, "bad_request")


@pytest.mark.parametrize("key", ["k", "k" * 128, "ä" * 128, "\U0001f30a" * 128])
def test_a_key_is_counted_in_characters(key: str) -> None:
    assert publication(b"1", all=True, key=key).key == key


def test_data_has_a_size_in_bytes_and_a_depth() -> None:
    for data in (b"1" * 10, b"[[[]]]", "äääää".encode()):
        assert check_data(data, LIMITS) is data
    for data in (b"1" * 11, "äääää1".encode()):
        with pytest.raises(TooLarge):
            check_data(data, LIMITS)
    with pytest.raises(TooDeep):
        check_data(b"[[[[]]]]", LIMITS)
