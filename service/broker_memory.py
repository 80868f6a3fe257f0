"""The embedded broker: one process, nothing on disk. A restart is a new epoch for every stream.

Streams that nobody has pushed to need no entry: their position is (the broker's epoch, 0) wherever they are asked for.
An entry that was forgotten after ``meta_age_s`` moves that epoch on, so that an old position never stands for a new
message. All journals together stay below ``journal_bytes``: the least recently used lose their messages first (a gap
``expired``).
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from service.broker import Claim, Membership, Order, Receiver, RetentionOf
from service.errors import KeyReused, Refused, TooManyGroups
from service.journal import Journal
from service.model import ConnectionInfo, Cursor, History, NodeInfo, Position, Publication, group_stream

KEY_AGE_S = 300.0
SWEEP_STREAMS = 500  # looked at in one sweep, so that no turn of the loop is long


class _Record:
    """One ``cursor=last`` record; ``owner`` is a connection. ``granted`` are streams that a lasting membership
    put there and that the owner has not joined yet."""

    __slots__ = ("granted", "owner", "positions", "used_s")

    def __init__(self) -> None:
        self.positions: Cursor | None = None
        self.granted: set[str] = set()
        self.owner: str | None = None
        self.used_s = 0.0


class MemoryBroker:
    """``epoch`` must differ from that of any earlier process; ``wall`` and ``clock`` give Unix and monotonic
    seconds."""

    def __init__(
        self,
        *,
        epoch: str,
        retention: RetentionOf,
        meta_age_s: float,
        journal_bytes: int,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epoch = epoch
        self._generation = 0
        self._retention = retention
        self._meta_age_s = meta_age_s
        self._journal_bytes = journal_bytes
        self._wall = wall
        self._clock = clock
        self._journals: OrderedDict[str, Journal] = OrderedDict()  # least recently used first
        self._bytes = 0
        self.forgotten = 0  # messages that were given up because all journals together were too large
        self._unswept: list[str] = []
        self._subscribed: dict[str, str] = {}  # stream -> the epoch that its subscribers were told
        self._keys: OrderedDict[tuple[str, str], tuple[float, bytes, Position]] = OrderedDict()
        self._present: dict[str, dict[str, ConnectionInfo]] = {}  # client -> connection -> info
        self._groups: dict[str, dict[str, str]] = {}  # group -> connection -> client
        self._members: dict[str, set[str]] = {}  # client -> groups
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._devices: dict[str, set[str]] = {}  # client -> devices that have a record
        self._receiver: Receiver | None = None
        self._node: NodeInfo | None = None

    # Life

    async def start(self, receiver: Receiver, node: NodeInfo) -> None:
        self._receiver = receiver
        self._node = node

    async def stop(self) -> None:
        self._receiver = None

    async def canary(self) -> float:
        return 0.0

    def report(self, node: NodeInfo) -> None:
        self._node = node

    async def nodes(self) -> list[NodeInfo]:
        return [] if self._node is None else [self._node]

    def sweep(self) -> None:
        """Forgets what is too old, some streams at a time. The composition root calls it a few times a second."""
        now_ms = self._now_ms()
        if not self._unswept:
            self._unswept = list(self._journals)
        for stream in self._unswept[-SWEEP_STREAMS:]:
            journal = self._journals.get(stream)
            if journal is None:
                continue
            self._trim(stream, journal, now_ms)
            stale = not journal.messages and now_ms - journal.touched_ms > self._meta_age_s * 1000
            if stale and stream not in self._subscribed:
                del self._journals[stream]
                self._generation += 1
        del self._unswept[-SWEEP_STREAMS:]
        now_s = self._clock()
        while self._keys and next(iter(self._keys.values()))[0] <= now_s:
            self._keys.popitem(last=False)
        for (client, device), record in list(self._records.items()):
            if now_s - record.used_s <= self._meta_age_s:
                break
            del self._records[client, device]
            self._forget_device(client, device)

    @property
    def journal_bytes(self) -> int:
        """What all kept messages cost now."""
        return self._bytes

    # Streams

    async def publish(self, publications: Sequence[Publication]) -> list[Position | Refused]:
        return [self._publish(publication) for publication in publications]

    def _publish(self, publication: Publication) -> Position | Refused:
        stream = publication.stream
        digest = b""
        if publication.key is not None:
            digest = hashlib.blake2b(publication.data, digest_size=16).digest()
            known = self._keys.get((stream, publication.key))
            if known is not None and known[0] > self._clock():
                if known[1] != digest:
                    return KeyReused("this key was used for another body in this stream")
                return known[2]
        journal = self._journals.get(stream) or self._create(stream)
        before = journal.size
        message = journal.append(publication.data, self._now_ms(), publication.client)
        self._bytes += journal.size - before
        self._trim(stream, journal, message.time_ms)
        self._journals.move_to_end(stream)
        if self._bytes > self._journal_bytes:
            self._make_room()
        position = Position(message.epoch, message.offset)
        if publication.key is not None:
            self._keys.pop((stream, publication.key), None)
            self._keys[stream, publication.key] = (self._clock() + KEY_AGE_S, digest, position)
        if stream in self._subscribed and self._receiver is not None:
            self._receiver.on_message(message)
        return position

    async def subscribe(self, stream: str) -> Position:
        position = self._position(stream)
        self._subscribed[stream] = position.epoch
        return position

    async def unsubscribe(self, stream: str) -> None:
        self._subscribed.pop(stream, None)

    async def top(self, stream: str) -> Position:
        return self._position(stream)

    async def history(self, stream: str, since: Position | None, *, messages: int, size: int) -> History:
        journal = self._journals.get(stream)
        if journal is None:
            journal = Journal(stream, self._position(stream).epoch, 0)
        else:
            self._trim(stream, journal, self._now_ms())
            self._journals.move_to_end(stream)
        return journal.since(since, messages, size)

    def _position(self, stream: str) -> Position:
        journal = self._journals.get(stream)
        if journal is not None:
            return journal.position
        return Position(self._subscribed.get(stream) or self._new_epoch(), 0)

    def _new_epoch(self) -> str:
        return f"{self._epoch}.{self._generation}" if self._generation else self._epoch

    def _create(self, stream: str) -> Journal:
        journal = self._journals[stream] = Journal(stream, self._position(stream).epoch, self._now_ms())
        return journal

    def _trim(self, stream: str, journal: Journal, now_ms: int) -> None:
        retention = self._retention(stream)
        before = journal.size
        journal.trim(retention.messages, now_ms - retention.age_s * 1000)
        self._bytes -= before - journal.size

    def _make_room(self) -> None:
        while self._bytes > self._journal_bytes:
            stream, journal = next(iter(self._journals.items()))
            self._bytes -= journal.size
            self.forgotten += len(journal.messages)
            journal.clear()
            self._journals.move_to_end(stream)  # nothing left to forget: out of the way of the next search

    # Presence

    async def attend(self, info: ConnectionInfo) -> None:
        connections = self._present.setdefault(info.client, {})
        before = connections.get(info.connection)
        connections[info.connection] = info
        old = frozenset(before.groups) if before else frozenset()
        for group in old.difference(info.groups):
            self._depart_group(group, info.connection)
        for group in info.groups:
            self._groups.setdefault(group, {})[info.connection] = info.client

    async def depart(self, info: ConnectionInfo) -> None:
        connections = self._present.get(info.client, {})
        before = connections.pop(info.connection, None)
        if before is None:
            return
        if not connections:
            del self._present[info.client]
        for group in before.groups:
            self._depart_group(group, info.connection)

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
        return frozenset(self._members.get(client, ()))

    async def add_member(self, group: str, client: str, *, most: int) -> bool:
        groups = self._members.setdefault(client, set())
        new = group not in groups
        if new and len(groups) >= most:
            raise TooManyGroups(f"{client} is a member of {len(groups)} groups already, {most} at most")
        groups.add(group)
        stream = group_stream(group)
        for device in self._devices.get(client, ()):
            record = self._records[client, device]
            if record.positions is not None and stream not in record.positions:
                record.positions[stream] = self._position(stream)
                record.granted.add(stream)
        await self.order(Membership(client, group, True))
        return new

    async def remove_member(self, group: str, client: str) -> bool:
        groups = self._members.get(client, set())
        was = group in groups
        groups.discard(group)
        if not groups:
            self._members.pop(client, None)
        for device in self._devices.get(client, ()):
            record = self._records[client, device]
            if record.positions is not None:
                record.positions.pop(group_stream(group), None)
            record.granted.discard(group_stream(group))
        await self.order(Membership(client, group, False))
        return was

    # Records

    async def claim(self, client: str, device: str, connection: str) -> Claim:
        record = self._records.get((client, device))
        if record is None:
            record = self._records[client, device] = _Record()
            self._devices.setdefault(client, set()).add(device)
        previous, record.owner = record.owner, connection
        self._use(client, device, record)
        return Claim(None if record.positions is None else dict(record.positions), previous)

    async def save(self, client: str, device: str, connection: str, record: Cursor) -> bool:
        kept = self._records.get((client, device))
        if kept is None or kept.owner != connection:
            return False
        kept.granted.difference_update(record)
        granted = {stream: kept.positions[stream] for stream in kept.granted} if kept.positions else {}
        kept.positions = {**record, **granted}
        self._use(client, device, kept)
        return True

    def _use(self, client: str, device: str, record: _Record) -> None:
        record.used_s = self._clock()
        self._records.move_to_end((client, device))

    def _forget_device(self, client: str, device: str) -> None:
        devices = self._devices.get(client, set())
        devices.discard(device)
        if not devices:
            self._devices.pop(client, None)

    # Orders

    async def order(self, order: Order) -> None:
        if self._receiver is not None:
            self._receiver.on_order(order)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)
