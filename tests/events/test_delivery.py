"""What an answer says of the events that were posted, and how a request is signed."""

from __future__ import annotations

import pytest

from tidegate.delivery import judge, signature
from tidegate.http_client import HttpAnswer


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(status, "taken") for status in (200, 204)]
    + [(status, "refused") for status in (400, 410, 413, 422)]
    + [(status, "failed") for status in (302, 401, 403, 404, 408, 429, 500, 503)],
)
def test_a_4xx_refuses_where_it_speaks_of_the_content(status: int, verdict: str) -> None:
    assert judge(HttpAnswer(status, b"")).verdict == verdict


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("", 0.0), ("Sat, 28 Nov 2026 15:00:00 GMT", 0.0)])
def test_how_long_to_wait_is_taken_from_the_application(header: str, seconds: float) -> None:
    assert judge(HttpAnswer(429, b"", header)).retry_after_s == seconds


def test_a_signature_is_that_of_docs_protocol_md() -> None:
    body = b'{"missed":0,"events":[]}'
    # printf '%s' '1795867200.{"missed":0,"events":[]}' | openssl dgst -sha256 -hmac 0123456789abcdef
    expected = "afbe726256764db874b98b5f1364622343be4583dc4ec2b70e838a1f80d1356e"
    assert signature(b"0123456789abcdef", 1795867200, body) == f"v1={expected}"
