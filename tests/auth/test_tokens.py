"""What a token allows, and why one is refused. Keys are in test_keys.py."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tokens import ALGORITHMS, NOW, b64, hs256, make_token, public_pem, refusal, verifier
from tidegate.auth import grants, tokens
from tidegate.auth.grants import Grant, unrestricted
from tidegate.core.errors import Unauthorized

# Grants


def test_a_grant_covers_what_its_patterns_match():
    grant = Grant("alice", ("news", "team.*"), ("team.*",), None)
    assert [grant.may_join(group) for group in ("news", "team.a", "other")] == [True, True, False]
    assert [grant.may_publish(group) for group in ("news", "team.a", "other")] == [False, True, False]


def test_without_tokens_every_group_is_covered_and_with_an_empty_list_none():
    assert unrestricted("alice").may_join("any")
    assert unrestricted("alice").may_publish("any")
    assert unrestricted("alice").expires is None
    assert not Grant("alice", (), (), None).may_join("any")
    assert not Grant("alice", (), (), None).may_publish("any")


def test_equal_patterns_are_kept_once():
    check = verifier().verify
    alice = check(make_token(sub="alice", groups=["news", "team.*"]), NOW)
    bob = check(make_token(sub="bob", groups=["news", "team.*"]), NOW)
    assert (alice.client, bob.client) == ("alice", "bob")
    assert alice.groups is bob.groups


def test_no_more_lists_of_patterns_are_kept_to_be_shared_than_may_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grants, "_SHARED", 3)
    check = verifier()
    for n in range(20):
        assert check.verify(make_token(groups=[f"news-{n}"]), NOW).groups == (f"news-{n}",)
        assert len(check._patterns._known) <= 3


# Tokens


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_says_who_and_what(algorithm: str):
    token = make_token(algorithm, groups=["news", "team.*"], publish=["chat"], exp=NOW + 60)
    grant = verifier(algorithm).verify(token, NOW)
    assert grant == Grant("alice", ("news", "team.*"), ("chat",), NOW + 60)


def test_groups_and_publish_that_are_absent_allow_none():
    assert verifier().verify(make_token(), NOW) == Grant("alice", (), (), NOW + 3600)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("other", ALGORITHMS)
def test_only_the_configured_algorithm_is_taken(algorithm: str, other: str):
    if algorithm == other:
        assert refusal(verifier(algorithm), make_token(other, "another key")) == "the token's signature is wrong"
    else:
        assert refusal(verifier(algorithm), make_token(other)) == f"the token is not signed with {algorithm}"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_not_taken_for_a_secret(algorithm: str):
    claims = {"sub": "alice", "exp": NOW + 60}
    forged = hs256({"alg": "HS256", "typ": "JWT"}, claims, secret=public_pem(algorithm))
    assert refusal(verifier(algorithm), forged) == f"the token is not signed with {algorithm}"
    forged = hs256({"alg": algorithm, "typ": "JWT"}, claims, secret=public_pem(algorithm))
    assert refusal(verifier(algorithm), forged) == "the token's signature is wrong"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, ["HS256"], "HS512", "hs256"])
def test_an_unsigned_or_oddly_signed_token_is_refused(algorithm: str, alg: Any):
    payload = {"sub": "alice", "exp": NOW + 60}
    for token in (hs256({"alg": alg}, payload), f"{b64({'alg': alg})}.{b64(payload)}."):
        assert refusal(verifier(algorithm), token) in (
            "the token is not a JWT",
            f"the token is not signed with {algorithm}",
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_changed_token_is_refused(algorithm: str):
    header, _, signature = make_token(algorithm).split(".")
    payload = b64({"sub": "bob", "exp": NOW + 60})
    assert refusal(verifier(algorithm), f"{header}.{payload}.{signature}") == "the token's signature is wrong"
    assert refusal(verifier(algorithm), f"{header}.{payload}.") == "the token's signature is wrong"


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"sub": None}, "the token's claims: Object missing required field `sub`"),
        ({"exp": None}, "the token's claims: Object missing required field `exp`"),
        ({"sub": "a b"}, "the token's sub is not a client id"),
        ({"sub": ""}, "the token's sub is not a client id"),
        ({"sub": ".."}, "the token's sub is not a client id"),
        ({"sub": "x" * 129}, "the token's sub is not a client id"),
        ({"exp": NOW - 11}, "the token has expired"),
        ({"exp": -1}, "the token has expired"),
        ({"nbf": NOW + 11}, "the token is not valid yet"),
        ({"groups": ["news", "a b"]}, "the token's groups holds something that is no pattern of group names"),
        ({"groups": [""]}, "the token's groups holds something that is no pattern of group names"),
        ({"publish": ["x" * 129]}, "the token's publish holds something that is no pattern of group names"),
        ({"aud": "push"}, "the token is for an audience (aud), and auth.audience names none"),
        ({"aud": ["push"]}, "the token is for an audience (aud), and auth.audience names none"),
    ],
)
def test_a_refusal_says_which_claim_is_wrong(claims: dict[str, Any], message: str):
    assert refusal(verifier(), make_token(**claims)) == message


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("sub", [1, None, ["alice"], True]),
        ("exp", ["1900000000", True, None, [], 10**400]),
        ("nbf", ["0", None, {}]),
        ("iss", [1, None, ["me"]]),
        ("aud", [1, None, {"a": 1}, ["a", 1]]),
        ("groups", ["news", None, 1, {"a": 1}, ["a", 1], [None]]),
        ("publish", ["news", None, 1, {"a": 1}, ["a", 1], [None]]),
    ],
)
def test_a_claim_of_the_wrong_type_is_named(claim: str, values: list[Any]):
    for value in values:
        token = hs256({"alg": "HS256"}, {"sub": "alice", "exp": NOW + 60} | {claim: value})
        message = refusal(verifier(), token)
        assert message.startswith("the token's claims: ")
        assert f"$.{claim}" in message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"x",
        b"NaN",
        b'{"sub":"\xff","exp":1}',
        b'{"sub":"alice","exp":1900000000,"\x98":1}',
        b'{"a":' + b"[" * 3000,
    ],
)
def test_claims_that_are_no_json_object_are_refused(payload: bytes):
    assert refusal(verifier(), hs256({"alg": "HS256"}, payload)).startswith("the token's claims")


@given(st.text())
@example("a.b.c")
@example("..")
@example("\ud800.x.y")
@example(f"{b64(b'[' * 5000)}.e30.e30")
@example(f"{b64([])}.e30.e30")
@example(f"{b64({'alg': 'HS256', 'kid': 1})}.e30.e30")
@example(f"{b64({'alg': 'HS256', 'crit': ['x'], 'x': 1})}.e30.e30")
@example(f"{b64({'alg': 'HS256', 'b64': False, 'crit': ['b64']})}..e30")
@example(b64(b'{"alg":' + b"9" * 5000 + b"}") + ".e30.e30")
def test_what_is_no_token_at_all_is_refused_like_a_bad_one(text: str):
    with pytest.raises(Unauthorized):
        verifier().verify(text, NOW)


@pytest.mark.parametrize("behind", ["=", "==", "=\nterm 9\n", "\n", " ", "!", ".", "\0"])
def test_nothing_may_stand_behind_a_signature(behind: str):
    """An edge that holds clients is given what was taken, and sends it in lines."""
    token = hs256({"alg": "HS256"}, b'{"sub":"alice","exp":1900000000}')
    assert verifier().verify(token, NOW).client == "alice"
    assert refusal(verifier(), token + behind) == "the token is not a JWT"


def test_a_token_is_8_kib_at_most():
    long = make_token(pad="x" * 6000)
    assert verifier().verify(long, NOW)
    assert len(long) < 8192
    assert refusal(verifier(), make_token(pad="x" * 6100)) == "the token is longer than 8192 bytes"


def test_the_clocks_may_differ_by_the_leeway():
    token = make_token(nbf=NOW, exp=NOW + 60)
    for check in (verifier(leeway_s=10), verifier(leeway_s=0)):
        leeway_s = check._auth.leeway_s
        assert refusal(check, token, NOW - leeway_s - 0.1) == "the token is not valid yet"
        assert check.verify(token, NOW - leeway_s)
        assert check.verify(token, NOW + 60 + leeway_s - 0.1)
        assert refusal(check, token, NOW + 60 + leeway_s) == "the token has expired"


def test_issuer_and_audience_are_looked_at_where_they_are_configured():
    check = verifier(issuer="https://id.example", audience="push")
    good: dict[str, Any] = {"iss": "https://id.example", "aud": "push"}
    assert check.verify(make_token(**good), NOW)
    assert check.verify(make_token(**good | {"aud": ["web", "push"]}), NOW)
    for iss in (None, "https://id.example/", "other"):
        assert refusal(check, make_token(**good | {"iss": iss})) == "the token is from another issuer (iss)"
    for aud in (None, "Push", "", [], ["web"]):
        assert refusal(check, make_token(**good | {"aud": aud})) == "the token is for another audience (aud)"
    assert verifier().verify(make_token(iss="anybody"), NOW)


# What is remembered


def test_a_token_that_was_good_is_not_examined_again():
    check = verifier()
    token = make_token(groups=["news"])
    assert check.verify(token, NOW) is check.verify(token, NOW + 1)


def test_a_remembered_token_still_expires_and_still_begins():
    check = verifier(leeway_s=0)
    token = make_token(nbf=NOW, exp=NOW + 60)
    assert check.verify(token, NOW)
    assert refusal(check, token, NOW - 1) == "the token is not valid yet"
    assert check.verify(token, NOW)
    assert refusal(check, token, NOW + 60) == "the token has expired"
    assert len(check._remembered) == 0


def test_no_more_tokens_are_remembered_than_may_be(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "_REMEMBERED_BYTES", 1300)
    check = verifier()
    shown = [make_token(sub=f"client-{n}", exp=NOW + 60 + n) for n in (1, 2, 0)]
    first, second, _ = [check.verify(token, NOW) for token in shown]
    assert len(check._remembered) == 2
    assert check.verify(shown[0], NOW) is first
    assert check.verify(shown[1], NOW) is second
    assert check.verify(shown[2], NOW) is not check.verify(shown[2], NOW), "ends first, and was forgotten first"


def test_tokens_with_many_patterns_take_no_more_memory_than_may_be(monkeypatch: pytest.MonkeyPatch):
    most = 1024 * 1024
    monkeypatch.setattr(tokens, "_REMEMBERED_BYTES", most)
    check = verifier()
    # One takes about 40 KiB.
    shown = [make_token(sub=f"c{n}", groups=[f"{n}.{m}" for m in range(600)]) for n in range(60)]
    tracemalloc.start()
    try:
        for token in shown:
            check.verify(token, NOW)
        check._patterns._known.clear()  # is bounded by itself
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / 2 < taken < most * 1.3
    assert most / 2 < check._remembered.bytes <= most


def test_tokens_that_have_expired_are_forgotten_though_nobody_shows_them_again():
    check = verifier(leeway_s=10)
    for n in range(5):
        check.verify(make_token(sub=f"c{n}", exp=NOW + 60 + n), NOW)
    assert len(check._remembered) == 5
    check.verify(make_token(), NOW + 72)
    assert len(check._remembered) == 3, "three and four, and the new one"
    check.verify(make_token(exp=NOW + 999), NOW + 99)
    assert len(check._remembered) == 2
    check.verify(make_token(exp=NOW + 9000), NOW + 8000)
    assert (len(check._remembered), check._remembered.bytes) == (1, 600)
