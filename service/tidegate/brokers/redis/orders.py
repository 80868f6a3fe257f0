"""Orders to all nodes, journalled: a node that was cut off gets them when it is back. A new one starts at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from tidegate import log
from tidegate.brokers.contract import Order
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.core.errors import Refused

ORDERS_AT_ONCE = 100
ORDERS_TO_MOVE = 1000  # that a connection may have missed on its way from one node to another

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Order)


class Orders:
    """``on_order`` for each, in their order; ``on_lost`` where some were trimmed before this node came back."""

    def __init__(
        self, membership: ClusterMembership, *, on_order: Callable[[Order], None], on_lost: Callable[[], None]
    ) -> None:
        self._on_order = on_order
        self._on_lost = on_lost
        self.channel = membership.keys.nodes_channel.encode()
        self._membership = membership
        self._last = b""  # id of the last one carried out
        self._number = 0  # its number, which is dense within a generation
        self._generation = ""
        self._some = asyncio.Event()

    async def send(self, order: Order) -> None:
        keys = self._membership.keys
        await self._membership.run(redis_scripts.ORDER, [keys.orders], keys.nodes_channel, _encoder.encode(order))
        self.wake()

    def wake(self) -> None:
        self._some.set()

    async def start(self) -> None:
        """Orders from now on are heard."""
        newest, number = await self._newest()
        self._last, self._number, self._generation = newest, number, self._membership.generation

    async def _newest(self) -> tuple[bytes, int]:
        keys = self._membership.keys
        newest, number = await self._membership.commands(
            ("XREVRANGE", keys.orders, "+", "-", "COUNT", 1), ("HGET", keys.life, "orders")
        )
        return newest[0][0] if newest else b"0-0", int(number or 0)

    @property
    def heard(self) -> str:
        """How far orders were carried out here: generation, id and number of the last one."""
        return f"{self._generation} {self._last.decode()} {self._number}"

    async def since(self, heard: str) -> list[Order] | None:
        """What came after ``heard``; None where it can't be told: some were trimmed, or are of another generation."""
        generation, last, number = heard.split(" ")
        if generation != self._membership.generation:
            return None
        if heard == self.heard:
            return []
        (found,) = await self._membership.commands(
            ("XRANGE", self._membership.keys.orders, f"({last}", "+", "COUNT", ORDERS_TO_MOVE + 1)
        )
        if len(found) > ORDERS_TO_MOVE or (found and int(found[0][1][1]) != int(number) + 1):
            return None
        orders: list[Order] = []
        for _, (_, _, _, raw) in found:
            with contextlib.suppress(msgspec.MsgspecError):  # of another version of this program
                orders.append(_decoder.decode(raw))
        return orders

    async def read_on(self) -> None:
        """Woken by ``wake``, and once in each beat."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._membership.timing.beat_s):
                    await self._some.wait()
            self._some.clear()
            with contextlib.suppress(Refused):  # the next beat tries again
                await self._read()

    async def _read(self) -> None:
        if self._generation != self._membership.generation:
            # What was carried out before may be gone from Redis, and its numbers may be used again.
            newest, self._number = await self._newest()
            self._last = min(self._last, newest, key=_place)
            self._generation = self._membership.generation
        while True:
            (found,) = await self._membership.commands(
                ("XRANGE", self._membership.keys.orders, b"(" + self._last, "+", "COUNT", ORDERS_AT_ONCE)
            )
            for id, (_, number, _, order) in found:
                if int(number) > self._number + 1:
                    log.warning("orders.lost", message="this node was away for longer than orders are kept")
                    self._on_lost()
                self._last, self._number = id, max(self._number, int(number))
                self._pass_on(order)
            if len(found) < ORDERS_AT_ONCE:
                return

    def _pass_on(self, raw: bytes) -> None:
        try:
            order = _decoder.decode(raw)
        except msgspec.MsgspecError as exc:
            log.warning("order.not_understood", error=str(exc))  # of another version of this program
            return
        self._on_order(order)


def _place(id: bytes) -> tuple[int, int]:
    time, _, sequence = id.partition(b"-")
    return int(time), int(sequence)
