"""What of several things that have names has changed, in words for a line of the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

_K = TypeVar("_K")


def changes(before: Mapping[_K, object], after: Mapping[_K, object]) -> Iterator[tuple[_K, str]]:
    """Which are gone, have changed or are new, and that: in their order, the new ones last."""
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield name, "is gone"
        elif name not in before:
            yield name, "is new"
        elif before[name] != after[name]:
            yield name, "has changed"
