"""Where a node's settings depart from the defaults: so that nodes can be compared, and without a secret."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import msgspec

from tidegate.config.settings import Config
from tidegate.config.shown import MASK, SECRETS, masked

SHOWN_BYTES = 512  # of a value: nodes put it on the roster with each beat


def departures(config: Config) -> dict[str, object]:
    """By dotted key; groups of policies are one. A secret is a mask and two bytes of a digest, which tell two apart and
    are far too little to find one by."""
    found: dict[str, object] = {}
    for name, value in msgspec.to_builtins(config).items():
        usual = _defaults()[name]
        if name != "groups" and isinstance(value, dict):
            found |= {
                f"{name}.{key}": _seen(f"{name}.{key}", each) for key, each in value.items() if each != usual[key]
            }
        elif value != usual:
            found[name] = _seen(name, value)
    return found


@cache
def _defaults() -> dict[str, Any]:
    settings: dict[str, Any] = msgspec.to_builtins(Config())
    return settings


def _seen(key: str, value: object) -> object:
    if key in SECRETS and value:
        return f"{MASK} {_digest(value, 2)}"
    shown = masked(key, value)
    text = json.dumps(shown)
    return shown if len(text) <= SHOWN_BYTES else f"{text[:40]}… {_digest(shown, 8)}"


def _digest(value: object, size: int) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=size).hexdigest()
