"""Whether a node may be given clients: whether a canary passes through its broker, and since when it does not.

``probe`` is called again and again (app.py). What it finds is said in /readyz, in the metrics, and in a line of the log
at the beginning and at the end of each outage.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from tidegate import log
from tidegate.brokers.contract import Broker
from tidegate.core.errors import BrokerDown
from tidegate.trace import OFF, Trace

Trouble = Literal["starting", "broker_down"]


class Readiness:
    """``ready``: the newest canary passed, in ``lag_ms``. ``lost``: it did not; ``trouble`` and ``reason`` say why, in
    a word and in many. ``losses``: how often that began. ``clock`` gives seconds that only grow."""

    def __init__(self, broker: Broker, clock: Callable[[], float], trace: Trace = OFF) -> None:
        self._broker = broker
        self._clock = clock
        self._trace = trace
        self._since_s = clock()  # when it became so
        self.ready = False
        self.lost = False
        self.lag_ms: float | None = None
        self.trouble: Trouble = "starting"
        self.reason = "not tried yet"
        self.losses = 0

    async def probe(self) -> bool:
        """Whether a canary passes right now."""
        try:
            self.lag_ms = await self._broker.canary()
        except BrokerDown as exc:
            self._fail(str(exc))
        else:
            self._pass(self.lag_ms)
        return self.ready

    def _fail(self, reason: str) -> None:
        if self.ready:
            log.warning("broker.lost", error=reason)
            self._trace.broker("broker_lost", reason)
            self._since_s = self._clock()
        self.losses += not self.lost
        self.lost, self.ready = True, False
        self.lag_ms = None
        self.trouble, self.reason = "broker_down", reason

    def _pass(self, lag_ms: float) -> None:
        if not self.ready:
            outage = {"outage_s": round(self.not_ready_s, 3), "error": self.reason} if self.lost else {}
            log.info("broker.ready", lag_ms=round(lag_ms, 3), **outage)
            if self.lost:
                self._trace.broker("broker_ready")
        self.lost, self.ready = False, True

    @property
    def not_ready_s(self) -> float:
        """For how long it has not been ready; 0 while it is."""
        return 0.0 if self.ready else self._clock() - self._since_s

    @property
    def canary_s(self) -> float:
        """What the newest canary took; NaN where it did not pass."""
        return math.nan if self.lag_ms is None else self.lag_ms / 1000
