"""What may be pushed: the rules that a push meets by HTTP and through Redis alike. Source: docs/protocol.md."""

from __future__ import annotations

import msgspec

from tidegate.core.errors import BadPush
from tidegate.core.model import ALL, KEY_CHARACTERS, Publication, client_stream, group_stream, is_id, is_traceparent
from tidegate.core.protocol import check_depth, check_size

# Bytes of the longest name or key in UTF-8, for what has to cut before it can decode.
NAME_BYTES = 4 * KEY_CHARACTERS
_ONE_ADDRESS = 'a push has one of "client", "group" and "all": true'


class PushLimits(msgspec.Struct, frozen=True):
    """``json_depth`` counts the command around a client's own ``data``."""

    data_bytes: int
    json_depth: int


def publication(
    data: bytes,
    *,
    client: str | None = None,
    group: str | None = None,
    all: bool = False,
    key: str | None = None,
    conflate: str | None = None,
    traceparent: str | None = None,
) -> Publication:
    """The push that these fields ask for; ``data`` is for ``check_data``. Raises BadPush."""
    if (client is not None) + (group is not None) + all > 1:
        raise BadPush("several addresses", _ONE_ADDRESS)
    if client is not None:
        stream = client_stream(_checked_id("client", client))
    elif group is not None:
        stream = group_stream(_checked_id("group", group))
    elif all:
        stream = ALL
    else:
        raise BadPush("no address", _ONE_ADDRESS)
    if key is not None:
        check_key(key)
    if traceparent is not None and not is_traceparent(traceparent):
        raise BadPush("bad traceparent", "traceparent: as W3C Trace Context has it, in lower case")
    return Publication(stream, data, key, None, check_conflate(conflate), traceparent)


def check_conflate(word: str | None) -> str | None:
    """The word, or None. Raises BadPush."""
    return None if word is None else _checked_id("conflate", word)


def _checked_id(field: str, id: str) -> str:
    if not is_id(id):
        raise BadPush(f"bad {field}", f"{field}: 1-128 characters of A-Z a-z 0-9 _ . @ -, not of dots only")
    return id


def check_key(key: str) -> str:
    """The key. Raises BadPush."""
    if not 1 <= len(key) <= KEY_CHARACTERS:
        raise BadPush("bad key", f"a key has 1-{KEY_CHARACTERS} characters")
    return key


def check_data(data: bytes, limits: PushLimits) -> bytes:
    """The data, which is JSON or will be decoded. Raises TooLarge or TooDeep."""
    check_size(data, limits.data_bytes)
    check_depth(data, limits.json_depth - 1)
    return data
