"""Tokens, and names of clients: what is made here, the gateway takes."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens import ALGORITHMS, SECRET, private_pem, public_pem
from tidegate.auth.tokens import Verifier
from tidegate.config.auth import AuthSettings
from tidegate.core.model import is_id as gateways_is_id
from tidegate_client import AsyncPublisher, Publisher, TokenSigner, client_id, name_of
from tidegate_client.names import is_id


def verified(token: str, algorithm: Any = "HS256", **settings: Any) -> Any:
    auth = AuthSettings(mode="jwt", algorithm=algorithm, key=public_pem(algorithm).decode(), **settings)
    return Verifier(auth).verify(token, time.time())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gateway_takes_what_a_signer_signs(algorithm: str) -> None:
    signer = TokenSigner(private_pem(algorithm), algorithm, issuer="shop", audience="tidegate")
    token = signer.token("alice", ["news", "team-*"], ["chat"], expires_in=timedelta(minutes=5))
    grant = verified(token, algorithm, issuer="shop", audience="tidegate")
    assert grant.client == "alice"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["groups"], claims["publish"]) == (["news", "team-*"], ["chat"])
    assert 290 < claims["exp"] - time.time() <= 300


def test_a_key_with_a_line_break_at_its_end_is_the_same_key() -> None:
    assert verified(TokenSigner(SECRET + "\n").token("alice")).client == "alice"


def test_a_kid_says_which_key_of_a_set() -> None:
    assert jwt.get_unverified_header(TokenSigner(SECRET, kid="2026-01").token("alice"))["kid"] == "2026-01"


@pytest.mark.parametrize("made", [Publisher, AsyncPublisher])
def test_publishers_make_tokens_without_asking_anybody(made: Any) -> None:
    publisher = made("http://127.0.0.1:9", token_key=SECRET, token_issuer="shop")
    assert verified(publisher.token("alice", groups=["news"]), issuer="shop").client == "alice"
    with pytest.raises(ValueError, match="token_key"):
        made("http://127.0.0.1:9").token("alice")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sub": "a/b"}, "client_id"),
        ({"sub": ""}, "sub"),
        ({"groups": "news"}, "a list of patterns"),
        ({"groups": ["a,b"]}, "groups: a pattern"),
        ({"publish": [""]}, "publish: a pattern"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": float("nan")}, "expires_in"),
    ],
)
def test_what_the_gateway_would_refuse_is_not_signed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenSigner(SECRET).token(**{"sub": "alice"} | arguments)


def test_a_short_secret_and_a_strange_algorithm_are_refused() -> None:
    with pytest.raises(ValueError, match="5 bytes"):
        TokenSigner("short")
    with pytest.raises(ValueError, match="algorithm"):
        TokenSigner(SECRET, "none")


@given(st.text(max_size=23))
def test_any_name_has_an_id_that_gives_it_back(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    if not name:
        return
    assert is_id(client_id(name))
    assert name_of(client_id(name)) == name
    assert is_id(name) == gateways_is_id(name)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("müller/7", "u.bcO8bGxlci83"),
        ("alice", "u.YWxpY2U"),
        ("..", "u.Li4"),
        ("u.YWxpY2U", "u.dS5ZV3hwWTJV"),
        ("é" * 47, "u." + "w6nDqcOp" * 15 + "w6nDqQ"),
    ],
)
def test_ids_of_names_are_for_good(name: str, id: str) -> None:
    assert client_id(name) == id
    assert name_of(id) == name


@pytest.mark.parametrize("name", ["", "é" * 47 + "x"])
def test_a_name_that_has_no_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 94"):
        client_id(name)


@pytest.mark.parametrize("id", ["", "alice", "u.", "u.a", "u.YWxpY2V=", "u.YWxpY2V", "u._w", "u.é", "YWxpY2U"])
def test_an_id_that_no_name_has_is_refused(id: str) -> None:
    with pytest.raises(ValueError, match="not of client_id"):
        name_of(id)
