"""Names of clients and groups: their alphabet, and a way into it for names that have another."""

from __future__ import annotations

import base64
import re

_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.@-]{1,128}\Z", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9_.@*-]{1,128}\Z", re.ASCII)
_MAPPED = "b64."

ID_ALLOWED = "1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only"


def is_id(text: str) -> bool:
    """Whether ``text`` may name a client or a group."""
    return _ID.match(text) is not None


def checked_id(what: str, text: str) -> str:
    """Raises ValueError, or TypeError for what is no text."""
    if not is_id(text):
        raise ValueError(f"{what}: {ID_ALLOWED}; client_id() maps other names")
    return text


def checked_pattern(what: str, text: str) -> str:
    """Raises ValueError."""
    if not _PATTERN.match(text):
        raise ValueError(f"{what}: a pattern is 1-128 characters of A-Z a-z 0-9 _ . @ - and *")
    return text


def client_id(name: str) -> str:
    """A client's id for a user's name of any characters; the same each time, and no two names share one. A name that is
    an id already stays as it is, another becomes ``b64.`` and the base64url of its UTF-8. Raises ValueError where it is
    empty or longer than 93 bytes."""
    if is_id(name) and not name.startswith(_MAPPED):
        return name
    mapped = _MAPPED + base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()
    if not name or not is_id(mapped):
        raise ValueError("a name of 1 to 93 bytes")
    return mapped


def name_of(client: str) -> str:
    """The name that ``client_id`` made this id from. Raises ValueError for what it never made."""
    if not client.startswith(_MAPPED):
        return client
    text = client.removeprefix(_MAPPED)
    try:
        name = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        known = client_id(name) == client
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{client} is not of client_id()")
    return name
