"""How a setting's value may be shown: without what is secret in it."""

from __future__ import annotations

import json
import re
import reprlib

import msgspec

from tidegate.config.section import Section

MASK = "***"

SECRETS = ("auth.key", "auth.keys", "events.key", "internal.api_keys", "trunk.key")
_OPEN = frozenset({"name", "kid", "key_file", "may", "groups"})  # of these, what may be shown
URLS = ("broker.url", "calls.url", "auth.callback_url", "events.url")  # may hold a password


def masked(key: str, value: object) -> object:
    if re.sub(r"\[.*", "", key) in SECRETS and value and key.rpartition("].")[2] not in _OPEN:
        return [_masked_item(item) for item in value] if isinstance(value, list) else MASK
    if key in URLS and value is not None:
        if not isinstance(value, str):
            return MASK
        without_user = re.sub(r"^([\w+.-]*://)?.*@", rf"\g<1>{MASK}@", value, flags=re.DOTALL)
        return re.sub(r"\?.*", f"?{MASK}", without_user, flags=re.DOTALL)
    return value


def _masked_item(item: object) -> object:
    """Of a list of secrets."""
    fields = msgspec.to_builtins(item) if isinstance(item, Section) else item
    if not isinstance(fields, dict):
        return MASK
    return {name: value if name in _OPEN else value and MASK for name, value in fields.items()}


def shown(key: str, value: object) -> str:
    value = masked(key, value)
    try:
        text = json.dumps(value) if value is None or isinstance(value, str | int | float) else reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return type(value).__name__
    return text if len(text) <= 200 else text[:200] + "…"
