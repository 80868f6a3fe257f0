"""Which Origin headers may connect."""

from __future__ import annotations

import pytest

from tests.tokens import MALFORMED_HOSTS
from tidegate.auth.origins import Origins
from tidegate.core.errors import OriginNotAllowed


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


@pytest.mark.parametrize("site", [None, "same-origin", "none", ""])
def test_without_an_origin_it_is_no_page_or_one_of_ours(site: str | None):
    Origins([]).check(None, "push.example", site)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "none, cross-site"])
def test_a_page_of_another_site_that_hides_its_origin_may_not_connect(site: str):
    with pytest.raises(OriginNotAllowed, match="not said"):
        Origins(["https://push.example"]).check(None, "push.example", site)
