"""``tidegate:events`` as its forwarder reads it: a batch is taken, then settled.

One forwarder at a time reads, under a lease that each of its writes is fenced by (``events_take.lua``,
``events_settle.lua``). What was taken and not settled is taken again, by whoever has the lease next. Events that were
trimmed away before they were taken are counted until the application has heard of them. Source:
docs/decisions/0064-events-by-http.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ResponseError

from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.pipeline import Address, Argument, Pipeline
from tidegate.brokers.redis.scripts import KeyNames, Script
from tidegate.core.errors import BrokerDown

OPERATION_S = 3.0


class LeaseLost(BrokerDown):
    """Another forwarder may have taken the same events."""


class Event(NamedTuple):
    """One entry. ``json``: an object of its id and its fields."""

    id: str
    json: bytes


class Taken(NamedTuple):
    """``missed``: events that nobody can take any more, and of which the application was not told. ``behind``: events
    that wait beyond these."""

    missed: int
    behind: int
    events: list[Event]


class EventQueue:
    """Whatever it does raises BrokerDown where Redis fails: then ``close`` and ``connect`` begin anew. ``token`` is
    this forwarder's own. Raises Unusable for a URL that cannot be used."""

    def __init__(self, url: str, prefix: str, *, token: str, lease_s: float) -> None:
        keys = KeyNames(prefix, "")
        self._address = Address(url)
        self._names = [keys.events, keys.events_lease, keys.events_forwarded, keys.events_dead]
        self._token = token
        self._lease_ms = int(lease_s * 1000)
        self._pipeline: Pipeline | None = None
        self.leads = False  # as far as is known here

    async def connect(self) -> None:
        self._pipeline = Pipeline(await self._address.connect(OPERATION_S), OPERATION_S)

    def close(self) -> None:
        self.leads = False
        if self._pipeline is not None:
            self._pipeline.end("closed")

    async def take(self, most: int) -> Taken | None:
        """The next events, oldest first; none where nothing waits. None: another forwarder has the lease. What was
        taken before must be settled."""
        leads, *found = await self._run(
            redis_scripts.EVENTS_TAKE, 3, self._token, self._lease_ms, most, int(not self.leads)
        )
        if not leads and self.leads:
            raise LeaseLost("the lease ran out, or another forwarder has it")
        self.leads = bool(leads)
        if not leads:
            return None
        missed, behind, entries = found
        return Taken(int(missed), int(behind), [_event(id, fields) for id, fields in entries])

    async def settle(self, events: Sequence[Event], *, told: int = 0, reason: str = "") -> None:
        """The application took them, and heard of ``told`` that it missed; or they are dead letters, for ``reason``.
        Renews the lease, also where there are none. Raises LeaseLost, and then they are taken again."""
        listed = [part for event in events for part in event]
        if not await self._run(redis_scripts.EVENTS_SETTLE, 4, self._token, self._lease_ms, told, reason, *listed):
            raise LeaseLost("the lease ran out, or another forwarder has it")

    async def leave(self) -> None:
        """Gives the lease away at once."""
        if self.leads:
            await self._run(redis_scripts.EVENTS_SETTLE, 4, self._token, 1, 0, "")

    async def _run(self, script: Script, names: int, *args: Argument) -> Any:
        if self._pipeline is None:
            raise BrokerDown("not connected")
        try:
            return await self._pipeline.evaluate(script, self._names[:names], list(args))
        except ResponseError as exc:
            raise BrokerDown(f"Redis refuses: {exc}") from exc


def _event(id: bytes, fields: list[bytes]) -> Event:
    names = [name.decode(errors="replace") for name in fields[::2]]
    values = [value.decode(errors="replace") for value in fields[1::2]]
    told = {"id": id.decode()} | {name: value for name, value in zip(names, values, strict=True) if name != "id"}
    return Event(id.decode(), msgspec.json.encode(told))
