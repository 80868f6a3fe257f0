"""When a client comes back after a cut or a refusal, and when it does not. Source: docs/protocol.md, Close codes and
When the handshake is refused; clients/README.md, The machine, 12 and 16."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from tidegate_client.client.model import Reason

Delay = Literal["none", "growing", "random", "longer", "retry-after"]

_CLOSED = {
    1000: "done",
    1002: "protocol",
    1003: "protocol",
    1007: "protocol",
    1009: "too_large",
    4500: "not_understood",
    4501: "disconnected",
    4502: "taken_over",
}
_DELAYS: dict[int, Delay] = {1001: "random", 1012: "random", 1013: "longer", 4009: "none"}

# Of the statuses below 500 those that mean later; all others that are an error mean no.
_LATER = (408, 425, 429)
_RETRY_AFTER_LIMIT_S = 3600.0
_RANDOM_S = 5.0
_LONGER_S = (30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """``reason.again`` says whether to come back, ``delay`` when, ``token`` whether with a new token."""

    reason: Reason
    delay: Delay = "growing"
    token: bool = False
    retry_after_s: float | None = None


def after_close(code: int, message: str = "") -> Plan:
    """``code`` is 1005 or 1006 where there was no close frame or none with a code."""
    if code in _CLOSED or 4500 <= code <= 4999:
        return Plan(Reason(_CLOSED.get(code, "code"), code, message, again=False))
    word = "cut" if code in (1005, 1006) else "closed"
    return Plan(Reason(word, code, message, again=True), _DELAYS.get(code, "growing"), token=code == 4009)


def after_status(status: int, message: str = "", retry_after_s: float | None = None) -> Plan:
    if status == 401:
        return Plan(Reason("unauthorized", status, message, again=True), token=True)
    if 400 <= status < 500 and status not in _LATER:
        return Plan(Reason("refused", status, message, again=False))
    delay: Delay = "retry-after" if status in (429, 503) else "growing"
    return Plan(Reason("refused", status, message, again=True), delay, retry_after_s=retry_after_s)


class BackOff:
    """Seconds until the next attempt. Each one that fails lets the next delay grow, until ``rest``."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._failures = 0

    def rest(self) -> None:
        """A connection held long enough: the next delay is a first one again."""
        self._failures = 0

    def delay_s(self, delay: Delay, retry_after_s: float | None = None) -> float:
        failures, self._failures = self._failures, self._failures + 1
        growing_s = min(self._longest_s, self._first_s * 2 ** min(failures, 32))
        if delay == "none" and failures == 0:
            return 0.0
        if delay == "random":
            return random.uniform(0, _RANDOM_S if failures == 0 else max(_RANDOM_S, growing_s))
        if delay == "longer":
            return random.uniform(*_LONGER_S)
        if delay == "retry-after" and retry_after_s is not None:
            wait_s = min(max(retry_after_s, 0.0), _RETRY_AFTER_LIMIT_S)
            return max(random.uniform(wait_s, wait_s * 1.5), random.uniform(0, growing_s) if wait_s == 0 else 0.0)
        return random.uniform(0, growing_s)
