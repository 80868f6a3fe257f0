"""Waits that are all equally long: they stand in a queue, and the oldest alone is watched by a timer. One for each
would cost more than what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

LATE_S = 1.0  # a timer that comes later than this says that the process was held up

Key = TypeVar("Key")


class Deadlines(Generic[Key]):
    """``on_due(key)`` is called ``seconds`` after ``begin(key)``, unless ``end(key)`` was called before. Where the
    process was held up, what has come meanwhile has not been looked at: then all have a second more."""

    def __init__(self, seconds: float, on_due: Callable[[Key], None]) -> None:
        self._seconds = seconds
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._due_s: dict[Key, float] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._due_s)

    def begin(self, key: Key) -> None:
        due_s = self._due_s[key] = self._loop.time() + self._seconds
        if self._timer is None:
            self._watch(due_s)

    def end(self, key: Key) -> None:
        self._due_s.pop(key, None)

    def stop(self) -> None:
        self._due_s.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, until_s: float) -> None:
        self._timer = self._loop.call_at(until_s, self._look, until_s)

    def _look(self, meant_s: float) -> None:
        now_s = self._loop.time()
        if now_s - meant_s > LATE_S:
            self._due_s = {key: max(due_s, now_s + LATE_S) for key, due_s in self._due_s.items()}
        for key, due_s in list(self._due_s.items()):
            if due_s > now_s:
                self._watch(due_s)
                return
            del self._due_s[key]
            self._on_due(key)
        self._timer = None
