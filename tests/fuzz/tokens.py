"""Tokens, and the keys that prove them.

An input's first byte says what it is: 0 a token as it comes; 1 three lines, a header and claims that are signed here
with the right key, and what is put behind the token; 2 a key as text; 3 a JSON Web Key Set. Of the last two the second
byte chooses the algorithm.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re

from tidegate.auth import keys
from tidegate.auth.tokens import Verifier
from tidegate.config.auth import AuthSettings
from tidegate.core.errors import Unauthorized, Unusable
from tidegate.core.model import is_id
from tidegate.core.patterns import is_pattern

SECRET = "3f9c2ab17de84450b6a1c0d2e5f78899"
NOW = 1_800_000_000
LEEWAY_S = 10
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+\Z", re.ASCII)  # RFC 7515, 3.1 and 2: no padding

_verifier = Verifier(AuthSettings(mode="jwt", key=SECRET, leeway_s=LEEWAY_S))


def check(data: bytes) -> None:
    match data[:1]:
        case b"\0":
            _token(data[1:].decode(errors="replace"))
        case b"\1":
            header, claims, behind = (*data[1:].split(b"\n", 2), b"", b"")[:3]
            _token(signed(header, claims) + behind.decode(errors="replace"))
        case b"\2":
            _key(ALGORITHMS[sum(data[1:2]) & 3], data[2:])
        case b"\3":
            _set(ALGORITHMS[sum(data[1:2]) & 3], data[2:])


def signed(header: bytes, claims: bytes) -> str:
    signing = f"{_url(header)}.{_url(claims)}"
    return f"{signing}.{_url(_proof(signing))}"


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _proof(signing: str) -> bytes:
    return hmac.new(SECRET.encode(), signing.encode(), hashlib.sha256).digest()


def _token(token: str) -> None:
    _verifier._remembered.clear()
    try:
        grant = _verifier.verify(token, NOW)
    except Unauthorized as exc:
        assert len(token) < 40 or token not in str(exc), "a refusal repeats the token"
        return
    assert _verifier.verify(token, NOW) is grant, "remembered as something else"
    assert JWS.match(token), "what is taken is no JWS"
    signing, _, signature = token.rpartition(".")
    assert base64.urlsafe_b64decode(signature + "==") == _proof(signing), "the signature is wrong"
    head, _, body = signing.partition(".")
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == "HS256"
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert grant.client == claims["sub"]
    assert is_id(grant.client)
    assert grant.expires == float(claims["exp"]) > NOW - LEEWAY_S
    assert claims.get("nbf", 0) <= NOW + LEEWAY_S
    for name, patterns in (("groups", grant.groups), ("publish", grant.publish)):
        assert list(patterns or ()) == claims.get(name, [])
        assert all(map(is_pattern, patterns or ()))
    assert "aud" not in claims or claims["aud"] == [], "it is for somebody else"


def _key(algorithm: str, data: bytes) -> None:
    try:
        keys.load_key("auth.key", algorithm, data)
    except Unusable as exc:
        _holds_no(data, exc)


def _set(algorithm: str, data: bytes) -> None:
    try:
        found = keys._load_set(algorithm, data)
    except Unusable as exc:
        _holds_no(data, exc)
        return
    assert found.by_kid
    for fault in found.left_out:
        assert "\n" not in fault


def _holds_no(data: bytes, exc: Unusable) -> None:
    text = data.decode(errors="replace")
    said = str(exc).replace("-----BEGIN PUBLIC KEY-----", "")  # how a key would begin
    assert len(text) < 16 or text not in said, "a refusal repeats the key"
