"""Names of clients, groups and spans: their alphabets, and a way into that of clients for names that have another."""

from __future__ import annotations

import base64
import re

_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.@-]{1,128}\Z", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9_.@*-]{1,128}\Z", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z", re.ASCII)
_MAPPED = "u."

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


def is_traceparent(text: str) -> bool:
    """Whether it names a span as W3C Trace Context has it. Source: docs/protocol.md, Traces."""
    return _TRACEPARENT.match(text) is not None


def client_id(name: str) -> str:
    """A client's id for a user's name of any characters: ``u.`` and the base64url of its UTF-8. All names are mapped or
    none: a rule with exceptions would let two users become one. Raises ValueError where it is empty or longer than 94
    bytes. Source: docs/protocol.md, User ids of another alphabet."""
    raw = name.encode()
    if not 1 <= len(raw) <= 94:
        raise ValueError(f"a name of {len(raw)} bytes has no id: 1 to 94")
    return _MAPPED + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def name_of(client: str) -> str:
    """The name that ``client_id`` made this id from. Raises ValueError for what it never made."""
    text = client.removeprefix(_MAPPED)
    try:
        name = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
        known = client_id(name) == client
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{client} is not of client_id()")
    return name
