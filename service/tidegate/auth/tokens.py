"""Tokens: what one allows, and how one is signed. Decisions only: nothing is sent, and the time is an argument.

A token is a JWT (RFC 7519). Its algorithm and its key are chosen by the configuration, never by the token (RFC 8725,
3.1), and what it allows becomes a ``Grant``. Every refusal says what is wrong and holds no part of the token.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import UNSET, UnsetType

from tidegate import log
from tidegate.auth import key_files
from tidegate.auth import keys as auth_keys
from tidegate.auth.grants import Grant, Patterns, SharedPatterns
from tidegate.auth.keys import Key
from tidegate.config.auth import AuthSettings
from tidegate.config.changes import changes
from tidegate.core.errors import Unauthorized
from tidegate.core.model import is_id
from tidegate.core.patterns import is_pattern

TOKEN_BYTES = 8192


# RFC 7515, 7.1: base64url without padding. PyJWT passes over more or less of what stands behind it, by its version; and
# what is taken goes on to edges, in lines.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\Z", re.ASCII)

_LOOK_S = 1.0  # how often the JWKS file's times are looked at
_REMEMBERED_BYTES = 16 * 1024 * 1024  # of tokens: 20,000 with a few patterns each


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    exp: float
    nbf: float | UnsetType = UNSET
    iss: str | UnsetType = UNSET
    aud: str | list[str] | UnsetType = UNSET
    groups: Patterns = ()
    publish: Patterns = ()


class _Verified(NamedTuple):
    grant: Grant
    exp: float
    nbf: float

    @property
    def size(self) -> int:
        """Bytes in memory, about, as if nothing were shared with others."""
        patterns = self.grant.groups or (), self.grant.publish or ()
        return 600 + sum(60 + len(pattern) for some in patterns for pattern in some)


class _Remembered:
    """Tokens that were good, by their hash, until they expire or there are too many: then the ones that would expire
    first are forgotten. ``bytes`` is what all of them take."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._verified: dict[bytes, _Verified] = {}
        self._by_end: list[tuple[float, bytes]] = []  # a heap, the same tokens as above
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._verified)

    def get(self, digest: bytes) -> _Verified | None:
        return self._verified.get(digest)

    def add(self, digest: bytes, verified: _Verified) -> None:
        self._verified[digest] = verified
        self.bytes += verified.size
        heapq.heappush(self._by_end, (verified.exp, digest))
        while self.bytes > self._most_bytes:
            self._forget_first()

    def forget_until(self, exp: float) -> None:
        """Those that expired at ``exp`` or before."""
        while self._by_end and self._by_end[0][0] <= exp:
            self._forget_first()

    def _forget_first(self) -> None:
        _, digest = heapq.heappop(self._by_end)
        self.bytes -= self._verified.pop(digest).size

    def clear(self) -> None:
        self._verified.clear()
        self._by_end.clear()
        self.bytes = 0


_decode_claims = msgspec.json.Decoder(_Claims).decode


class Verifier:
    """Turns tokens into grants. Raises Unusable at construction where there is no key that can be used; ``left_out``
    says in words which keys of a set cannot.

    A token that was good is remembered, by its hash, until it expires: in a reconnect storm the same tokens come
    again. What depends on time is checked again from what is remembered; new keys forget all.
    """

    def __init__(self, auth: AuthSettings) -> None:
        self._auth = auth
        self._jws = jwt.PyJWS(algorithms=[auth.algorithm])
        self._stamp = key_files.stamp(auth.jwks_file) if auth.jwks_file else None
        self._looked_s = 0.0
        self._keys, self.left_out = auth_keys.load(auth)
        self._remembered = _Remembered(_REMEMBERED_BYTES)
        self._patterns = SharedPatterns()

    def verify(self, token: str, now: float) -> Grant:
        """What ``token`` allows at ``now`` (Unix seconds). Raises Unauthorized."""
        if len(token) > TOKEN_BYTES:
            raise Unauthorized(f"the token is longer than {TOKEN_BYTES} bytes")
        if not token.isascii():
            raise Unauthorized("the token is not a JWT")
        self._follow_file(now)
        leeway_s = self._auth.leeway_s
        self._remembered.forget_until(now - leeway_s)
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered.get(digest)
        verified = known or self._examine(token)
        if now >= verified.exp + leeway_s:
            raise Unauthorized("the token has expired")
        if now < verified.nbf - leeway_s:
            raise Unauthorized("the token is not valid yet")
        if known is None:
            self._remembered.add(digest, verified)
        return verified.grant

    def take(self, auth: AuthSettings, keys: auth_keys.Keys) -> list[str]:
        """From now on the keys of ``auth``, which ``keys`` are; what changes by that, in words without secrets."""
        before, self._keys = self._keys, keys.by_kid
        self.left_out = keys.left_out
        names = {name: getattr(auth, name) for name in ("key", "key_file", "keys", "jwks_file")}
        self._auth = msgspec.structs.replace(self._auth, **names)
        self._stamp = key_files.stamp(auth.jwks_file) if auth.jwks_file else None
        changed = [f"auth: key {name_of(kid)} {how}" for kid, how in changes(before, self._keys)]
        if changed:
            self._remembered.clear()
        self.tell_left_out()
        return changed

    def _follow_file(self, now: float) -> None:
        """Reads the JWKS file again when it has changed; looked at once a second at most. One that cannot be used
        changes nothing: whoever rotates keys may just be writing it."""
        if not self._auth.jwks_file or abs(now - self._looked_s) < _LOOK_S:
            return
        self._looked_s = now
        stamp = key_files.stamp(self._auth.jwks_file)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # taken before reading: a file that changes meanwhile is read again
        try:
            self._keys, self.left_out = auth_keys.load(self._auth)
        except ValueError as exc:
            log.warning("auth.jwks_refused", error=exc)
            return
        self._remembered.clear()
        log.info("auth.jwks_read", count=len(self._keys))
        self.tell_left_out()

    def tell_left_out(self) -> None:
        """A line of the log for each key that is left out."""
        for text in self.left_out:
            log.warning("auth.jwk_ignored", error=text)

    def _examine(self, token: str) -> _Verified:
        """Checks all but the times."""
        algorithm = self._auth.algorithm
        if not _COMPACT.match(token):
            raise Unauthorized("the token is not a JWT")
        try:
            payload = self._jws.decode(token, self._key_of(token), algorithms=[algorithm])
        except jwt.InvalidAlgorithmError:
            raise Unauthorized(f"the token is not signed with {algorithm}") from None
        except jwt.InvalidSignatureError:
            raise Unauthorized("the token's signature is wrong") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("the token is not a JWT") from None
        try:
            payload.decode()  # msgspec does not look at the UTF-8 of what it passes over
            claims = _decode_claims(payload)
        except msgspec.ValidationError as exc:  # says which claim and which type, not what it held
            raise Unauthorized(f"the token's claims: {exc}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Unauthorized("the token's claims are not JSON") from None
        return self._judge(claims)

    def _key_of(self, token: str) -> Key:
        """The key that the token's ``kid`` names, of several; where there is one key only it may go unnamed."""
        keys = self._keys
        if not self._auth.jwks_file and not self._auth.keys:
            return keys[None]
        kid = jwt.get_unverified_header(token).get("kid")
        if None in keys:
            return keys.get(kid, keys[None])  # which is for all that name none of the others
        if len(keys) == 1 and kid is None:
            return next(iter(keys.values()))
        if kid is None:
            raise Unauthorized("the token names no key (kid), and there are several")
        if kid not in keys:
            raise Unauthorized("the token names a key (kid) that is not known")
        return keys[kid]

    def _judge(self, claims: _Claims) -> _Verified:
        if not is_id(claims.sub):
            raise Unauthorized("the token's sub is not a client id")
        if self._auth.issuer and claims.iss != self._auth.issuer:
            raise Unauthorized("the token is from another issuer (iss)")
        # A token for a named audience is for nobody else, also where none is configured (RFC 7519, 4.1.3).
        audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud or []
        if audiences and self._auth.audience is None:
            raise Unauthorized("the token is for an audience (aud), and auth.audience names none")
        if self._auth.audience is not None and self._auth.audience not in audiences:
            raise Unauthorized("the token is for another audience (aud)")
        for name, patterns in (("groups", claims.groups), ("publish", claims.publish)):
            if not all(is_pattern(pattern) for pattern in patterns):
                raise Unauthorized(f"the token's {name} holds something that is no pattern of group names")
        grant = Grant(claims.sub, self._patterns.share(claims.groups), self._patterns.share(claims.publish), claims.exp)
        return _Verified(grant, claims.exp, claims.nbf or 0.0)


def name_of(kid: str | None) -> str:
    return "without a kid" if kid is None else kid[:100]


def sign(auth: AuthSettings, claims: Mapping[str, Any], *, key_file: str | None = None, kid: str | None = None) -> str:
    """A token with ``claims``, and with ``iss`` and ``aud`` as configured unless they are given.

    Signed with ``key_file``, else with ``auth.key_file`` or ``auth.key``, else with that of ``auth.keys`` which ``kid``
    names, or the first: the shared secret, or a private key as PEM. ``kid`` names the key, as several keys demand.
    Raises ValueError.
    """
    if key_file:
        name, data = "key_file", key_files.read("key_file", key_file, pipe=True)
    else:
        kid, name, data = _signing(auth, kid)
    key: Any
    if auth.algorithm == "HS256":
        key = auth_keys.load_key(name, auth.algorithm, data)
    else:
        auth_keys.load_key(name, auth.algorithm, data)  # says of what kind it should be
        try:
            key = load_pem_private_key(data, password=None)
        except ValueError as exc:
            raise ValueError(f"{name}: to sign, a private key is needed") from exc
    given = {"iss": auth.issuer} if auth.issuer else {}
    if auth.audience:
        given["aud"] = auth.audience
    try:
        return jwt.encode(given | dict(claims), key, algorithm=auth.algorithm, headers={"kid": kid} if kid else None)
    except (TypeError, jwt.PyJWTError) as exc:
        raise ValueError(f"claims: {exc}") from exc


def _signing(auth: AuthSettings, kid: str | None) -> tuple[str | None, str, bytes]:
    """The kid that the token is to have, and the key that signs it, with its setting's name. Raises ValueError."""
    known = auth_keys.configured(auth)
    if kid not in known and None in known:
        return kid, *known[None]
    if not known and auth.jwks_file is None:
        raise ValueError(f"auth.mode: {auth_keys.NEEDS_KEY}")
    if not known:
        raise ValueError("auth.jwks_file: to sign, name the file of a private key")
    if kid is not None and kid not in known:
        raise ValueError("auth.keys: none of them has that kid")
    kid = next(iter(known)) if kid is None else kid
    return kid, *known[kid]
