"""Where tokens come from, and what can be read in them without a key."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from tidegate_client.client.calling import carried_out
from tidegate_client.client.errors import CommandRefused, NotAllowed

Token = str | Callable[[], str | Awaitable[str | None] | None] | None

_LEEWAY_S = 10.0


class Tokens:
    """``token`` is a text, or a function that gives one, or None where the gateway runs without."""

    def __init__(self, token: Token) -> None:
        self._token = token

    @property
    def can_be_new(self) -> bool:
        return callable(self._token)

    @property
    def are_used(self) -> bool:
        return self._token is not None

    @contextlib.contextmanager
    def replaced(self, token: str) -> Iterator[None]:
        """A fixed one is another one from now on, unless that is refused within."""
        old = self._token
        if not callable(old):
            self._token = token
        try:
            yield
        except CommandRefused:
            self._token = old
            raise

    async def ask(self) -> str | None:
        """Raises NotAllowed, and whatever the function raises."""
        if not callable(self._token):
            return self._token
        token = await carried_out(self._token)
        if token is None:
            raise NotAllowed("the token function gave none")
        return str(token)


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unproven; empty where it cannot be read."""
    try:
        payload = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def is_over(token: str) -> bool:
    """Whether its own ``exp`` says that it has ended."""
    end = claims(token).get("exp")
    if not isinstance(end, int | float) or isinstance(end, bool) or not math.isfinite(end):
        return False
    return end + _LEEWAY_S < time.time()


def subject(token: str) -> str | None:
    found = claims(token).get("sub")
    return found if isinstance(found, str) else None
