"""What a client that was let in may do, whoever said so: a token, or the application."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from tidegate.core.patterns import matches

Patterns: TypeAlias = tuple[str, ...]

_SHARED = 1000  # different lists of patterns kept to be shared


class Grant(msgspec.Struct, frozen=True, gc=False):
    """What one connection may do. ``groups`` and ``publish`` are patterns; None covers every group.

    ``expires`` is the token's ``exp``, or what the application says, in Unix seconds, without leeway; None: never.
    """

    client: str
    groups: Patterns | None
    publish: Patterns | None
    expires: float | None

    def may_join(self, group: str) -> bool:
        return _covers(self.groups, group)

    def may_publish(self, group: str) -> bool:
        return _covers(self.publish, group)


def _covers(patterns: Patterns | None, group: str) -> bool:
    if patterns is None or group in patterns or "*" in patterns:
        return True
    return any(matches(pattern, group) for pattern in patterns)


def unrestricted(client: str) -> Grant:
    """For ``auth.mode: none``: every group, for ever. The caller has checked the id."""
    return Grant(client, None, None, None)


class SharedPatterns:
    """One tuple for all equal ones: most clients of an application carry the same few lists."""

    def __init__(self) -> None:
        self._known: dict[Patterns, Patterns] = {}

    def share(self, patterns: Patterns) -> Patterns:
        if len(self._known) >= _SHARED:
            self._known.clear()
        return self._known.setdefault(patterns, patterns)
