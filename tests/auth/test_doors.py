"""API keys, hosts and origins."""

from __future__ import annotations

import hmac

import pytest

from tidegate.auth.tokens import ApiKeys, Hosts, Origins
from tidegate.core.errors import BadRequest, HostNotAllowed, OriginNotAllowed, Unauthorized

# API keys


def test_any_of_the_keys_opens_the_api():
    keys = ApiKeys(["the first key of three", "k2-k2-k2-k2-k2-k2", "k3"])
    for header in ("Bearer k2-k2-k2-k2-k2-k2", "bearer k3", "BEARER  k3 "):
        keys.check(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer k",
        "Bearer k33",
        "Bearer K3",
        "Basic k3",
        "k3",
        "Bearer k3,k3",
        "Bearer \ud800",
    ],
)
def test_what_is_not_a_key_is_refused(header: str | None):
    with pytest.raises(Unauthorized) as info:
        ApiKeys(["k3"]).check(header)
    assert "k3" not in info.value.message


def test_without_a_key_the_api_is_open():
    ApiKeys([]).check(None)
    ApiKeys([]).check("Bearer whatever")


def test_every_key_is_compared_whichever_fits(monkeypatch: pytest.MonkeyPatch):
    compared: list[bytes] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append(known)
        return given == known

    monkeypatch.setattr(hmac, "compare_digest", compare)
    ApiKeys(["a", "b", "c"]).check("Bearer a")
    assert len(compared) == 3


# Hosts


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost:",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "[0:0:0:0:0:0:0:1]",
        "push.example:443",
    ],
)
def test_allowed_hosts_are_known_whatever_their_port(header: str):
    Hosts(["localhost", "127.0.0.1", "[::1]", "Push.Example"]).check(header)


@pytest.mark.parametrize("header", ["other", "localhost.other", "other.localhost", "127.0.0.2", "[::2]", "localhost."])
def test_other_hosts_are_refused(header: str):
    with pytest.raises(HostNotAllowed, match="not allowed here"):
        Hosts(["localhost", "127.0.0.1", "[::1]"]).check(header)


MALFORMED_HOSTS = [
    "",
    " ",
    ":8000",
    "localhost:x",
    "localhost:80:80",
    "localhost:99999",
    "user@localhost",
    "localhost/",
    "localhost, localhost",
    "local host",
    "localhost\n",
    "::1",
    "[::1",
    "[::1]x",
    "[1]",
    "[::1%eth0]",
    "[]",
    "..",
    "höst",
    "\u212aocalhost",
]


@pytest.mark.parametrize("header", [None, *MALFORMED_HOSTS])
def test_a_missing_or_malformed_host_is_refused_as_such(header: str | None):
    with pytest.raises(BadRequest, match="no host"):
        Hosts(["localhost"]).check(header)


def test_what_is_no_host_name_cannot_be_allowed():
    for name in ("http://localhost", "", "a b", "*", "*.example"):
        with pytest.raises(ValueError, match="malformed host"):
            Hosts([name])


# Origins


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, None),
        (None, "push.example"),
        ("https://push.example", "push.example"),
        ("http://push.example", "push.example"),
        ("https://push.example", "push.example:443"),
        ("https://push.example:443", "push.example"),
        ("http://push.example:80", "push.example"),
        ("HTTPS://PUSH.example", "push.EXAMPLE"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://[::1]:8000", "[0:0::1]:8000"),
        ("https://app.example", "push.example"),
        ("https://app.example:443", "push.example"),
        ("http://localhost:3000", "push.example"),
        ("capacitor://localhost", "push.example"),
        ("http://localhost:8001", "localhost:8000"),
    ],
)
def test_pages_of_the_same_host_and_of_listed_origins_may_connect(origin: str | None, host: str | None):
    listed = ["https://app.example", "http://localhost:3000", "capacitor://localhost"]
    Origins(listed, extra=["http://localhost:8001"]).check(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "push.example"),
        ("https://evil.example", None),
        ("https://push.example.evil", "push.example"),
        ("https://sub.push.example", "push.example"),
        ("https://push.example:8443", "push.example"),
        ("https://push.example", "push.example:8443"),
        ("https://push.example", "push.example:80"),
        ("http://push.example", "push.example:443"),
        ("http://localhost:3000", "localhost:8000"),
        ("http://app.example", "push.example"),
        ("https://app.example:8443", "push.example"),
        ("capacitor://push.example", "push.example"),
        ("http://push.example", "push.example/"),
        ("http://x:0", "x"),
    ],
)
def test_pages_of_other_origins_may_not(origin: str, host: str | None):
    with pytest.raises(OriginNotAllowed, match="may not connect"):
        Origins(["https://app.example"]).check(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "NULL",
        "*",
        "push.example",
        "//push.example",
        "https:push.example",
        "https://push.example/",
        "https://push.example/x",
        "https://u@push.example",
        "https://push.example https://push.example",
        "https://push.example, https://push.example",
        "https://push.example\n",
        "1https://push.example",
        "https\u017f://push.example",
        *(f"https://{host}" for host in MALFORMED_HOSTS),
    ],
)
def test_a_malformed_or_opaque_origin_is_refused_as_such(origin: str):
    with pytest.raises(OriginNotAllowed, match="opaque or malformed"):
        Origins(["https://push.example"]).check(origin, "push.example")


def test_what_is_no_origin_cannot_be_allowed():
    for name in ("push.example", "https://push.example/", "", "*", "null", "https://*.example"):
        with pytest.raises(ValueError, match="malformed"):
            Origins([name])
