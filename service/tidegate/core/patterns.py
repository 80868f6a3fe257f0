"""Patterns of names, where ``*`` stands for any run of id characters, also an empty one.

Group policies (``groups`` in the configuration) and the ``groups`` and ``publish`` claims of tokens are written so.
"""

from __future__ import annotations

import re

_PATTERN = re.compile(r"[A-Za-z0-9_.@*-]{1,128}\Z", re.ASCII)


def is_pattern(text: str) -> bool:
    """Whether ``text`` is an id's alphabet and ``*``, 1-128 characters."""
    return _PATTERN.match(text) is not None


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` covers the whole of ``name``, which the caller knows to be an id.

    Each part between stars is taken at its first place and never tried again: a regular expression would try
    all combinations, and patterns come from tokens.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    last = rest.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in rest:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
