"""Lasting memberships and the records of ``cursor=last``, in the embedded broker.

Records are the client's to make, one for each device: a client may have so many, what they cost is counted, and the
least recently used is given up first. Its client then begins anew, and is told so (a ``reset``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tidegate.brokers.contract import Claim
from tidegate.core.errors import TooManyGroups
from tidegate.core.model import Cursor, Position, group_stream

# Bytes beside the characters of names (measured; tests/brokers/test_memory.py compares).
RECORD_BYTES = 920
POSITION_BYTES = 220
MEMBER_BYTES = 420  # of a client that is a member of any group
MEMBERSHIP_BYTES = 110


class _Record:
    """``owner`` is a connection. ``granted`` are streams that a lasting membership put there and that the owner has not
    joined yet. ``used_s``: when it was last claimed or saved (monotonic)."""

    __slots__ = ("granted", "owner", "positions", "size", "used_s")

    def __init__(self) -> None:
        self.positions: Cursor | None = None
        self.granted: set[str] = set()
        self.owner = ""
        self.size = 0
        self.used_s = 0.0


class MemoryRecords:
    """``lives(client, connection)``: whether it is here; a record whose owner is, is kept. ``most``: of one client."""

    def __init__(
        self, meta_age_s: float, clock: Callable[[], float], lives: Callable[[str, str], bool], most: int
    ) -> None:
        self.size = 0  # what all of them cost, in bytes
        self.members_size = 0  # what lasting memberships cost; they are the application's, and stay
        self.given_up = 0  # because their client had too many
        self._most = most
        self._meta_age_s = meta_age_s
        self._clock = clock
        self._lives = lives
        self._members: dict[str, set[str]] = {}  # client -> groups
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()  # least recently used first
        # Client -> devices that have a record, least recently used first.
        self._devices: dict[str, OrderedDict[str, None]] = {}

    # Lasting membership

    def memberships(self, client: str) -> frozenset[str]:
        return frozenset(self._members.get(client, ()))

    def add_member(self, group: str, client: str, position: Position, most: int) -> bool:
        """True if it is new; records that lack the group get it at ``position``. Raises TooManyGroups."""
        groups = self._members.get(client, set())
        new = group not in groups
        if new and len(groups) >= most:
            raise TooManyGroups(f"{client} is a member of {len(groups)} groups already, {most} at most")
        if new:
            self.members_size += MEMBERSHIP_BYTES + len(group) + (0 if groups else MEMBER_BYTES + len(client))
        self._members.setdefault(client, groups).add(group)
        stream = group_stream(group)
        for device, record in self._of(client):
            if record.positions is not None and stream not in record.positions:
                record.positions[stream] = position
                record.granted.add(stream)
                self._count(client, device, record)
        return new

    def remove_member(self, group: str, client: str) -> bool:
        groups = self._members.get(client, set())
        was = group in groups
        groups.discard(group)
        if not groups:
            self._members.pop(client, None)
        if was:
            self.members_size -= MEMBERSHIP_BYTES + len(group) + (0 if groups else MEMBER_BYTES + len(client))
        stream = group_stream(group)
        for device, record in self._of(client):
            if record.positions is not None:
                record.positions.pop(stream, None)
            record.granted.discard(stream)
            self._count(client, device, record)
        return was

    # Records

    def claim(self, client: str, device: str, connection: str) -> Claim:
        record = self._records.get((client, device))
        if record is None:
            record = self._records[client, device] = _Record()
            self._devices.setdefault(client, OrderedDict())[device] = None
            self._keep_to_most(client)
        previous, record.owner = record.owner.partition("#")[0], connection
        self._count(client, device, record)
        self._use(client, device, record)
        return Claim(None if record.positions is None else dict(record.positions), previous or None)

    def save(self, client: str, device: str, connection: str, positions: Cursor) -> bool:
        record = self._records.get((client, device))
        if record is None or record.owner != connection:
            return False
        record.granted.difference_update(positions)
        granted = {stream: record.positions[stream] for stream in record.granted} if record.positions else {}
        record.positions = {**positions, **granted}
        self._count(client, device, record)
        self._use(client, device, record)
        return True

    def reclaim(self, client: str, device: str, connection: str, owner: str) -> Cursor | None:
        record = self._records.get((client, device))
        if record is None:
            self.claim(client, device, owner)
            return {}
        owning, _, term = record.owner.partition("#")
        if owning != connection or int(term or 0) > int(owner.partition("#")[2] or 0):
            return None
        record.owner = owner
        self._count(client, device, record)
        self._use(client, device, record)
        return dict(record.positions or {})

    # Forgetting

    def sweep(self, most: int) -> None:
        """Forgets up to ``most`` that are too old."""
        now_s = self._clock()
        for _ in range(most):
            oldest_s = self.oldest_s
            if oldest_s is None or now_s - oldest_s <= self._meta_age_s:
                return
            self.forget()

    @property
    def oldest_s(self) -> float | None:
        """When the least recently used was last used (monotonic)."""
        record = next(iter(self._records.values()), None)
        return None if record is None else record.used_s

    def forget(self) -> bool:
        """The least recently used; False where it has to stay: its owner would be taken for one that has lost it."""
        (client, device), record = next(iter(self._records.items()))
        if self._lives(client, record.owner.partition("#")[0]):
            self._use(client, device, record)
            return False
        self._drop(client, device)
        return True

    def _keep_to_most(self, client: str) -> None:
        """A client that has one more than it may loses another of its own: the least recently used of those whose owner
        is away, if there is one."""
        devices = list(self._devices[client])[:-1]  # the last is new
        if len(devices) < self._most:
            return
        away = (one for one in devices if not self._lives(client, self._records[client, one].owner.partition("#")[0]))
        self._drop(client, next(away, devices[0]))
        self.given_up += 1

    def _drop(self, client: str, device: str) -> None:
        self.size -= self._records.pop((client, device)).size
        devices = self._devices[client]
        del devices[device]
        if not devices:
            del self._devices[client]

    def _of(self, client: str) -> list[tuple[str, _Record]]:
        return [(device, self._records[client, device]) for device in self._devices.get(client, ())]

    def _use(self, client: str, device: str, record: _Record) -> None:
        record.used_s = self._clock()
        self._records.move_to_end((client, device))
        self._devices[client].move_to_end(device)

    def _count(self, client: str, device: str, record: _Record) -> None:
        names = len(client) + len(device) + len(record.owner)
        positions = record.positions or {}
        size = RECORD_BYTES + names + sum(map(len, positions)) + POSITION_BYTES * len(positions)
        self.size += size - record.size
        record.size = size
