"""The keys by which applications open the internal API, and what each may do there."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

from tidegate.auth.key_files import read
from tidegate.config.auth import NamedApiKey
from tidegate.config.changes import changes
from tidegate.config.settings import TrunkSettings
from tidegate.core.errors import NotAllowed, Unauthorized, Unusable
from tidegate.core.model import group_of
from tidegate.core.patterns import matches

Right: TypeAlias = Literal["push", "read", "manage"]

_KEY = re.compile(rb"[!-~]{16,512}\Z")


class Application(NamedTuple):
    """Whose key it is, and what that opens. ``groups``: patterns; None: whatever there is."""

    name: str
    may: frozenset[str]
    groups: tuple[str, ...] | None = None

    def require(self, right: Right) -> None:
        """Raises NotAllowed."""
        if right not in self.may:
            raise NotAllowed(f"this API key may not {right}")

    def require_stream(self, stream: str | None) -> None:
        """``stream``: what is touched; None: what belongs to no stream. Raises NotAllowed."""
        if self.groups is None:
            return
        group = None if stream is None else group_of(stream)
        if group is None or not any(matches(pattern, group) for pattern in self.groups):
            raise NotAllowed("this API key is for some groups only")


_ALL = frozenset(("push", "read", "manage"))
ANYBODY = Application("", _ALL)  # where there is no key


class ApiKeys:
    """The keys of applications; without a key the API is open. Raises Unusable for what is no key."""

    def __init__(self, keys: Sequence[str | NamedApiKey]) -> None:
        self._known = [_known(number, key) for number, key in enumerate(keys)]
        if len({digest for digest, _ in self._known}) < len(self._known):
            raise Unusable("internal.api_keys", "the same key stands twice, and the log could not say whose it is")

    @property
    def required(self) -> bool:
        return bool(self._known)

    def check(self, authorization: str | None) -> Application:
        """Whose key the header has, which must be ``Bearer`` and a key. Raises Unauthorized, after the same time for
        every wrong one."""
        if not self._known:
            return ANYBODY
        scheme, _, key = (authorization or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
        # All of them, not up to the first.
        found = [hmac.compare_digest(digest, known) for known, _ in self._known]
        if scheme.lower() != "bearer" or not any(found):
            raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
        return self._known[found.index(True)][1]

    def take(self, other: ApiKeys) -> list[str]:
        """From now on the keys of ``other``; what changes by that, in words without secrets."""
        before, self._known = self._by_name(), other._known
        return [f"internal.api_keys: {name} {how}" for name, how in changes(before, self._by_name())]

    def _by_name(self) -> dict[str, tuple[bytes, Application]]:
        return {known[1].name: known for known in self._known}


def first(keys: Sequence[str | NamedApiKey]) -> str:
    """The key that a command of this machine takes; empty where there is none. Raises Unusable."""
    return _text(0, keys[0]).decode() if keys else ""


def _known(number: int, key: str | NamedApiKey) -> tuple[bytes, Application]:
    digest = hashlib.sha256(_text(number, key)).digest()
    if isinstance(key, str):
        return digest, Application(f"key {number + 1}", _ALL)
    groups = None if key.groups is None else tuple(key.groups)
    return digest, Application(key.name or "", frozenset(key.may), groups)


def _text(number: int, key: str | NamedApiKey) -> bytes:
    if isinstance(key, str):
        return key.encode()
    if key.key is not None:
        return key.key.encode()
    return _of_file(f"internal.api_keys[{number}]", key.key_file or "")


def _of_file(name: str, path: str) -> bytes:
    text = read(name, path)
    if not _KEY.match(text):
        raise Unusable(name, "in its file must be 16 to 512 visible ASCII characters without spaces")
    return text


def trunk_key(trunk: TrunkSettings) -> str | None:
    """What edges must know that are not on this machine; None where there is none. Raises Unusable."""
    return trunk.key if trunk.key_file is None else _of_file("trunk.key_file", trunk.key_file).decode()
