"""The keys by which applications open the internal API."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from tidegate.core.errors import Unauthorized


class ApiKeys:
    """The keys of applications, any of which opens the API; without a key it is open."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None) -> None:
        """Raises Unauthorized unless the header is ``Bearer`` and a key. Takes the same time for every wrong one."""
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        found = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them, not up to the first
        if scheme.lower() != "bearer" or not any(found):
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
