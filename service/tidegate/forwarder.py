"""``tidegate forward-events``: takes events from Redis and posts them, one batch after the other.

There is one order for all clients, because a node's ``lost`` speaks of all that it had. So one forwarder posts at a
time, and one request is under way at a time; others stand by. A batch is what waits when the one before it is settled:
where much happens batches grow, and nothing waits for one to fill.

A batch that is refused is halved until the event that is refused stands alone. One that fails is posted again until
``events.retry_s`` is over, and holds up all behind it. Source: docs/decisions/0064-events-by-http.md.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from collections.abc import Sequence

from tidegate import log
from tidegate.auth import key_files
from tidegate.brokers.redis.events import Event, EventQueue, LeaseLost, Taken
from tidegate.config.settings import Config
from tidegate.core.errors import BrokerDown, Unusable
from tidegate.delivery import Delivery, Outcome

LEASE_S = 10.0  # after which another takes over from one that was killed
STANDBY_S = 1.0  # between two looks whether the lease is free
LOOK_S = 0.1  # between two looks whether there is an event
AGAIN_S = (0.5, 30.0)  # between two attempts: the first, the longest
REDIS_S = 1.0  # between two attempts to reach Redis
SAY_S = 60.0  # between two lines on what goes on
BATCH_BYTES = 262_144  # beyond it a batch is halved: entries that others wrote may be large


class _Stopped(Exception):
    """It was told to stop while it waited: what it has goes back."""


class Forwarder:
    """``await run()`` until ``stop`` is called, which ends it once the request under way is answered. Raises Unusable
    where a setting is missing or cannot be used."""

    def __init__(self, config: Config, *, lease_s: float = LEASE_S) -> None:
        events = config.events
        if events.url is None:
            raise Unusable("events.url", "is needed to forward events: where they are posted")
        token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._queue = EventQueue(config.broker.url, config.broker.prefix, token=token, lease_s=lease_s)
        self._delivery = Delivery(events, events.url, _key(config))
        self._most = events.batch_events
        self._retry_s = events.retry_s
        self._lease_s = lease_s
        self._stopping = asyncio.Event()
        self._reachable = True  # Redis, as far as was said in the log
        self._tally = {"events": 0, "requests": 0, "failures": 0, "dead": 0, "missed": 0}
        self._behind = 0  # events that were not taken yet
        self._said_s = 0.0

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        self._said_s = _now()
        await self._delivery.start()
        try:
            while not self._stopping.is_set():
                try:
                    await self._queue.connect()
                    await self._forward()
                    await self._queue.leave()
                except LeaseLost as exc:
                    log.warning("lease.lost", error=exc.message, message="what was under way is posted again")
                    await self._pause(STANDBY_S)
                except BrokerDown as exc:
                    self._lost(exc)
                    await self._pause(REDIS_S)
                finally:
                    self._queue.close()
        finally:
            await self._delivery.stop()
            self._say()

    async def _forward(self) -> None:
        """Until it shall stop."""
        while not self._stopping.is_set():
            led = self._queue.leads
            taken = await self._queue.take(self._most)
            self._found()
            if taken is None:
                await self._pause(STANDBY_S)
                continue
            if not led:
                log.info("lease.taken", behind=taken.behind)
            self._behind = taken.behind
            if taken.events:
                await self._keeping_the_lease(taken)
            else:
                await self._pause(LOOK_S)
            if _now() - self._said_s > SAY_S:
                self._say()

    async def _keeping_the_lease(self, taken: Taken) -> None:
        """Delivers; an answer may take longer than the lease lasts, and a wait for the next attempt too."""
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep())
                try:
                    await self._deliver(taken.events, taken.missed)
                except _Stopped:
                    pass
                finally:
                    keeping.cancel()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 4)
            await self._queue.settle([])

    async def _deliver(self, events: list[Event], missed: int) -> None:
        """All of them, in their order, are taken or dead letters. Raises _Stopped, BrokerDown."""
        waiting = [events]
        if missed:
            self._tally["missed"] += missed
            log.error(
                "events.missed",
                events=missed,
                before=events[0].id,
                message="they were trimmed away before they could be posted: raise events.messages",
            )
        while waiting:
            if self._stopping.is_set():
                raise _Stopped
            part = waiting.pop(0)
            outcome = await self._post(part, missed)
            if outcome.verdict == "refused" and len(part) > 1:
                half = len(part) // 2
                waiting[:0] = [part[:half], part[half:]]
            elif outcome.verdict == "taken":
                await self._queue.settle(part, told=missed)
                self._tally["events"] += len(part)
                missed = 0
            else:
                await self._queue.settle(part, reason=f"{outcome.verdict}: {outcome.why}")
                self._tally["dead"] += len(part)
                log.warning("events.given_up", events=len(part), first=part[0].id, last=part[-1].id, why=outcome.why)

    async def _post(self, events: Sequence[Event], missed: int) -> Outcome:
        """What the application says at last. Raises _Stopped."""
        bodies = [event.json for event in events]
        if len(bodies) > 1 and sum(map(len, bodies)) > BATCH_BYTES:
            return Outcome("refused", "too large")
        begun_s = _now()
        said_s: float | None = None
        wait_s, longest_s = AGAIN_S
        while True:
            self._tally["requests"] += 1
            outcome = await self._delivery.post(bodies, missed)
            delay_s = _now() - begun_s
            if outcome.verdict != "failed":
                if said_s is not None:
                    log.info("events.resumed", duration_ms=int(delay_s * 1000))
                return outcome
            self._tally["failures"] += 1
            if delay_s >= self._retry_s:
                return outcome
            if said_s is None or _now() - said_s >= SAY_S:
                said_s = _now()
                log.warning("events.delayed", events=len(bodies), why=outcome.why, duration_ms=int(delay_s * 1000))
            pause_s = max(wait_s * random.uniform(0.8, 1.2), outcome.retry_after_s)
            if await self._pause(min(pause_s, self._retry_s - delay_s)):
                raise _Stopped
            wait_s = min(2 * wait_s, longest_s)

    async def _pause(self, seconds: float) -> bool:
        """True at once where it shall stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _lost(self, error: BrokerDown) -> None:
        if self._reachable:
            log.warning("redis.lost", error=error.message)
        self._reachable = False

    def _found(self) -> None:
        if not self._reachable:
            log.info("redis.ready")
        self._reachable = True

    def _say(self) -> None:
        """What was done since it was said last."""
        self._said_s = _now()
        if any(self._tally.values()):
            log.info("events.forwarded", **self._tally, behind=self._behind)
        self._tally = dict.fromkeys(self._tally, 0)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _key(config: Config) -> bytes:
    """Raises Unusable."""
    events = config.events
    if events.key is not None:
        return events.key.encode()
    if events.key_file is None:
        raise Unusable(
            "events.key",
            "is needed to forward events, or the application could not tell who posts them; set it or events.key_file; "
            "`openssl rand -hex 32` makes one",
            local=True,  # nodes need none
        )
    key = key_files.read("events.key_file", events.key_file)
    if not 16 <= len(key) <= 512:
        raise Unusable("events.key_file", f"must hold 16 to 512 bytes, and holds {len(key)}")
    return key
