"""Keys and tokens for tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tidegate.auth.tokens import Verifier
from tidegate.config.auth import AuthSettings
from tidegate.core.errors import Unauthorized

NOW = 1_800_000_000.0
ALGORITHMS = ["HS256", "RS256", "ES256", "EdDSA"]
SECRET = "a shared secret of 32 bytes or more"


@cache
def private_key(algorithm: str, name: str = "") -> Any:
    """One for each name, made once."""
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "RS256 short":
            return rsa.generate_private_key(65537, 1024)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def private_pem(algorithm: str, name: str = "", password: bytes | None = None) -> bytes:
    """What signs; for HS256 the secret."""
    if algorithm == "HS256":
        return (SECRET + name).encode()
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private_key(algorithm, name).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def public_pem(algorithm: str, name: str = "") -> bytes:
    """What verifies; for HS256 the secret."""
    if algorithm == "HS256":
        return (SECRET + name).encode()
    return (
        private_key(algorithm, name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def make_token(algorithm: str = "HS256", name: str = "", kid: str | None = None, **claims: Any) -> str:
    """Good for an hour, for alice, unless ``claims`` says otherwise; a claim that is None is left out."""
    claims = {"sub": "alice", "exp": int(NOW) + 3600} | claims
    claims = {key: value for key, value in claims.items() if value is not None}
    headers = {"kid": kid} if kid else None
    return jwt.encode(claims, private_pem(algorithm, name), algorithm=algorithm, headers=headers)


def b64(data: bytes | Any) -> str:
    """``data`` as a segment of a token; what is no bytes as JSON."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(header: Any, payload: Any, secret: bytes = SECRET.encode()) -> str:
    """A token that no library would make, with a good signature."""
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def verifier(algorithm: Any = "HS256", **settings: Any) -> Verifier:
    if not settings.keys() & {"key", "key_file", "jwks_file"}:
        settings["key"] = public_pem(algorithm).decode()
    return Verifier(AuthSettings(mode="jwt", algorithm=algorithm, **settings))


def refusal(verifier: Verifier, token: str, now: float = NOW) -> str:
    """Why the token is refused, which is told without any part of it."""
    with pytest.raises(Unauthorized) as info:
        verifier.verify(token, now)
    assert info.value.__cause__ is None
    for part in token.split("."):
        assert len(part) < 6 or part not in info.value.message
    return info.value.message


def jwk(algorithm: str, name: str = "", *, private: bool = False, **members: Any) -> dict[str, Any]:
    """One key of a set; a member that is None is left out."""
    if algorithm == "HS256":
        key = {"kty": "oct", "k": b64(private_pem(algorithm, name))}
    else:
        own = private_key(algorithm, name)
        kinds: dict[str, Any] = {"RS": jwt.algorithms.RSAAlgorithm, "ES": jwt.algorithms.ECAlgorithm}
        kind = kinds.get(algorithm[:2], jwt.algorithms.OKPAlgorithm)
        key = kind.to_jwk(own if private else own.public_key(), as_dict=True)
    members = key | {"key_ops": None} | members
    return {name: value for name, value in members.items() if value is not None}


# What is no Host header, and makes no Origin.
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
