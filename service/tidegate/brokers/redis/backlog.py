"""What waits in the ingress, and that it has a most.

Whoever reaches Redis may write there, faster than it is taken or while no node runs, and Redis has one memory for all.
So the node that reads looks once a second how much there is. The newest entries beyond the most are rejected, as a
queue that is full refuses who comes: what came before them is taken in its order.
"""

from __future__ import annotations

import math
from collections import Counter

from tidegate import log
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.core.errors import InternalError, KeyReused, TooDeep, TooLarge
from tidegate.core.model import RejectedPush
from tidegate.metrics import Metrics, Tally

LOOK_S = 1.0
AT_ONCE = 1000  # are rejected in one script; more than a round takes, and short for Redis
SAID_S = 60.0  # between two lines of the log
REASON = "backlog_full"
# Why an entry is rejected, as its copy says (docs/protocol.md, Push through Redis).
REASONS = (
    *("no address", "several addresses", "bad client", "bad group", "bad key", "bad conflate", "bad traceparent"),
    *("no data", "bad JSON", "all must be 1", "unknown field", "field given twice"),
    *(TooLarge.code, TooDeep.code, KeyReused.code, "failed 5 times", REASON),
)


class Backlog:
    """``entries``, ``bytes`` and ``rejected``: what was found last, by this node; 0 while another one reads.
    ``oldest_s``: how long the first of them had waited then."""

    def __init__(self, membership: ClusterMembership, *, most_entries: int, most_bytes: int) -> None:
        self._membership = membership
        self._most_entries = most_entries
        self._most_bytes = most_bytes
        self._looked_s = -math.inf
        self._line = log.Seldom(SAID_S)
        self._knows_bytes = True
        self.entries = 0
        self.bytes = 0
        self.rejected = 0
        self.oldest_s = 0.0
        self._rejects: Tally = Counter(dict.fromkeys(map(_word, REASONS), 0))

    @property
    def is_read(self) -> bool:
        """Whether this node reads the ingress."""
        return self._looked_s > -math.inf

    def note_rejected(self, reason: str) -> None:
        self._rejects[_word(reason)] += 1

    def register(self, metrics: Metrics) -> None:
        metrics.gauge(
            "tidegate_ingress_entries",
            "Entries that wait in the ingress, as the node finds that reads it; 0 for others.",
            lambda: self.entries,
        )
        metrics.gauge("tidegate_ingress_bytes", "What the ingress costs Redis, as that node finds.", lambda: self.bytes)
        metrics.gauge(
            "tidegate_ingress_rejected", "Rejected entries that are kept, as that node finds.", lambda: self.rejected
        )

        metrics.gauge(
            "tidegate_ingress_oldest_seconds",
            "How long the oldest of them had waited, as that node finds each second.",
            lambda: self.oldest_s,
        )
        metrics.gauge(
            "tidegate_ingress_reading",
            "1 for the node that reads the ingress: one of all.",
            lambda: float(self.is_read),
        )
        metrics.tallied(
            "tidegate_ingress_rejects", "Entries of the ingress that this node rejected.", ("reason",), self._rejects
        )

    def forget(self) -> None:
        """This node reads no more."""
        self.entries = self.bytes = self.rejected = 0
        self.oldest_s = 0.0
        self._looked_s = -math.inf

    async def keep_to_most(self, token: str, now_s: float, bytes_kept: int) -> list[str]:
        """Looks if it is time to; the streams of those that were rejected, '' where it is none. ``bytes_kept``: of the
        data of each. Raises Refused."""
        if now_s - self._looked_s < LOOK_S:
            return []
        await self._look()
        excess = self._excess()
        if not excess:
            self._looked_s = now_s
            return []
        keys = self._membership.keys
        names = [keys.push, keys.push_lease, keys.push_rejected]
        rejected = await self._membership.run(
            redis_scripts.SHED, names, token, min(excess, AT_ONCE), REASON, bytes_kept
        )
        if not rejected:  # all of it is taken, and on its way into the journals
            self._looked_s = now_s
        elif self._line.is_due(now_s):
            log.warning("ingress.full", entries=self.entries, bytes=self.bytes)
        return [stream.decode() for stream in rejected]

    async def newest_rejected(self, limit: int) -> list[RejectedPush]:
        """Of all that any node rejected, newest first. Raises BrokerDown."""
        if not limit:
            return []
        (found,) = await self._membership.commands(
            ("XREVRANGE", self._membership.keys.push_rejected, "+", "-", "COUNT", limit)
        )
        return [_rejected(id.decode(), fields) for id, fields in found]

    async def _look(self) -> None:
        keys = self._membership.keys
        self.entries, self.rejected, oldest_ms = await self._membership.run(
            redis_scripts.WAITING, [keys.push, keys.push_rejected]
        )
        self.oldest_s = int(oldest_ms) / 1000
        if self._knows_bytes:
            try:
                (size,) = await self._membership.commands(("MEMORY", "USAGE", keys.push))
                self.bytes = size or 0
            except InternalError:  # this user may not ask
                self._knows_bytes = False

    def _excess(self) -> int:
        """How many entries are too many."""
        excess = self.entries - self._most_entries
        if self.bytes > self._most_bytes:
            excess = max(excess, math.ceil(self.entries * (1 - self._most_bytes / self.bytes)))
        return max(excess, 0)


def _word(reason: str) -> tuple[str]:
    """The label of the metric."""
    return (reason.replace(" ", "_"),)


def _rejected(id: str, fields: list[bytes]) -> RejectedPush:
    """``id``: when it was rejected, as Redis' clock has it."""
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    size = values.get(b"size", b"")
    return RejectedPush(
        values.get(b"id", b"").decode(errors="replace"),
        int(id.partition("-")[0]),
        values.get(b"address", b"").decode(errors="replace"),
        int(size) if size.isdigit() else 0,  # anybody who reaches Redis may have written it
        values.get(b"reason", b"").decode(errors="replace"),
        values.get(b"data", b""),
    )
