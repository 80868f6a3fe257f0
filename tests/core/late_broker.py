"""A memory broker that is as late as one on the network, and later: when the test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from tidegate.brokers.contract import Claim, Order
from tidegate.brokers.memory.broker import MemoryBroker
from tidegate.core.errors import BrokerDown
from tidegate.core.model import Gap, History, Message, NodeInfo, Position


class LateBroker(MemoryBroker):
    """Its answers wait for ``release``, its announcements for ``announce``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clock = kwargs["clock"]
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.unheard: deque[Callable[[], None]] = deque()
        self.reads = 0  # under way
        self.failing = 0  # so many of the next pages are not read
        self.without_record: set[str] = set()  # clients whose record had been forgotten when they last came
        self._terms: dict[str, int] = {}  # what was said in an earlier subscription is not heard in a later one

    async def start(self, receiver: Any, node: NodeInfo) -> None:
        self._heard_by = receiver
        await super().start(self, node)

    def on_message(self, message: Message) -> None:
        self._say(message.stream, lambda: self._heard_by.on_message(message))

    def _say(self, stream: str, announcement: Callable[[], None]) -> None:
        term = self._terms.get(stream, 0)

        def say() -> None:
            if self._terms.get(stream, 0) == term:
                announcement()

        self.unheard.append(say)

    def on_gap(self, gap: Gap, position: Position) -> None:
        self._say(gap.stream, lambda: self._heard_by.on_gap(gap, position))

    def on_moved(self, stream: str, position: Position) -> None:
        self._say(stream, lambda: self._heard_by.on_moved(stream, position))

    def on_order(self, order: Order) -> None:
        self.unheard.append(lambda: self._heard_by.on_order(order))

    async def _late(self) -> None:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        await gate

    async def claim(self, client: str, device: str, connection: str) -> Claim:
        claim = await super().claim(client, device, connection)
        (self.without_record.discard if claim.record is not None else self.without_record.add)(client)
        return claim

    async def subscribe(self, stream: str) -> Position:
        # What the position answers is fixed when the broker confirms; messages after it are announced.
        await self._late()
        return await super().subscribe(stream)

    async def unsubscribe(self, stream: str) -> None:
        await self._late()
        self._terms[stream] = self._terms.get(stream, 0) + 1
        await super().unsubscribe(stream)

    async def history(self, stream: str, since: Position | None, *, messages: int, size: int) -> History:
        self.reads += 1
        try:
            await self._late()
            page = await super().history(stream, since, messages=min(messages, 3), size=size)
            await self._late()  # journalled meanwhile: not in the page
        finally:
            self.reads -= 1
        if self.failing:
            self.failing -= 1
            raise BrokerDown("no answer")
        return page

    def forget(self, stream: str) -> None:
        """As if the broker had been flushed: the stream starts anew, in another epoch."""
        streams = self._streams
        journal = streams._journals.get(stream)
        if journal is not None:
            streams._drop_messages(journal)
        if streams._tops.pop(stream, None) is None:
            return
        self._common.forgotten(self._common.current, self._clock())
        if stream in streams.followed:
            position = streams.follow(stream)
            gap = Gap(stream, position.epoch, None, position.offset, "reset")
            self.on_gap(gap, position)
