"""Background tasks that are neither lost nor silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from tidegate import log

_T = TypeVar("_T")


class Tasks:
    """Owns running tasks. asyncio keeps only weak references, so a task that nobody holds may be collected while
    it waits, and its exception is told to nobody (Python documentation, ``asyncio.create_task``)."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many still run."""
        return len(self._running)

    def spawn(self, coro: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
        """Runs ``coro`` on the running loop. Its exception is logged as ``task.failed``, also for a caller that awaits
        the task; ``name`` says in the log what it did."""
        task = asyncio.create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel_all(self) -> None:
        """Cancels all and returns when all have ended, those included that they spawn meanwhile. A task may call this:
        it is spared itself."""
        while others := self._running - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task.failed", task=task.get_name(), error=error)
