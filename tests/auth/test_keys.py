"""With which keys tokens are verified and signed, and how the keys change."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.service_fixture import running
from tests.support import Logs
from tests.tokens import ALGORITHMS, NOW, SECRET, b64, jwk, make_token, private_pem, public_pem, refusal, verifier
from tidegate.auth.grants import Grant
from tidegate.auth.keys import load, secret_fault
from tidegate.auth.tokens import Verifier, sign
from tidegate.config.auth import AuthSettings, NamedKey
from tidegate.core.errors import Unusable

# Keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_may_lie_in_a_file_and_be_the_private_one(algorithm: str, tmp_path: Path):
    for data in (public_pem(algorithm), private_pem(algorithm) + b"\r\n\n"):
        file = tmp_path / "key"
        file.write_bytes(data)
        assert verifier(algorithm, key_file=str(file)).verify(make_token(algorithm), NOW).client == "alice"


@pytest.mark.parametrize(
    ("algorithm", "data", "message"),
    [
        ("HS256", b"x" * 31 + b"\n", "must have at least 32 bytes for auth.algorithm HS256, and has 31"),
        ("HS256", b"", "must have at least 32 bytes for auth.algorithm HS256, and has 0"),
        ("HS256", "RS256", "HS256 needs a shared secret, and this is a key of another kind"),
        ("RS256", "ES256", "RS256 needs an RSA key of at least 2048 bits"),
        ("RS256", "RS256 short", "RS256 needs an RSA key of at least 2048 bits"),
        ("ES256", "RS256", "ES256 needs an EC key on the curve P-256"),
        ("ES256", "ES384", "ES256 needs an EC key on the curve P-256"),
        ("EdDSA", "ES256", "EdDSA needs an Ed25519 or Ed448 key"),
        ("EdDSA", b"a shared secret of 32 bytes or more", "not a key as PEM"),
        ("RS256", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a key as PEM"),
        ("RS256", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a key as PEM"),
        ("RS256", b"\xff\x00", "not a key as PEM"),
    ],
)
def test_a_key_that_does_not_fit_the_algorithm_is_refused_at_the_start(
    algorithm: str, data: bytes | str, message: str, tmp_path: Path
):
    file = tmp_path / "key"
    file.write_bytes(public_pem(data) if isinstance(data, str) else data)
    with pytest.raises(ValueError, match=f"^auth.key_file: {message}"):
        verifier(algorithm, key_file=str(file))


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^auth\.key_file: cannot read .*/none: No such file or directory"):
        verifier(key_file=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"^auth\.key_file: cannot read .*: Is a directory"):
        verifier(key_file=str(tmp_path))
    with pytest.raises(ValueError, match=r"^auth\.key_file: /dev/zero is no regular file"):
        verifier(key_file="/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * (1 << 20) + b"y")
    with pytest.raises(ValueError, match=r"^auth\.key_file: .*/large has more than 1048576 bytes"):
        verifier(key_file=str(tmp_path / "large"))
    with pytest.raises(ValueError, match=r"^auth\.jwks_file: cannot read .*/none"):
        verifier(jwks_file=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"^auth\.key: RS256 needs an RSA key"):
        verifier("RS256", key=public_pem("ES256").decode())
    (tmp_path / "key").write_bytes(private_pem("RS256", password=b"x"))
    with pytest.raises(ValueError, match=r"^auth\.key_file: the private key is encrypted"):
        verifier("RS256", key_file=str(tmp_path / "key"))
    with pytest.raises(ValueError, match=r"needs a key; set auth.key, auth.key_file, auth.keys or auth.jwks_file"):
        Verifier(AuthSettings(mode="jwt"))


def _packed(data: bytes) -> bytes:
    """The base64 lines of a PEM text, in one."""
    return b"".join(line for line in data.splitlines() if not line.startswith(b"-----"))


ANOTHER_KIND = "a key of another kind, with which whoever has it could sign tokens"
BAD_SECRETS = {
    "base64": (_packed(public_pem("RS256")), ANOTHER_KIND),
    "base64-lines": (b"\n".join(public_pem("RS256").splitlines()[1:-1]), ANOTHER_KIND),
    "base64-url": (b64(base64.b64decode(_packed(public_pem("ES256")))).encode(), ANOTHER_KIND),
    "base64-of-pem": (base64.b64encode(public_pem("EdDSA")), ANOTHER_KIND),
    "hexadecimal": (base64.b64decode(_packed(public_pem("EdDSA"))).hex().encode(), ANOTHER_KIND),
    "der": (base64.b64decode(_packed(public_pem("ES256"))), ANOTHER_KIND),
    "private": (_packed(private_pem("ES256")), ANOTHER_KIND),
    "ssh": (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJyx8w8Jb1Yx0mXWl5yqv8pGQ5n0F5a9n9vH6m2c7x1d", ANOTHER_KIND),
    "ssh-base64": (b"AAAAC3NzaC1lZDI1NTE5AAAAIJyx8w8Jb1Yx0mXWl5yqv8pGQ5n0F5a9n9vH6m2c7x1d", ANOTHER_KIND),
    "jwk": (json.dumps(jwk("ES256")).encode(), ANOTHER_KIND),
    "blanks": (b" " * 40, "is easy to guess, with 1 different bytes in it"),
    "zeros": (bytes(32), "is easy to guess, with 1 different bytes in it"),
    "repeated": (b"secret" * 8, "is easy to guess, with 5 different bytes in it"),
    "blank-in-front": (b" " + SECRET.encode(), "begins or ends with blanks"),
    "blank-at-the-end": (SECRET.encode() + b" \n", "begins or ends with blanks"),
    "marked": (b"\xef\xbb\xbf" + SECRET.encode(), "begins with a byte order mark"),
    "utf-16": (SECRET.encode("utf-16"), "begins with a byte order mark"),
}


@pytest.mark.parametrize(("secret", "message"), BAD_SECRETS.values(), ids=BAD_SECRETS)
def test_what_is_no_secret_is_not_taken_for_one(secret: bytes, message: str, tmp_path: Path):
    (tmp_path / "key").write_bytes(secret)
    with pytest.raises(ValueError, match=rf"^auth\.key_file: .*{message}") as caught:
        verifier(key_file=str(tmp_path / "key"))
    assert secret.decode("latin-1").strip()[:8] not in str(caught.value) or not secret.strip(b" \0")


@given(st.binary(min_size=32, max_size=64))
def test_random_bytes_are_a_secret_in_every_coat(secret: bytes):
    assume(len(set(secret)) >= 20)  # as 32 random ones have
    assert secret_fault(secret.hex().encode()) == ""
    assert secret_fault(b64(secret).encode()) == ""
    assert secret_fault(base64.b64encode(secret)) == ""
    assert secret_fault(b"\x80" + secret) == ""  # no text, in which a blank at the end would be a mistake


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_line_breaks_at_the_end_are_no_part_of_a_secret(end: str, tmp_path: Path):
    (tmp_path / "key").write_text(SECRET + end)
    for auth in (AuthSettings(mode="jwt", key=SECRET + end), AuthSettings(mode="jwt", key_file=str(tmp_path / "key"))):
        assert Verifier(auth).verify(make_token(), NOW).client == "alice"
        assert verifier().verify(sign(auth, {"sub": "bob", "exp": NOW + 9}), NOW)


# JWKS files


class KeySet:
    """A JWKS file that is rotated."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jwks.json"

    def write(self, *keys: Any) -> KeySet:
        self.write_bytes(json.dumps({"keys": keys}).encode())
        return self

    def write_bytes(self, data: bytes) -> None:
        """As one does it: whole, or not at all."""
        new = self.path.with_suffix(".new")
        new.write_bytes(data)
        new.rename(self.path)


@pytest.fixture
def key_set(tmp_path: Path) -> KeySet:
    return KeySet(tmp_path)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("private", [False, True])
def test_the_key_is_the_one_that_the_token_names(algorithm: str, private: bool, key_set: KeySet):
    key_set.write(jwk(algorithm, "a", private=private, kid="a"), jwk(algorithm, "b", private=private, kid="b"))
    check = verifier(algorithm, jwks_file=str(key_set.path))
    assert check.verify(make_token(algorithm, "a", kid="a"), NOW)
    assert check.verify(make_token(algorithm, "b", kid="b"), NOW)
    assert refusal(check, make_token(algorithm, "a", kid="b")) == "the token's signature is wrong"
    assert refusal(check, make_token(algorithm, "a", kid="c")) == "the token names a key (kid) that is not known"
    assert refusal(check, make_token(algorithm, "a")) == "the token names no key (kid), and there are several"
    assert refusal(check, "x.y.z") == "the token is not a JWT"


def test_a_single_key_need_not_be_named(key_set: KeySet):
    check = verifier("ES256", jwks_file=str(key_set.write(jwk("ES256", kid="a")).path))
    assert check.verify(make_token("ES256"), NOW)
    assert check.verify(make_token("ES256", kid="a"), NOW)
    assert refusal(check, make_token("ES256", kid="b")) == "the token names a key (kid) that is not known"
    check = verifier("ES256", jwks_file=str(key_set.write(jwk("ES256")).path))
    assert check.verify(make_token("ES256"), NOW)
    assert check.verify(make_token("ES256", kid="a"), NOW)


def test_keys_for_something_else_are_left_out(key_set: KeySet):
    key_set.write(
        jwk("ES256", "a", kid="a", alg="ES256", use="sig", key_ops=["verify"], x5t="unknown"),
        jwk("RS256", kid="a"),
        jwk("ES384", kid="a"),
        jwk("ES256", "b", kid="b", alg="ES384"),
        jwk("ES256", "b", kid="b", use="enc"),
        jwk("ES256", "b", kid="b", key_ops=["encrypt"]),
        {"kty": "new", "kid": "b"},
    )
    check = verifier("ES256", jwks_file=str(key_set.path))
    assert check.verify(make_token("ES256", "a", kid="a"), NOW)
    assert refusal(check, make_token("ES256", "b", kid="b")) == "the token names a key (kid) that is not known"


BAD_KEY_SETS = {
    "no-json": (b"x", "not a JSON Web Key Set"),
    "empty": (b"", "not a JSON Web Key Set"),
    "a-list": (b"[]", "not a JSON Web Key Set"),
    "no-utf8": (b'{"keys":[{"kty":"\xff"}]}', "holds no key for ES256; key 1 is malformed"),
    "deep": (b'{"keys":' + b"[" * 5000, "not a JSON Web Key Set"),
    "no-keys": (b'{"keys":[]}', "holds no key for ES256"),
    "keys-are-none": (b'{"keys":[1]}', "holds no key for ES256; key 1 is malformed"),
    "of-another-kind": (json.dumps({"keys": [jwk("RS256", kid="a")]}).encode(), "holds no key for ES256$"),
    "no-kid": (
        json.dumps({"keys": [jwk("ES256"), jwk("ES256", "b")]}).encode(),
        "key 2 has no kid, which each needs where there are several",
    ),
    "half": (json.dumps({"keys": [jwk("ES256", kid="a", y=None)]}).encode(), r"key 1 \('a'\) is malformed"),
}


@pytest.mark.parametrize(("data", "message"), BAD_KEY_SETS.values(), ids=BAD_KEY_SETS)
def test_a_key_set_that_cannot_be_used_is_refused_at_the_start(data: bytes, message: str, key_set: KeySet):
    key_set.write_bytes(data)
    with pytest.raises(ValueError, match=rf"^auth\.jwks_file: .*{message}"):
        verifier("ES256", jwks_file=str(key_set.path))


# What an issuer may publish beside good keys (RFC 7517, 5): the key, and the words in which it is told of.
UNUSABLE = {
    "short": ("RS256", jwk("RS256 short", kid="b"), "('b') does not fit: RS256 needs an RSA key of at least 2048 bits"),
    "short-secret": ("HS256", {"kty": "oct", "kid": "b", "k": "c2VjcmV0"}, "('b') does not fit: must have at least 32"),
    "public-secret": ("HS256", {"kty": "oct", "kid": "b", "k": b64(public_pem("ES256"))}, "a key of another kind"),
    "no-n": ("RS256", jwk("RS256", kid="b", n=None), "('b') is malformed"),
    "no-kty": ("RS256", jwk("RS256", kid="b", kty=None), "key 2 is malformed: Object missing required field `kty`"),
    "numeric-kid": ("RS256", jwk("RS256", "b", kid=7), "key 2 is malformed: Expected `str | null`, got `int`"),
    "double": ("RS256", jwk("RS256", "b", kid="a"), "('a') has the kid of another before it"),
    "no-kid": ("RS256", jwk("RS256", "b"), "key 2 has no kid, which each needs where there are several"),
    "no-object": ("RS256", 1, "key 2 is malformed: Expected `object`, got `int`"),
    "odd-n": ("RS256", jwk("RS256", kid="b", n=5), "('b') is malformed"),
    "off-the-curve": ("ES256", jwk("ES256", kid="b", y="A" * 43), "('b') is malformed"),
    "odd-x": ("EdDSA", jwk("EdDSA", kid="b", x="!"), "('b') is malformed"),
    "odd-kid": ("ES256", jwk("ES256", kid="b\n\x1b[2J", y=None), "key 2 ('b\\n\\x1b[2J') is malformed"),
}


@pytest.mark.parametrize(("algorithm", "bad", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_key_that_cannot_be_used_is_left_out_of_a_set_and_the_others_work(
    algorithm: str, bad: Any, message: str, key_set: KeySet, expected_logs: Logs
):
    good = jwk(algorithm, "a", kid="a")
    check = verifier(algorithm, jwks_file=str(key_set.write(good, bad).path))
    assert check.verify(make_token(algorithm, "a", kid="a"), NOW)
    (text,) = check.left_out
    assert message in text

    # The same when it comes by a rotation, beside a new key.
    key_set.write(good, bad, jwk(algorithm, "c", kid="c"))
    expected_logs.expect("auth.jwk_ignored")
    assert check.verify(make_token(algorithm, "c", kid="c"), NOW + 1)
    assert check.verify(make_token(algorithm, "a", kid="a"), NOW + 1)
    (record,) = expected_logs.seen("auth.jwk_ignored")
    assert message in record.__dict__["fields"]["error"]


async def test_a_key_that_is_left_out_is_told_of_once_at_the_start(key_set: KeySet, expected_logs: Logs):
    key_set.write(jwk("ES256", "a", kid="a"), jwk("ES256", kid="b", y=None), jwk("ES256", "c", kid="a"))
    expected_logs.expect("auth.jwk_ignored")
    async with running(AUTH__MODE="jwt", AUTH__ALGORITHM="ES256", AUTH__JWKS_FILE=str(key_set.path)):
        told = [record.__dict__["fields"]["error"] for record in expected_logs.seen("auth.jwk_ignored")]
    assert told == ["key 2 ('b') is malformed", "key 3 ('a') has the kid of another before it"]


def test_a_clock_that_steps_back_does_not_stop_the_rotation(key_set: KeySet):
    key_set.write(jwk("RS256", "a", kid="a"))
    check = verifier("RS256", jwks_file=str(key_set.path))
    assert check.verify(make_token("RS256", "a", kid="a"), NOW)
    key_set.write(jwk("RS256", "b", kid="b"))
    assert check.verify(make_token("RS256", "b", kid="b"), NOW - 1000)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_keys_are_rotated_without_a_restart(algorithm: str, key_set: KeySet):
    old, new = make_token(algorithm, "a", kid="a"), make_token(algorithm, "b", kid="b")
    key_set.write(jwk(algorithm, "a", kid="a"))
    check = verifier(algorithm, jwks_file=str(key_set.path))
    assert check.verify(old, NOW)
    assert refusal(check, new) == "the token names a key (kid) that is not known"

    key_set.write(jwk(algorithm, "a", kid="a"), jwk(algorithm, "b", kid="b"))
    assert refusal(check, new, NOW + 0.9) == "the token names a key (kid) that is not known"  # looked at once a second
    assert check.verify(new, NOW + 1)
    assert check.verify(old, NOW + 1)

    key_set.write(jwk(algorithm, "b", kid="b"))
    assert check.verify(new, NOW + 2)
    assert refusal(check, old, NOW + 2) == "the token names a key (kid) that is not known"


@pytest.mark.parametrize("data", [data for data, _ in BAD_KEY_SETS.values()], ids=BAD_KEY_SETS)
def test_a_new_key_set_that_cannot_be_used_leaves_the_old_keys(data: bytes, key_set: KeySet, expected_logs: Logs):
    expected_logs.expect("auth.jwks_refused")
    token = make_token("ES256")
    check = verifier("ES256", jwks_file=str(key_set.write(jwk("ES256", kid="a")).path))
    key_set.write_bytes(data)
    for second in (1, 2, 3):
        assert check.verify(token, NOW + second)
        assert check.verify(make_token("ES256", n=second), NOW + second)
    assert len(expected_logs.seen("auth.jwks_refused")) == 1, "said once"
    key_set.write(jwk("ES256", "b", kid="b"))
    assert check.verify(make_token("ES256", "b", kid="b"), NOW + 4)


def test_a_key_set_that_is_missing_for_a_while_is_read_when_it_is_back(key_set: KeySet, expected_logs: Logs):
    expected_logs.expect("auth.jwks_refused")
    check = verifier("ES256", jwks_file=str(key_set.write(jwk("ES256", kid="a")).path))
    key_set.path.unlink()
    for second in (1, 2, 3):
        assert check.verify(make_token("ES256"), NOW + second)
    assert len(expected_logs.seen("auth.jwks_refused")) == 1, "said once"
    key_set.write(jwk("ES256", "b", kid="b"))
    assert check.verify(make_token("ES256", "b", kid="b"), NOW + 4)


def test_a_file_of_the_same_size_and_time_is_noticed_when_it_replaces_another(key_set: KeySet):
    check = verifier("ES256", jwks_file=str(key_set.write(jwk("ES256", "a", kid="a")).path))
    before = os.stat(key_set.path)
    key_set.write(jwk("ES256", "b", kid="b"))
    os.utime(key_set.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(key_set.path).st_size == before.st_size
    assert check.verify(make_token("ES256", "b", kid="b"), NOW + 1)


# Signing


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_made_that_the_same_configuration_takes(algorithm: Any, tmp_path: Path):
    file = tmp_path / "key"
    file.write_bytes(private_pem(algorithm) + b"\n")
    settings = AuthSettings(mode="jwt", algorithm=algorithm, key_file=str(file), issuer="me", audience="push")
    token = sign(settings, {"sub": "alice", "exp": int(NOW) + 60, "groups": ["news"]})
    assert Verifier(settings).verify(token, NOW) == Grant("alice", ("news",), (), NOW + 60)
    other = sign(settings, {"sub": "alice", "exp": int(NOW) + 60, "iss": "you"})
    assert refusal(Verifier(settings), other) == "the token is from another issuer (iss)"


def test_a_token_is_signed_with_the_secret_of_the_configuration():
    settings = AuthSettings(mode="jwt", key=SECRET)
    assert Verifier(settings).verify(sign(settings, {"sub": "alice", "exp": NOW + 60}), NOW).client == "alice"


def test_a_token_is_signed_for_a_key_of_a_set(key_set: KeySet, tmp_path: Path):
    key_set.write(jwk("ES256", "a", kid="a"), jwk("ES256", "b", kid="b"))
    settings = AuthSettings(mode="jwt", algorithm="ES256", jwks_file=str(key_set.path))
    (tmp_path / "key").write_bytes(private_pem("ES256", "b"))
    token = sign(settings, {"sub": "alice", "exp": NOW + 60}, key_file=str(tmp_path / "key"), kid="b")
    assert Verifier(settings).verify(token, NOW).client == "alice"


def test_what_cannot_be_signed_is_said(tmp_path: Path):
    file = tmp_path / "key"
    claims = {"sub": "alice", "exp": NOW + 60}

    def refused(message: str, data: bytes | None = None, claims: dict[str, Any] = claims, **settings: Any) -> None:
        file.write_bytes(data or b"")
        key_file = str(file) if data is not None else None
        with pytest.raises(ValueError, match=message):
            sign(AuthSettings(**{"mode": "jwt", "algorithm": "ES256"} | settings), claims, key_file=key_file)

    refused("^key_file: to sign, a private key is needed", public_pem("ES256"))
    refused("^key_file: ES256 needs an EC key on the curve P-256", private_pem("RS256"))
    refused("^key_file: the private key is encrypted", private_pem("ES256", password=b"x"))
    refused("^key_file: not a key as PEM", b"x")
    refused("^auth.key: to sign, a private key is needed", key=public_pem("ES256").decode())
    refused("^auth.jwks_file: to sign, name the file of a private key", jwks_file="jwks.json")
    refused("^auth.key_file: cannot read", key_file=str(tmp_path / "none"))
    refused("needs a key; set auth.key, auth.key_file, auth.keys or auth.jwks_file")
    refused("^auth.key: must have at least 32 bytes", algorithm="HS256", key="short")
    refused("^claims: ", private_pem("ES256"), {"sub": object()})


# Several keys


def several(*kids: str, **settings: Any) -> Verifier:
    keys = [NamedKey(kid=kid, key=SECRET + kid) for kid in kids]
    return Verifier(AuthSettings(mode="jwt", keys=keys, **settings))


def test_a_token_names_one_of_several_keys() -> None:
    check = several("old", "new")
    for kid in ("old", "new"):
        assert check.verify(make_token(name=kid, kid=kid), NOW).client == "alice"
    assert "signature" in refusal(check, make_token(name="old", kid="new"))
    assert "not known" in refusal(check, make_token(name="old", kid="other"))
    assert "names no key" in refusal(check, make_token(name="old"))
    assert several("only").verify(make_token(name="only"), NOW).client == "alice"


def test_a_key_without_a_name_is_for_tokens_that_name_none_of_the_others() -> None:
    check = several("new", key=SECRET)
    for token in (make_token(), make_token(kid="whatever"), make_token(name="new", kid="new")):
        assert check.verify(token, NOW).client == "alice"
    assert "signature" in refusal(check, make_token(kid="new"))


def test_each_of_several_keys_is_looked_at_when_it_is_loaded() -> None:
    with pytest.raises(Unusable, match=r"auth\.keys\[1\].*at least 32 bytes"):
        Verifier(AuthSettings(mode="jwt", keys=[NamedKey(kid="a", key=SECRET), NamedKey(kid="b", key="short")]))


def test_keys_that_are_taken_are_said_by_name_and_tokens_of_those_that_are_gone_are_refused() -> None:
    check = several("a", "b", "c")
    token = make_token(name="a", kid="a")
    check.verify(token, NOW)
    new = {"b": "b", "c": "x", "d": "d"}
    auth = AuthSettings(mode="jwt", keys=[NamedKey(kid=kid, key=SECRET + end) for kid, end in new.items()])
    assert check.take(auth, load(auth)) == ["auth: key a is gone", "auth: key c has changed", "auth: key d is new"]
    assert "not known" in refusal(check, token)
    assert check.verify(make_token(name="d", kid="d"), NOW).client == "alice"
    assert check.take(auth, load(auth)) == []


def test_the_first_key_signs_or_the_one_that_is_named() -> None:
    auth = AuthSettings(mode="jwt", keys=[NamedKey(kid="new", key=SECRET), NamedKey(kid="old", key=SECRET + "old")])
    for kid, named in ((None, "new"), ("old", "old")):
        token = sign(auth, {"sub": "alice", "exp": NOW + 60}, kid=kid)
        assert jwt.get_unverified_header(token)["kid"] == named
        assert Verifier(auth).verify(token, NOW).client == "alice"
    with pytest.raises(ValueError, match="none of them"):
        sign(auth, {"sub": "alice"}, kid="other")
