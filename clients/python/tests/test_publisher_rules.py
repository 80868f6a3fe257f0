"""The rules for pushes are the gateway's: what passes here is taken there, and what it takes passes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import TooDeep
from tidegate.core.protocol import check_depth
from tidegate_client.publisher import BadPush, Json, Publisher
from tidegate_client.publisher.pushes import Limits, depth
from tidegate_client.pytest import Gateway, gateway

TEXTS = [
    "1", "-0", "1e400", "1E+5", "01", "1.", ".5", "+1", "NaN", "-Infinity", "nul", "null ", "\tnull\r\n",
    "\u00a0null", "\ufeffnull", '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00\\ud83d"', '"\\ud83dx"', '{"\\ud83d":1}',
    '"\\x41"', '"a\nb"', '"\x7f"', '"\\u0000"', '"\x00"', '"\\/"', "[1,]", "[,]", "{}", '{"a":1,"a":2}', "{a:1}",
    "{'a':1}", "[1 2]", "1 2", "", " ", "[[[]]]", "9" * 5000, '{"a":' * 63 + "1" + "}" * 63,
    '{"a":' * 62 + "1" + "}" * 62, "[" * 63 + "]" * 63, "[" * 64 + "]" * 64, '"' + "[" * 100 + '"',
    '"\\"' + "[" * 100 + '"', "x", "//", "1//", '"é😀"', '"' + "x" * 65534 + '"', '"' + "x" * 65535 + '"',
    '"' + "é" * 32767 + '"', '"' + "é" * 32768 + '"',
]  # fmt: skip


@pytest.fixture(scope="module")
def real() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_json_is_what_the_gateway_takes_for_json(real: Gateway, text: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(real.api_url).netloc)
    body = b'{"data":%b}' % text.encode()
    connection.request("POST", "/api/groups/raw/push", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    code = json.loads(answer.read()).get("error", {}).get("code")
    connection.close()
    with Publisher(real.api_url) as publisher:
        assert outcome(publisher, text) == code


def outcome(publisher: Publisher, text: str) -> str | None:
    """The code with which it is refused before it is sent; None where it was pushed."""
    try:
        publisher.push(group="rules", data=Json(text))
    except BadPush as bad:
        return bad.code
    return None


@given(st.text(alphabet='[]{}"\\ax', max_size=200))
def test_depth_is_counted_as_the_gateway_counts(text: str) -> None:
    def too_deep(most: int) -> bool:
        try:
            check_depth(text.encode(), most)
        except TooDeep:
            return True
        return False

    if text.count("[") + text.count("{") >= 32:
        assert (depth(text.encode()) > 40) == too_deep(40)
    assert depth(text.encode()) <= 40 or too_deep(40)


def test_the_limits_are_the_gateways_defaults() -> None:
    from tidegate.config.settings import LimitsSettings

    gateways = LimitsSettings()
    for name in Limits._fields:
        assert getattr(Limits(), name) == getattr(gateways, name)
