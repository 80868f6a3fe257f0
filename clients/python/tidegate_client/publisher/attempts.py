"""Trying again: what one attempt came to, and when the next one is due.

A call is a generator of *steps*: what to send, how long to wait. Whoever runs it does that and sends back what came, so
that blocking and awaiting share all that is decided here. No I/O; clock and chance are arguments.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

KEY_AGE_S = 300.0  # how long the gateway knows a key
LONGEST_S = 240.0  # of a call's attempts: the last one must arrive while the first one's key is known
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
LEAST_S = 1.0  # of an attempt


class Send(NamedTuple):
    """Send this, and wait for the answer no longer than that. The answer, or a Trouble, is sent back."""

    request: Any
    timeout_s: float


class Wait(NamedTuple):
    seconds: float


Call: TypeAlias = Generator[Send | Wait, Any, T]


class Trouble(NamedTuple):
    """An attempt failed in a way that may pass. ``retry_after_s`` is what the other side asks for."""

    code: str
    message: str
    may_be_taken: bool
    retry_after_s: float | None = None


class Patience:
    """One deadline over all attempts of a call, and full jitter between them."""

    def __init__(
        self,
        deadline_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._deadline_s = deadline_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._chance = chance
        self.renew()

    def renew(self) -> None:
        """A new deadline: nothing that was tried is still open."""
        self._ends_s = self._clock() + self._deadline_s
        self._failures = 0

    @property
    def timeout_s(self) -> float:
        """Of the next attempt, which begins before the deadline: one that had no time would only tell that the end of a
        push is unknown, where it was known before."""
        return min(self._timeout_s, max(LEAST_S, self._ends_s - self._clock()))

    def pause_s(self, trouble: Trouble) -> float | None:
        """How long to wait before the next attempt; None where none would be in time."""
        if trouble.retry_after_s is not None:
            pause_s = trouble.retry_after_s * (1 + self._chance() / 2)
        else:
            pause_s = self._chance() * min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        return pause_s if self._clock() + pause_s < self._ends_s else None
