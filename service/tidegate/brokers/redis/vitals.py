"""What a node sees of its Redis: how often it is lost, how quickly it answers, what memory it has left."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from tidegate.metrics import Durations, Metrics, Tally

Link = Literal["commands", "wakeups", "ingress"]

# Why every epoch changes, as begin.lua says it, by the word that the metric has for it.
_RESETS = {
    "nobody remembers": "nobody_remembers",
    "another generation": "another_generation",
    "unsure": "unsure",
    "writes are missing": "writes_missing",
}
_NO_WORD = "no_word"  # of a node that begin.lua names
_EMPTY = "empty"


class Vitals:
    """One per node. ``seconds``: from a command to its answer. ``up`` tells whether Redis may be used now."""

    def __init__(self, up: Callable[[], bool]) -> None:
        self._up = up
        self.seconds = Durations()
        self._connects: Tally = Counter({("commands",): 0, ("wakeups",): 0, ("ingress",): 0})
        self._resets: Tally = Counter(dict.fromkeys(((reason,) for reason in (*_RESETS.values(), _NO_WORD, _EMPTY)), 0))
        self._losses = 0
        self._memory = self._memory_limit = math.nan

    def connected(self, link: Link) -> None:
        self._connects[link,] += 1

    def lost(self) -> None:
        self._losses += 1
        self._memory = self._memory_limit = math.nan

    def went_back(self, why: str) -> None:
        """This node found that acknowledged writes may be lost; ``why`` as begin.lua says it."""
        self._resets[_RESETS.get(why, _NO_WORD),] += 1

    def emptied(self) -> None:
        """This node knew a Redis with something in it, and was the first to find nothing there."""
        self._resets[_EMPTY,] += 1

    def inspected(self, info: Mapping[str, str]) -> None:
        """What INFO says, section memory."""
        self._memory = float(info.get("used_memory", "nan"))
        most = float(info.get("maxmemory", "nan"))
        self._memory_limit = most or float(info.get("total_system_memory", "nan"))

    def register(self, metrics: Metrics) -> None:
        metrics.gauge("tidegate_redis_up", "1 while this node may use Redis.", lambda: float(self._up()))
        metrics.count("tidegate_redis_losses", "Times that Redis was lost.", lambda: self._losses)
        metrics.tallied("tidegate_redis_connects", "Connections made to Redis, by what for.", ("link",), self._connects)
        metrics.lasted("tidegate_redis_seconds", "From a command to Redis to its answer.", (), {(): self.seconds})
        metrics.tallied(
            "tidegate_redis_resets",
            "Times that this node found that Redis may have lost acknowledged writes, and changed every epoch; by why.",
            ("reason",),
            self._resets,
        )
        metrics.gauge("tidegate_redis_memory_bytes", "Memory that Redis uses; NaN while lost.", lambda: self._memory)
        metrics.gauge(
            "tidegate_redis_memory_limit_bytes",
            "Memory that Redis may use: its maxmemory, or where that is 0 all of its machine's.",
            lambda: self._memory_limit,
        )
