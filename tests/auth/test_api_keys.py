"""The keys of applications."""

from __future__ import annotations

import hmac

import pytest

from tidegate.auth.api_keys import ApiKeys
from tidegate.core.errors import Unauthorized


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
