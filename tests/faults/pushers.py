"""Who pushes in a scenario: each message until it was accepted, through HTTP or through Redis."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import redis.asyncio

from tests.faults.cluster import TROUBLE
from tests.faults.hazards import Hazards
from tests.faults.ledger import Ledger, Push
from tests.faults.stalls import LARGE_BYTES, QuietGroups

LARGE_ONE_IN = 25


class Pushers(Hazards):
    ledger: Ledger
    quiet: QuietGroups
    _stall: bool  # some clients do, and some messages are large
    _pushing: bool
    _session: Any
    _client: Any  # of Redis

    def _choose(self, chance: random.Random) -> int:
        up = [index for index in self._indexes if index not in self._down]
        return chance.choice(up or self._indexes)

    async def _push(
        self, name: str, groups: Sequence[str], through_redis: bool, rate: float, chance: random.Random
    ) -> None:
        """One to each of its groups when so many are due."""
        begun_s = time.monotonic() + chance.random() * len(groups) / rate
        made = 0
        while self._pushing:
            await asyncio.sleep(begun_s + made / rate - time.monotonic())
            await self._push_each(name, groups, through_redis, chance)
            made += len(groups)

    async def _push_each(self, name: str, groups: Sequence[str], through_redis: bool, chance: random.Random) -> None:
        """One to each group, all at once, until all were accepted: repeated with their keys."""
        pushes = [self.ledger.push(name, group, self._size(chance)) for group in groups]
        await self._push_all(pushes, through_redis, chance)

    def _size(self, chance: random.Random) -> int:
        return chance.randint(*LARGE_BYTES) if self._stall and not chance.randrange(LARGE_ONE_IN) else 0

    async def _push_bursts(self, group: str) -> None:
        while self._pushing:
            await self.quiet.burst(group)

    async def _push_one(self, name: str, group: str, size: int) -> Push:
        push = self.ledger.push(name, group, size)
        await self._push_all([push], False, self._chance)
        return push

    async def _push_all(self, pushes: Sequence[Push], through_redis: bool, chance: random.Random) -> None:
        waiting = list(pushes)
        attempt = self._push_through_redis if through_redis else self._push_through_http
        while waiting:
            for push in waiting:
                self.ledger.asked(push)
            try:
                await attempt(waiting, chance)
            except (*TROUBLE, redis.RedisError) as exc:
                waiting = [push for push in waiting if push.accepted_s is None]
                for push in waiting:
                    self.ledger.refused(push, repr(exc))
                await asyncio.sleep(0.1)
            waiting = [push for push in waiting if push.accepted_s is None]

    async def _push_through_http(self, pushes: Sequence[Push], chance: random.Random) -> None:
        api = f"http://127.0.0.1:{self._internal[self._choose(chance)]}/api"
        if len(pushes) == 1:
            (push,) = pushes
            url = f"{api}/{push.path}/push"
            headers = {"Idempotency-Key": f"k{push.id}"}
            async with self._session.post(url, json={"data": push.data}, headers=headers) as answer:
                results = [await answer.json()]
        else:
            items = [{"group": push.group, "data": push.data, "key": f"k{push.id}"} for push in pushes]
            async with self._session.post(f"{api}/push", json={"pushes": items}) as answer:
                body = await answer.json()
                results = body.get("results") or [body] * len(pushes)
        for push, result in zip(pushes, results, strict=True):
            if "offset" in result:
                self.ledger.accepted(push, (result["epoch"], result["offset"]))
            elif result["error"]["code"] not in ("broker_down", "not_tried"):
                self.ledger.complain(f"push {push.id}: {result}")
            else:
                self.ledger.refused(push, result["error"]["code"])
        if any(push.accepted_s is None for push in pushes):
            await asyncio.sleep(0.05)

    async def _push_through_redis(self, pushes: Sequence[Push], chance: random.Random) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for push in pushes:
            fields = {"group": push.group, "data": json.dumps(push.data), "key": f"k{push.id}"}
            pipeline.xadd("tidegate:push", fields)
        for push, answer in zip(pushes, await pipeline.execute(raise_on_error=False), strict=True):
            if not isinstance(answer, Exception):
                self.ledger.accepted(push, entry=answer.decode())
            else:
                self.ledger.refused(push, repr(answer))
        if any(push.accepted_s is None for push in pushes):
            await asyncio.sleep(0.1)
