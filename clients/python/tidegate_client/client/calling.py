"""Calling what the application gave: plain functions and coroutine functions alike."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def carried_out(function: Callable[..., Any], *given: Any) -> Any:
    """What it gives. Where something that it waits for was cancelled, that is an error like others (RuntimeError): only
    who cancels this task ends it."""
    try:
        result = function(*given)
        return await result if inspect.isawaitable(result) else result
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("what it was waiting for has been cancelled") from exc
