"""The embedded broker: one process, nothing on disk. A restart is a new epoch for every stream.

What it holds stays below ``journal_bytes``, all of it together: messages, the tops of streams whose messages are gone,
idempotency keys, the records of ``cursor=last`` and lasting memberships. What is given up is what was used least
(``_make_room``), and never without a word: messages become a gap ``expired``, a top or a record a ``reset``, and a key
or a membership that there is no room for is refused. Source: docs/decisions/0014.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from tidegate.brokers.contract import RECORDS_GIVEN_UP, Claim, MembershipOrder, Neighbour, Order, Receiver
from tidegate.brokers.memory.keys import KEY_BYTES, IdempotencyKeys
from tidegate.brokers.memory.records import MemoryRecords
from tidegate.brokers.memory.streams import MemoryStreams
from tidegate.core.common_epoch import CommonEpoch
from tidegate.core.errors import BrokerDown, Full, KeyReused, Refused
from tidegate.core.model import (
    ConnectionInfo,
    Cursor,
    History,
    Message,
    NodeInfo,
    Position,
    Publication,
    RejectedPush,
    RetentionOf,
    group_stream,
)
from tidegate.metrics import Metrics

SWEEP_S = 0.25
SWEEP_EACH = 500  # of each kind that are looked at in one sweep, so that no turn of the loop is long
SWEEP_KEYS = 2000  # a key costs less to look at, and they come faster
TURN_PUSHES = 100  # of one batch
CANARY = "node:canary"  # a stream that nobody can push to or follow from outside
ORDERS_KEPT = 1000  # for connections that are on their way back
TRIES = 16  # for one that may be given up; those that may not go to the end


class MemoryBroker:
    """``epoch`` must differ from that of any earlier process; ``wall`` and ``clock`` give Unix and monotonic
    seconds."""

    sweep_s = SWEEP_S
    clock_off_ms = None

    def __init__(
        self,
        *,
        epoch: str,
        retention: RetentionOf,
        meta_age_s: float,
        journal_bytes: int,
        records_per_client: int = 100,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_bytes = journal_bytes
        self._common = CommonEpoch(epoch, meta_age_s, clock())
        self._streams = MemoryStreams(
            self._common,
            retention=retention,
            meta_age_s=meta_age_s,
            wall=wall,
            clock=clock,
            on_moved=self._moved,
        )
        self._keys = IdempotencyKeys(clock)
        self._records = MemoryRecords(meta_age_s, clock, self._lives, records_per_client)
        self._present: dict[str, dict[str, ConnectionInfo]] = {}  # client -> connection -> info
        self._groups: dict[str, dict[str, str]] = {}  # group -> connection -> client
        self._receiver: Receiver | None = None
        self._followers: dict[str, Callable[[Message], None]] = {}  # stream -> who is told of its messages
        self._canary_heard: Message | None = None
        self._node: NodeInfo | None = None
        self._life = epoch
        self._ordered = 0  # how many there were
        self._orders: deque[Order] = deque(maxlen=ORDERS_KEPT)

    # Life

    async def start(self, receiver: Receiver, node: NodeInfo) -> None:
        self._receiver = receiver
        self._node = node

    async def stop(self) -> None:
        self._receiver = None
        self._followers.clear()

    def _moved(self, stream: str, position: Position) -> None:
        if self._receiver is not None:
            self._receiver.on_moved(stream, position)

    def _lives(self, client: str, connection: str) -> bool:
        return connection in self._present.get(client, ())

    async def canary(self) -> float:
        """As a push to a followed stream goes: through publish, the journal, what a follower hears, and history."""
        begun_s = time.monotonic()
        try:
            await self._pass_canary()
        except BrokerDown:
            raise
        except Exception as exc:  # whatever it is, a client's message would meet it too
            raise BrokerDown(f"the canary did not pass: {type(exc).__name__}") from exc
        return (time.monotonic() - begun_s) * 1000

    async def _pass_canary(self) -> None:
        if self._receiver is None:
            raise BrokerDown("the broker does not run")
        if CANARY not in self._followers:
            self._streams.follow(CANARY)  # for good: its epoch is not forgotten, and no other stream's is for it
            self._followers[CANARY] = self._hear_canary
        before = self._streams.position(CANARY)
        self._canary_heard = None
        (answer,) = await self.publish([Publication(CANARY, b"0")])
        if isinstance(answer, Refused):
            raise BrokerDown(answer.message)
        heard: Message | None = self._canary_heard
        if heard is None or (heard.epoch, heard.offset) != (answer.epoch, answer.offset):
            raise BrokerDown("the canary was not heard")
        page = await self.history(CANARY, Position(answer.epoch, before.offset), messages=1, size=1)
        for_room = page.gap is not None and page.gap.reason == "expired"
        if page.end != answer or not page.complete or not (page.messages == [heard] or for_room):
            raise BrokerDown("the canary is not in its journal")
        self._streams.clear(CANARY)  # or many would be kept

    def _hear_canary(self, message: Message) -> None:
        self._canary_heard = message

    def report(self, node: NodeInfo) -> None:
        self._node = node

    async def nodes(self) -> list[NodeInfo]:
        return [] if self._node is None else [self._node]

    async def condition(self) -> None:
        """There is no server."""

    def meet(self, neighbour: Neighbour) -> None:
        """There are no others."""

    async def ask(self, question: bytes) -> dict[str, bytes | None]:
        return {}

    def sweep(self) -> None:
        """Forgets what is too old, some at a time."""
        self._streams.sweep(SWEEP_EACH)
        self._records.sweep(SWEEP_EACH)
        self._keys.sweep(SWEEP_KEYS)

    def register(self, metrics: Metrics) -> None:
        metrics.gauge("tidegate_journal_bytes", "What the broker keeps in memory.", lambda: self.journal_bytes)
        metrics.count(*RECORDS_GIVEN_UP, lambda: self._records.given_up)
        metrics.count("tidegate_journal_forgotten", "Messages given up for their size.", lambda: self.forgotten)

    @property
    def journal_bytes(self) -> int:
        """What everything costs that is kept beyond connections."""
        streams = self._streams
        records = self._records
        return streams.journal_bytes + streams.top_bytes + self._keys.size + records.size + records.members_size

    @property
    def forgotten(self) -> int:
        """Messages that were given up because everything together was too large."""
        return self._streams.forgotten

    # Streams

    async def publish(self, publications: Sequence[Publication]) -> list[Position | Refused]:
        results: list[Position | Refused] = []
        for number, publication in enumerate(publications):
            if number and number % TURN_PUSHES == 0:
                await asyncio.sleep(0)  # a batch of thousands, and its delivery, must not be one turn of the loop
            results.append(self._publish(publication))
        return results

    def _publish(self, publication: Publication) -> Position | Refused:
        streams, stream, key, data = self._streams, publication.stream, publication.key, publication.data
        if key is not None:
            try:
                known = self._keys.find(stream, key, data)
            except KeyError:
                return KeyReused("this key was used for another body in this stream")
            if known is not None:
                return known
            self._keys.sweep(2)  # faster than they come
            if self._keys.size + KEY_BYTES > self._most_bytes // 2:
                return BrokerDown("half of limits.journal_bytes is idempotency keys of the last five minutes")
        message = streams.append(publication)
        position = Position(message.epoch, message.offset)
        if key is not None:
            self._keys.add(stream, key, data, position)
        if self.journal_bytes > self._most_bytes:
            self._make_room()
        tell = self._followers.get(stream)
        if tell is not None:
            tell(message)
        return position

    def _make_room(self) -> None:
        """Messages first, of the least used streams, down to a quarter of all; then the least used of tops and records;
        then the rest of the messages. Keys stay."""
        while self.journal_bytes > self._most_bytes:
            enough = self._streams.journal_bytes > self._most_bytes // 4
            if not (enough and self._streams.forget_journal()) and not (
                self._forget_top_or_record() or self._streams.forget_journal()
            ):
                return  # all that is left is in use

    def _forget_top_or_record(self) -> bool:
        for _ in range(TRIES):
            top_s, record_s = self._streams.oldest_top_s, self._records.oldest_s
            if top_s is not None and (record_s is None or top_s <= record_s):
                forgotten = self._streams.forget_top()
            elif record_s is not None:
                forgotten = self._records.forget()
            else:
                return False
            if forgotten:
                return True
        return False

    async def rejected(self, limit: int) -> list[RejectedPush]:
        return []  # pushes come in through the API alone, and are answered there

    async def subscribe(self, stream: str) -> Position:
        if self._receiver is not None:
            self._followers[stream] = self._receiver.on_message
        return self._streams.follow(stream)

    async def unsubscribe(self, stream: str) -> None:
        self._followers.pop(stream, None)
        self._streams.unfollow(stream)

    async def top(self, stream: str) -> Position:
        return self._streams.position(stream)

    async def history(self, stream: str, since: Position | None, *, messages: int, size: int) -> History:
        return self._streams.history(stream, since, messages, size)

    async def entry(self, stream: str, position: Position) -> Message | None:
        before = Position(position.epoch, position.offset - 1)
        page = self._streams.history(stream, before, messages=1, size=1)
        return page.messages[0] if page.messages and page.gap is None else None

    # Presence

    async def presence_join(self, info: ConnectionInfo) -> None:
        connections = self._present.setdefault(info.client, {})
        before = connections.get(info.connection)
        connections[info.connection] = info
        old = frozenset(before.groups) if before else frozenset()
        for group in old.difference(info.groups):
            self._depart_group(group, info.connection)
        for group in info.groups:
            self._groups.setdefault(group, {})[info.connection] = info.client

    async def presence_leave(self, info: ConnectionInfo) -> None:
        connections = self._present.get(info.client, {})
        before = connections.pop(info.connection, None)
        if before is None:
            return
        if not connections:
            del self._present[info.client]
        for group in before.groups:
            self._depart_group(group, info.connection)

    async def presence_move(self, info: ConnectionInfo) -> None:
        await self.presence_join(info)

    def presence_hold(self, info: ConnectionInfo) -> None:
        """It stays."""

    async def presence_release(self, info: ConnectionInfo) -> None:
        await self.presence_leave(info)

    def _depart_group(self, group: str, connection: str) -> None:
        members = self._groups.get(group, {})
        members.pop(connection, None)
        if not members:
            self._groups.pop(group, None)

    async def connections(self, client: str) -> list[ConnectionInfo]:
        return list(self._present.get(client, {}).values())

    async def present(self, group: str) -> list[tuple[str, str]]:
        return [(client, connection) for connection, client in self._groups.get(group, {}).items()]

    # Lasting membership

    async def memberships(self, client: str) -> frozenset[str]:
        return self._records.memberships(client)

    async def add_member(self, group: str, client: str, *, most: int) -> bool:
        if self._records.members_size > self._most_bytes // 2 and group not in self._records.memberships(client):
            raise Full("half of limits.journal_bytes is lasting memberships; end some, or raise it")
        new = self._records.add_member(group, client, self._streams.position(group_stream(group)), most)
        self._make_room()
        await self.order(MembershipOrder(client, group, True))
        return new

    async def remove_member(self, group: str, client: str) -> bool:
        was = self._records.remove_member(group, client)
        await self.order(MembershipOrder(client, group, False))
        return was

    # Records

    async def claim(self, client: str, device: str, connection: str) -> Claim:
        claim = self._records.claim(client, device, connection)
        self._make_room()
        return claim

    async def save(self, client: str, device: str, connection: str, record: Cursor) -> bool:
        saved = self._records.save(client, device, connection, record)
        self._make_room()
        return saved

    async def reclaim(self, client: str, device: str, connection: str, owner: str) -> Cursor | None:
        return self._records.reclaim(client, device, connection, owner)

    # Orders

    async def order(self, order: Order) -> None:
        self._ordered += 1
        self._orders.append(order)
        if self._receiver is not None:
            self._receiver.on_order(order)

    @property
    def orders_heard(self) -> str:
        return f"{self._life} {self._ordered}"

    async def orders_since(self, heard: str) -> list[Order] | None:
        life, _, number = heard.partition(" ")
        if life != self._life:
            return []  # of a process that has ended, and its orders with it
        missing = self._ordered - int(number)
        return None if missing > len(self._orders) else list(self._orders)[len(self._orders) - missing :]
