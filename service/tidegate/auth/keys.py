"""The keys that tokens are verified with: where the configuration says that they are, and what is no key for that.

A key is looked at when it is loaded, so that what cannot verify is said then and not by each token. In a JSON Web Key
Set a key that cannot be used is left out and told of, and the others work (RFC 7517, 5): the set is the issuer's, and
what it adds must not lock everybody out.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import load_der_x509_certificate

from tidegate.auth.key_files import read, without_end
from tidegate.config.auth import AuthSettings
from tidegate.core.errors import Unusable

SECRET_BYTES = 32  # RFC 7518, 3.2
SECRET_VARIETY = 8  # different bytes; 32 random ones, as hexadecimal digits too, have more but once in 10^20 times

NEEDS_KEY = "needs a key; set auth.key, auth.key_file, auth.keys or auth.jwks_file (tidegate token --new-key makes one)"

Key: TypeAlias = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey


class Keys(NamedTuple):
    """``by_kid``: a key without a kid is alone. ``left_out``: which keys of a set are not in it, and why, in words."""

    by_kid: dict[str | None, Key]
    left_out: tuple[str, ...] = ()


def load(auth: AuthSettings) -> Keys:
    """The keys that tokens are verified with. Raises Unusable."""
    if auth.jwks_file is not None:
        return _load_set(auth.algorithm, read("auth.jwks_file", auth.jwks_file))
    found = configured(auth)
    if not found:
        raise Unusable("auth.mode", NEEDS_KEY)
    return Keys({kid: load_key(name, auth.algorithm, data) for kid, (name, data) in found.items()})


def configured(auth: AuthSettings) -> dict[str | None, tuple[str, bytes]]:
    """By kid, the name of the setting that holds a key, and the key as text; a key that has none first. Raises
    Unusable."""
    found: dict[str | None, tuple[str, bytes]] = {}
    if auth.key is not None:
        found[None] = "auth.key", without_end(auth.key.encode())
    elif auth.key_file is not None:
        found[None] = "auth.key_file", read("auth.key_file", auth.key_file)
    for number, one in enumerate(auth.keys):
        name = f"auth.keys[{number}]"
        found[one.kid] = name, without_end(one.key.encode()) if one.key else read(name, one.key_file or "")
    return found


def load_key(name: str, algorithm: str, data: bytes) -> Key:
    """The shared secret, or the public key in a PEM text; of a private key its public half. Raises Unusable."""
    key: Any = data
    if algorithm != "HS256":
        try:
            private = b"PRIVATE KEY-----" in data
            key = load_pem_private_key(data, password=None).public_key() if private else load_pem_public_key(data)
        except TypeError:
            raise Unusable(name, "the private key is encrypted; give the public key") from None
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise Unusable(
                name, "not a key as PEM: a line -----BEGIN PUBLIC KEY-----, base64 in lines, an end line"
            ) from exc
    if fault := _fault(algorithm, key):
        raise Unusable(name, fault)
    return key  # type: ignore[no-any-return]


# Sets of keys


class _Jwk(msgspec.Struct, frozen=True):
    """What tells for what a key is meant."""

    kty: str
    kid: str | None = None
    crv: str | None = None
    alg: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None

    def is_for(self, algorithm: str) -> bool:
        kty, curves = _JWK_KINDS[algorithm]
        return (
            self.kty == kty
            and (not curves or self.crv in curves)
            and self.alg in (None, algorithm)
            and self.use in (None, "sig")
            and (self.key_ops is None or "verify" in self.key_ops)
        )


class _KeySet(msgspec.Struct):
    keys: list[msgspec.Raw]


_JWK_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {  # kty, and crv where it has one
    "HS256": ("oct", ()),
    "RS256": ("RSA", ()),
    "ES256": ("EC", ("P-256",)),
    "EdDSA": ("OKP", ("Ed25519", "Ed448")),
}


def _load_set(algorithm: str, data: bytes) -> Keys:
    """The keys of a JWK Set (RFC 7517) that are meant to verify ``algorithm``. Those for something else are left out
    without a word, as issuers publish all of theirs in one. Raises Unusable where no key is left."""
    name = "auth.jwks_file"
    try:
        raws = msgspec.json.decode(data, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise Unusable(name, f"not a JSON Web Key Set: {exc}") from exc
    found: list[tuple[str, str | None, Key]] = []
    left_out: list[str] = []
    for number, raw in enumerate(raws, 1):
        place = f"key {number}"
        try:
            jwk = msgspec.json.decode(raw, type=_Jwk)
            if not jwk.is_for(algorithm):
                continue
            if jwk.kid is not None:
                place += f" ({jwk.kid[:100]!a})"
            found.append((place, jwk.kid, _from_jwk(algorithm, raw)))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            left_out.append(f"{place} is malformed: {exc}")
        except ValueError as exc:
            left_out.append(f"{place} {exc}")
    keys: dict[str | None, Key] = {}
    for place, kid, key in found:
        if kid is None and len(found) > 1:
            left_out.append(f"{place} has no kid, which each needs where there are several")
        elif kid in keys:
            left_out.append(f"{place} has the kid of another before it")
        else:
            keys[kid] = key
    if not keys:
        raise Unusable(name, "; ".join([f"holds no key for {algorithm}", *left_out[:5]]))
    return Keys(keys, tuple(left_out))


def _from_jwk(algorithm: str, raw: msgspec.Raw) -> Key:
    """Raises ValueError, with what follows the key's name."""
    try:
        key: Any = _ALGORITHMS.get_algorithm_by_name(algorithm).from_jwk(bytes(raw).decode())
    except Exception as exc:  # PyJWT lets through whatever reading it meets: TypeError, KeyError, ...
        raise ValueError("is malformed") from exc
    key = key.public_key() if hasattr(key, "public_key") else key
    if fault := _fault(algorithm, key):
        raise ValueError(f"does not fit: {fault}")
    return key  # type: ignore[no-any-return]


_ALGORITHMS = jwt.PyJWS()


# What a key must be


def _fault(algorithm: str, key: Any) -> str:
    """Why ``key`` cannot verify tokens of ``algorithm``; empty where it can."""
    match algorithm:
        case "HS256":
            return secret_fault(key)
        case "RS256":
            fits = isinstance(key, RSAPublicKey) and key.key_size >= 2048
        case "ES256":
            fits = isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        case _:
            fits = isinstance(key, Ed25519PublicKey | Ed448PublicKey)
    return "" if fits else f"{algorithm} needs {_NEEDS[algorithm]}"


_NEEDS = {
    "RS256": "an RSA key of at least 2048 bits",  # RFC 7518, 3.3
    "ES256": "an EC key on the curve P-256",
    "EdDSA": "an Ed25519 or Ed448 key",
}


def secret_fault(secret: bytes) -> str:
    """Why ``secret`` is no shared secret for HS256; empty where it may be one. Holds no part of it."""
    cure = "`openssl rand -hex 32` makes one"
    if len(secret) < SECRET_BYTES:
        return f"must have at least {SECRET_BYTES} bytes for auth.algorithm HS256, and has {len(secret)}; {cure}"
    if _is_key(secret):
        return (
            "HS256 needs a shared secret, and this is a key of another kind, with which whoever has it could sign "
            f"tokens; set auth.algorithm to the key's, or take a secret: {cure}"
        )
    if len(set(secret)) < SECRET_VARIETY:
        return f"is easy to guess, with {len(set(secret))} different bytes in it; {cure}"
    if _has_blank_ends(secret):
        return "begins or ends with blanks, which the issuer's hardly does; take them out"
    if secret.startswith(_MARKS):
        return "begins with a byte order mark, which an editor has added; save the file as UTF-8 without it"
    return ""


_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _has_blank_ends(secret: bytes) -> bool:
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return False  # no text: a blank is a byte like any other
    return text.strip() != text


def _is_key(secret: bytes) -> bool:
    """Whether it is a key for another algorithm, as such or in another coat: PEM, DER, SSH's, a JWK."""
    return any(_looks_like_key(data) for data in _unpacked(secret))


def _unpacked(secret: bytes) -> Iterator[bytes]:
    yield secret
    packed = b"".join(secret.split())
    decoders: tuple[Callable[[bytes], bytes], ...] = (
        binascii.unhexlify,
        lambda data: base64.b64decode(data + b"==", altchars=b"-_" if b"-" in data or b"_" in data else None),
    )
    for decode in decoders:
        try:
            data = decode(packed)
        except ValueError:
            continue
        if data:
            yield data


def _looks_like_key(data: bytes) -> bool:
    try:
        _ALGORITHMS.get_algorithm_by_name("HS256").prepare_key(data)  # knows PEM and SSH's
    except jwt.InvalidKeyError:
        return True
    if re.search(rb'"kty"\s*:', data) or re.match(rb"\x00\x00\x00.(ssh|ecdsa)-", data, re.DOTALL):
        return True
    for read_der in (load_der_public_key, load_der_x509_certificate, lambda der: load_der_private_key(der, None)):
        try:
            read_der(data)
        except TypeError:  # a private key with a password
            return True
        except (ValueError, UnsupportedAlgorithm):
            continue
        return True
    return False
