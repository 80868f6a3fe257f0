"""The gateway's HTTP API as the doctor needs it; whoever starts it knows how it is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

# method, path, body; the decoded answer. Blocks. Raises ApiError.
Ask: TypeAlias = Callable[[str, str, bytes | None], Any]


class ApiError(Exception):
    """In words: what was refused, or that nobody answers."""


class Api:
    """One request at a time, beside the loop."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Raises ApiError."""
        raw = None if body is None else msgspec.json.encode(body)
        async with self._turn:
            return await asyncio.to_thread(self._ask, method, path, raw)
