"""The keys of applications."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest

from tidegate.auth.api_keys import ApiKeys, Application, first
from tidegate.config.auth import NamedApiKey
from tidegate.core.errors import NotAllowed, Unauthorized, Unusable


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


# What a key opens


def named(**options: Any) -> Application:
    return ApiKeys([NamedApiKey(name="crm", key="k" * 16, **options)]).check("Bearer " + "k" * 16)


def test_a_key_without_limits_opens_everything():
    for application in (named(), ApiKeys([]).check(None), ApiKeys(["k" * 16]).check("Bearer " + "k" * 16)):
        for right in ("push", "read", "manage"):
            application.require(right)
        for stream in ("client:alice", "group:news", "all", None):
            application.require_stream(stream)


def test_a_key_may_do_what_it_is_for_and_nothing_else():
    application = named(may=["read"])
    application.require("read")
    for right in ("push", "manage"):
        with pytest.raises(NotAllowed, match=right):
            application.require(right)


def test_a_key_of_some_groups_touches_no_other_stream():
    application = named(groups=["news", "team.*"])
    for stream in ("group:news", "group:team.a"):
        application.require_stream(stream)
    for other in ("group:other", "client:news", "all", None):
        with pytest.raises(NotAllowed):
            application.require_stream(other)
    with pytest.raises(NotAllowed):
        named(groups=[]).require_stream("group:news")


def test_a_key_may_be_in_a_file_whose_end_of_line_is_none_of_it(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("0123456789abcdef\n")
    assert ApiKeys([NamedApiKey(name="crm", key_file=str(file))]).check("Bearer 0123456789abcdef").name == "crm"
    assert first([NamedApiKey(name="crm", key_file=str(file))]) == "0123456789abcdef"
    for text in ("short", "with blanks in it, and long enough", ""):
        file.write_text(text)
        with pytest.raises(Unusable, match=r"internal\.api_keys\[0\].*16 to 512"):
            ApiKeys([NamedApiKey(name="crm", key_file=str(file))])


def test_the_same_key_twice_is_refused():
    with pytest.raises(Unusable, match="stands twice"):
        ApiKeys(["k" * 16, NamedApiKey(name="crm", key="k" * 16)])


def test_what_changes_is_said_by_name():
    keys = ApiKeys([NamedApiKey(name=name, key=name * 16) for name in ("a", "b", "c")])
    new = [
        NamedApiKey(name="b", key="b" * 16),
        NamedApiKey(name="c", key="C" * 16),
        NamedApiKey(name="d", key="d" * 16),
    ]
    words = keys.take(ApiKeys(new))
    assert words == [
        "internal.api_keys: a is gone",
        "internal.api_keys: c has changed",
        "internal.api_keys: d is new",
    ]
    assert keys.check("Bearer " + "C" * 16).name == "c"
    with pytest.raises(Unauthorized):
        keys.check("Bearer " + "a" * 16)
    assert keys.take(ApiKeys(new)) == []
    assert keys.take(ApiKeys([NamedApiKey(name="b", key="b" * 16, may=["push"]), *new[1:]])) == [
        "internal.api_keys: b has changed"
    ]
