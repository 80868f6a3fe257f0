"""Which Host headers are answered."""

from __future__ import annotations

import pytest

from tests.tokens import MALFORMED_HOSTS
from tidegate.auth.hosts import Hosts
from tidegate.core.errors import BadRequest, HostNotAllowed


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


@pytest.mark.parametrize("header", [None, *MALFORMED_HOSTS])
def test_a_missing_or_malformed_host_is_refused_as_such(header: str | None):
    with pytest.raises(BadRequest, match="no host"):
        Hosts(["localhost"]).check(header)


def test_what_is_no_host_name_cannot_be_allowed():
    for name in ("http://localhost", "", "a b", "*", "*.example"):
        with pytest.raises(ValueError, match="malformed host"):
            Hosts([name])


@pytest.mark.parametrize("header", ["127.0.0.1", "10.1.2.3:8001", "[::1]", "[fe80::1]:8001"])
def test_an_address_is_told_from_a_name(header: str):
    assert Hosts.is_address(header)


@pytest.mark.parametrize("header", ["localhost", "10.example", "1.2.3", "1.2.3.4.5", *MALFORMED_HOSTS])
def test_what_is_no_address_is_none(header: str):
    assert not Hosts.is_address(header)
