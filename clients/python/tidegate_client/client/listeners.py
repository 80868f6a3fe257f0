"""Who is told of the client's events."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal

_LOG = logging.getLogger("tidegate_client")

Event = Literal["state", "gap", "joined", "left", "error"]


class Listeners:
    """``spawn`` runs what a listener that is a coroutine function has to do."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], Any]) -> None:
        self._spawn = spawn
        self._listeners: dict[str, list[Callable[..., Any]]] = {}

    def on(self, event: Event, callback: Callable[..., Any]) -> Callable[[], None]:
        listeners = self._listeners.setdefault(event, [])
        listeners.append(callback)

        def off() -> None:
            with contextlib.suppress(ValueError):
                listeners.remove(callback)

        return off

    def any(self, event: Event) -> bool:
        return bool(self._listeners.get(event))

    def tell(self, event: Event, *given: Any, holds: Callable[[], bool] = lambda: True) -> bool:
        """Whether anybody listens. What a listener raises is an ``error``. Where one has done something after which it
        ``holds`` no more, those behind are not told."""
        listeners = list(self._listeners.get(event, ()))
        for listener in listeners:
            if not holds():
                break
            try:
                result = listener(*given)
                if inspect.iscoroutine(result):
                    self._spawn(result)
            except Exception as exc:
                if event == "error":
                    _LOG.error("a listener to errors failed", exc_info=exc)
                else:
                    self.error(exc)
        return bool(listeners)

    def error(self, exc: Exception) -> None:
        """Where nobody listens it is logged."""
        if not self.tell("error", exc):
            _LOG.error("the client goes on after an error", exc_info=exc)
