"""Tokens for clients: JWTs with the claims of docs/protocol.md, Tokens. Needs PyJWT (the extra ``token``)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from tidegate_client.extras import of_extra
from tidegate_client.names import checked_id, checked_pattern

with of_extra("token", "jwt"):
    import jwt

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")  # those that a gateway can be set to (auth.algorithm)
SECRET_BYTES = 32  # RFC 7518, 3.2


class TokenSigner:
    """``key`` is the shared secret, or a private key as PEM. ``issuer`` and ``audience`` are set where the gateway asks
    for them, ``kid`` where it has a set of keys. Raises ValueError for what the gateway would not take."""

    def __init__(
        self,
        key: str | bytes,
        algorithm: str = "HS256",
        *,
        issuer: str | None = None,
        audience: str | None = None,
        kid: str | None = None,
    ) -> None:
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: one of {', '.join(ALGORITHMS)}")
        # The gateway reads its key without line breaks at the end, which editors and ``echo`` add.
        self._key = (key.encode() if isinstance(key, str) else key).rstrip(b"\r\n")
        if algorithm == "HS256" and len(self._key) < SECRET_BYTES:
            raise ValueError(f"the key has {len(self._key)} bytes; HS256 needs {SECRET_BYTES}")
        self._algorithm = algorithm
        self._always = {"iss": issuer, "aud": audience}
        self._headers = {"kid": kid} if kid else None

    def token(
        self,
        sub: str,
        groups: Iterable[str] = (),
        publish: Iterable[str] = (),
        expires_in: float | timedelta = 3600,
    ) -> str:
        """A token of the client ``sub`` for ``expires_in`` seconds. ``groups`` and ``publish`` are patterns of the
        groups that it may join and publish to. Raises ValueError."""
        seconds = expires_in.total_seconds() if isinstance(expires_in, timedelta) else expires_in
        if not seconds >= 1:
            raise ValueError("expires_in: 1 second or more")
        claims: dict[str, Any] = {"sub": checked_id("sub", sub), "exp": int(time.time() + seconds)}
        for name, patterns in (("groups", groups), ("publish", publish)):
            if isinstance(patterns, str):
                raise ValueError(f"{name}: a list of patterns, not one text")
            if given := [checked_pattern(name, pattern) for pattern in patterns]:
                claims[name] = given
        claims |= {name: value for name, value in self._always.items() if value is not None}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=self._headers)
