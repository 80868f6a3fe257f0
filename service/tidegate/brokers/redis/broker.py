"""The broker for many nodes: everything is in Redis, and a node knows what it has heard.

Raises BrokerDown wherever Redis does not answer in time; connections stay open meanwhile, and what they missed is read
when it is back. Source: docs/decisions/0010 to 0012.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from tidegate.brokers.contract import (
    RECORDS_GIVEN_UP,
    Claim,
    CloseOrder,
    MembershipOrder,
    Neighbour,
    Order,
    Receiver,
    ServerCondition,
)
from tidegate.brokers.redis.backlog import Backlog
from tidegate.brokers.redis.condition import condition
from tidegate.brokers.redis.ingress import Ingress
from tidegate.brokers.redis.membership import ClusterMembership, Timing
from tidegate.brokers.redis.orders import Orders
from tidegate.brokers.redis.pipeline import Address
from tidegate.brokers.redis.presence import RedisPresence
from tidegate.brokers.redis.pubsub import PubSub
from tidegate.brokers.redis.questions import MARK, Questions
from tidegate.brokers.redis.records import RedisRecords
from tidegate.brokers.redis.scripts import KeyNames
from tidegate.brokers.redis.streams import RedisStreams
from tidegate.core.errors import BrokerDown, CloseCode, InternalError, Refused
from tidegate.core.model import (
    ConnectionInfo,
    Cursor,
    Gap,
    History,
    Message,
    NodeInfo,
    Position,
    Publication,
    RejectedPush,
    RetentionOf,
    group_stream,
    node_stream,
)
from tidegate.core.push import PushLimits
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks

COMMON_S = 60.0  # a common epoch lasts so long at least, to be changed by beats in good time


class CanaryReceiver:
    """Hears the canary's stream. ``heard``: what came since the newest canary was published."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    def on_message(self, message: Message) -> None:
        self.heard.put_nowait(message)

    def on_gap(self, gap: Gap, position: Position) -> None:
        """It is not missed: the next one is on its way."""

    def on_moved(self, stream: str, position: Position) -> None:
        """It says nothing of the canary."""


class RedisBroker:
    """``events``: entries that ``tidegate:events`` keeps, 0 for none. ``observe(stream, outcome)`` is told of pushes
    that came through Redis. Raises Unusable for a URL that cannot be used."""

    sweep_s = None

    def __init__(
        self,
        *,
        url: str,
        prefix: str,
        node: str,
        retention: RetentionOf,
        meta_age_s: float,
        limits: PushLimits,
        tail_bytes: int,
        records_per_client: int = 100,
        ingress_entries: int = 1_000_000,
        ingress_bytes: int = 1 << 30,
        events: int = 0,
        observe: Callable[[str, str], None] = lambda stream, outcome: None,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing or Timing()
        self._tasks = Tasks()
        self._stream = node_stream(node)  # of the canary
        keys = KeyNames(prefix, node)
        address = Address(url)
        self.membership = ClusterMembership(
            address,
            keys,
            node,
            self._timing,
            self._tasks,
            events=events,
            common_s=max(meta_age_s, COMMON_S),
            on_up=self._up,
        )
        self.wakeups = PubSub(address, self.membership, self._tasks, on_wakeup=self._woken, on_hearing=self._look_again)
        self.streams = RedisStreams(
            self.membership,
            self.wakeups,
            self._tasks,
            retention=retention,
            meta_age_s=meta_age_s,
            tail_bytes=tail_bytes,
        )
        self.orders = Orders(self.membership, on_order=self._ordered, on_lost=self._orders_lost)
        self.questions = Questions(self.membership, self.wakeups, self._tasks)
        self.presence = RedisPresence(self.membership, events)
        self.records = RedisRecords(self.membership, meta_age_s, records_per_client)
        self.backlog = Backlog(self.membership, most_entries=ingress_entries, most_bytes=ingress_bytes)
        self.ingress = Ingress(self.membership, self.streams, address, limits, observe, self.backlog)
        self._receiver: Receiver | None = None
        self._canary = CanaryReceiver()
        self._canary_subscribed = False

    # Life

    async def start(self, receiver: Receiver, node: NodeInfo) -> None:
        self._receiver = receiver
        self.membership.info = node
        try:
            await self.membership.start()
            await self.orders.start()
            self.wakeups.start()
            await self.wakeups.add(self.orders.channel)
        except BaseException:
            await self.stop()
            raise
        self._tasks.spawn(self.orders.read_on(), "orders")
        self._tasks.spawn(self.presence.keep(), "presence")
        self._tasks.spawn(self.streams.look_around(), "look around")
        self._tasks.spawn(self.ingress.run(), "ingress")

    async def stop(self) -> None:
        await self.ingress.stop()
        await self.membership.stop()
        await self._tasks.cancel_all()

    def _up(self, changed: bool) -> None:
        if changed:
            self.presence.write_again()
        self._look_again()

    def _look_again(self) -> None:
        """What was said meanwhile was said to nobody."""
        self.streams.look_at_all()
        self.orders.wake()

    def _woken(self, channel: bytes, payload: bytes) -> None:
        if channel == self.orders.channel:
            if payload[:1] == MARK:
                self.questions.on_question(payload)
                return
            if payload == b"roster":
                self.membership.beat_now()
            self.orders.wake()
        elif channel == self.questions.channel:
            self.questions.on_answer(payload)
        else:
            self.streams.heard(channel, payload)

    def _ordered(self, order: Order) -> None:
        assert self._receiver is not None
        self._receiver.on_order(order)

    def _orders_lost(self) -> None:
        """They may have been to disconnect or to join anyone: those who come back are looked at anew."""
        assert self._receiver is not None
        for client in self.presence.clients():
            self._receiver.on_order(CloseOrder(client, None, CloseCode.RESTART))

    async def canary(self) -> float:
        """Through the publish script, the wake-up and the journal."""
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(self._timing.operation_s):
                await self._pass_canary()
        except TimeoutError:
            raise BrokerDown("no canary came through Redis in time") from None
        except InternalError as exc:
            raise BrokerDown(exc.message) from exc
        return (time.monotonic() - begun_s) * 1000

    async def _pass_canary(self) -> None:
        if not self._canary_subscribed:
            # Kept for too short a time to take the common epoch over: the first push makes one of its own.
            await self.streams.publish([Publication(self._stream, b"0")])
            await self.streams.subscribe(self._stream, self._canary)
            self._canary_subscribed = True
        heard = self._canary.heard = asyncio.Queue()
        (answer,) = await self.streams.publish([Publication(self._stream, b"0")])
        if isinstance(answer, Refused):
            raise BrokerDown(answer.message)
        message = await heard.get()
        while (message.epoch, message.offset) != (answer.epoch, answer.offset):
            message = await heard.get()
        (found,) = await self.membership.commands(("XLEN", self.membership.keys.journal(self._stream)))
        if not found:
            raise BrokerDown("the canary is not in its journal")

    def sweep(self) -> None:
        """Redis forgets by itself."""

    def register(self, metrics: Metrics) -> None:
        wakeups, streams, records = self.wakeups, self.streams, self.records
        self.backlog.register(metrics)
        self.membership.vitals.register(metrics)
        metrics.count(*RECORDS_GIVEN_UP, lambda: records.given_up)
        metrics.count("tidegate_wakeups", "Messages and orders announced by Redis.", lambda: wakeups.heard)
        metrics.count("tidegate_repaired_messages", "Messages that no wake-up brought.", lambda: streams.repaired)
        metrics.count("tidegate_pages_read", "Pages of history read from Redis.", lambda: streams.read)
        metrics.count("tidegate_pages_shared", "Pages of history from this node's memory.", lambda: streams.shared)
        metrics.gauge("tidegate_tail_bytes", "What the newest messages cost in memory.", lambda: streams.tail_bytes)

    def report(self, node: NodeInfo) -> None:
        was, self.membership.info = self.membership.info, node
        if (node.draining, node.lag_ms is None) != (was.draining, was.lag_ms is None):
            self.membership.beat_now()  # those who stop now must know it soon

    async def nodes(self) -> list[NodeInfo]:
        return await self.membership.known_nodes()

    async def condition(self) -> ServerCondition:
        return await condition(self.membership)

    @property
    def clock_off_ms(self) -> float | None:
        return self.membership.clock_off_ms

    def meet(self, neighbour: Neighbour) -> None:
        self.questions.neighbour = neighbour
        self.membership.on_node = neighbour.on_node
        self.presence.on_lost = neighbour.on_lost

    async def ask(self, question: bytes) -> dict[str, bytes | None]:
        return await self.questions.ask(question)

    # Streams

    async def publish(self, publications: Sequence[Publication]) -> list[Position | Refused]:
        return await self.streams.publish(publications) if publications else []

    async def rejected(self, limit: int) -> list[RejectedPush]:
        return await self.backlog.newest_rejected(limit)

    async def subscribe(self, stream: str) -> Position:
        assert self._receiver is not None
        return await self.streams.subscribe(stream, self._receiver)

    async def unsubscribe(self, stream: str) -> None:
        self.streams.unsubscribe(stream)

    async def top(self, stream: str) -> Position:
        return await self.streams.top(stream)

    async def history(self, stream: str, since: Position | None, *, messages: int, size: int) -> History:
        return await self.streams.history(stream, since, messages, size)

    async def entry(self, stream: str, position: Position) -> Message | None:
        return await self.streams.entry(stream, position)

    # Presence

    async def presence_join(self, info: ConnectionInfo) -> None:
        await self.presence.presence_join(info)

    async def presence_leave(self, info: ConnectionInfo) -> None:
        await self.presence.presence_leave(info)

    async def presence_move(self, info: ConnectionInfo) -> None:
        await self.presence.presence_move(info)

    def presence_hold(self, info: ConnectionInfo) -> None:
        self.presence.presence_hold(info)

    async def presence_release(self, info: ConnectionInfo) -> None:
        await self.presence.presence_release(info)

    async def connections(self, client: str) -> list[ConnectionInfo]:
        return await self.presence.connections(client)

    async def present(self, group: str) -> list[tuple[str, str]]:
        return await self.presence.present(group)

    # Lasting membership

    async def memberships(self, client: str) -> frozenset[str]:
        return await self.records.memberships(client)

    async def add_member(self, group: str, client: str, *, most: int) -> bool:
        # The position first: what comes between would be missed, what came before is only told twice.
        new = await self.records.add_member(group, client, await self.top(group_stream(group)), most)
        await self.order(MembershipOrder(client, group, True))
        return new

    async def remove_member(self, group: str, client: str) -> bool:
        was = await self.records.remove_member(group, client)
        await self.order(MembershipOrder(client, group, False))
        return was

    # Records

    async def claim(self, client: str, device: str, connection: str) -> Claim:
        return await self.records.claim(client, device, connection)

    async def save(self, client: str, device: str, connection: str, record: Cursor) -> bool:
        return await self.records.save(client, device, connection, record)

    async def reclaim(self, client: str, device: str, connection: str, owner: str) -> Cursor | None:
        return await self.records.reclaim(client, device, connection, owner)

    # Orders

    async def order(self, order: Order) -> None:
        await self.orders.send(order)

    @property
    def orders_heard(self) -> str:
        return self.orders.heard

    async def orders_since(self, heard: str) -> list[Order] | None:
        return await self.orders.since(heard)
