"""Quiet groups: nothing is pushed to them but bursts, and their clients have no other groups. What could not be written
while they read nothing must come when they read on, though nothing else happens that wakes who writes it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from tests.faults.ledger import Ledger, Push, Reader
from tests.faults.visitor import Visitor
from tests.support import eventually, scaled

LARGE_BYTES = (4_000, 60_000)  # a message
BURST = (20_000, 60_000, 8)  # messages of so many bytes: more than sockets take, less than the limit of an outbox
RCVBUF = (4096, 8192)
STALL_S = (0.1, 2.0)
READ_S = (0.2, 3.0)  # between two stalls
CALM_S = 5.0  # after a fault: until then it may be at work still
PROMPT_S = 3.0  # for so long nothing may be missing, and nothing come, where nothing is in the way
MOST_S = 8.0  # a burst is waited for; the next one comes then
LAST_STALL_S = 0.3
LOOK_S = 0.05

PushOne = Callable[[str, str, int], Awaitable[Push]]


class QuietGroups:
    """``members`` are the readers of each; ``here`` who is there now; ``push`` pushes one message of a pusher to a
    group, so large, and returns when it was accepted; ``calm_s``: since when no fault is under way, infinite while one
    is."""

    def __init__(
        self,
        ledger: Ledger,
        members: Mapping[str, Sequence[Reader]],
        here: Mapping[Reader, Visitor],
        push: PushOne,
        calm_s: Callable[[], float],
        chance: random.Random,
    ) -> None:
        self._ledger = ledger
        self._members = members
        self._here = here
        self._push = push
        self._calm_s = calm_s
        self._chance = chance
        self._bursts: dict[str, list[Push]] = {}  # the last of each

    async def burst(self, group: str) -> None:
        """Ends when it has come to all, or is not waited for any more."""
        await self._come(group, await self._push_burst(group), MOST_S)

    async def burst_at_last(self, most_s: float) -> None:
        """To all at once who stall at once, when they have what came before. Nobody may leave any more. Raises
        AssertionError where they are not there within ``most_s``."""
        readers = [reader for members in self._members.values() for reader in members]
        await self._all_come(most_s)
        await eventually(lambda: all(reader.reads_s is not None for reader in readers), most_s)
        visitors = [self._here[reader] for reader in readers]
        for visitor in visitors:
            visitor.stall()
        await asyncio.gather(*map(self._push_burst, self._members))
        await asyncio.sleep(LAST_STALL_S)
        for visitor in visitors:
            visitor.go_on()
        await self._all_come(most_s)

    async def _push_burst(self, group: str) -> list[Push]:
        least, most, count = BURST
        name, sizes = f"b{group}", [self._chance.randint(least, most) for _ in range(count)]
        burst = self._bursts[group] = [await self._push(name, group, size) for size in sizes]
        return burst

    async def _all_come(self, most_s: float) -> None:
        await asyncio.gather(*(self._come(group, burst, most_s) for group, burst in self._bursts.items()))

    async def _come(self, group: str, burst: Sequence[Push], most_s: float) -> None:
        until_s = self._ledger.now_s() + scaled(most_s)
        late = False
        while not late and self._ledger.now_s() < until_s:
            waiting = [(reader, push) for reader in self._members[group] for push in burst if not reader.has(push)]
            if not waiting:
                return
            for reader, push in waiting:
                waits_s = reader.waits_s(push, self._calm_s())
                if waits_s > scaled(PROMPT_S):
                    late = True
                    self._ledger.missing.append((reader, push))
                    self._ledger.complain(
                        f"{reader.name} {push.stream}: held back, message {push.id} for {waits_s:.1f} s"
                    )
                    break
            await asyncio.sleep(LOOK_S)
