"""How fast a peer may send: messages and bytes in a second, and what it has saved up in the seconds before.

A pace is what its peer may still send before anybody looks at the clock, so that it costs next to nothing while that
lasts. When it is used up, what was earned since then is added. Who has earned too little is not read until it has.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

BURST_S = 5.0  # of both rates, which a peer may send at once; twice that, where it was quiet amid it
PAUSE_S = 0.1  # at least: a flood costs ten pauses in a second, however small its messages are

What = Literal["messages", "bytes"]


class Rates(msgspec.Struct, frozen=True):
    """In a second, of each connection of a node."""

    messages: float
    bytes: float


UNLIMITED = Rates(math.inf, math.inf)


class Pace:
    """Of one connection: take off ``messages`` and ``bytes`` what came, and where one is below 0 ask for ``wait_s``.
    Time is an argument (monotonic seconds)."""

    __slots__ = ("_at_s", "_rates", "bytes", "messages")

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._at_s = -math.inf
        self.messages = 0.0
        self.bytes = 0.0

    def wait_s(self, now_s: float) -> float:
        """Seconds for which nothing more is to be read, 0.0 for none."""
        rates = self._rates
        earned_s = min(now_s - self._at_s, BURST_S)
        self._at_s = now_s
        self.messages = min(self.messages + earned_s * rates.messages, BURST_S * rates.messages)
        self.bytes = min(self.bytes + earned_s * rates.bytes, BURST_S * rates.bytes)
        short_s = max(-self.messages / rates.messages, -self.bytes / rates.bytes)
        return short_s + PAUSE_S if short_s > 0 else 0.0

    @property
    def what(self) -> What:
        """Of which there was too much."""
        return "messages" if self.messages / self._rates.messages < self.bytes / self._rates.bytes else "bytes"
