"""Lasting memberships and the records of ``cursor=last``, in Redis."""

from __future__ import annotations

from tidegate.brokers.contract import Claim
from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pipeline import Argument
from tidegate.core.errors import TooManyGroups
from tidegate.core.model import Cursor, Position


class RedisRecords:
    def __init__(self, membership: ClusterMembership, meta_age_s: float, most: int) -> None:
        """``most``: records of one client."""
        self.given_up = 0  # because their client had too many
        self._most = most
        self._membership = membership
        self._meta_ms = max(1, int(meta_age_s * 1000))

    async def memberships(self, client: str) -> frozenset[str]:
        (groups,) = await self._membership.commands(("SMEMBERS", self._membership.keys.memberships(client)))
        return frozenset(group.decode() for group in groups)

    async def add_member(self, group: str, client: str, position: Position, most: int) -> bool:
        """True if it is new. Raises TooManyGroups."""
        changed = await self._change(group, client, most, f"{position.epoch} {position.offset}")
        if changed < 0:
            raise TooManyGroups(f"{client} is a member of {most} groups already")
        return changed > 0

    async def remove_member(self, group: str, client: str) -> bool:
        return await self._change(group, client, 0, "") > 0

    async def _change(self, group: str, client: str, most: int, position: str) -> int:
        keys = self._membership.keys
        names = [keys.memberships(client), keys.devices(client), keys.record(client, "")]
        return int(await self._membership.run(redis_scripts.MEMBER, names, group, most, position))

    async def claim(self, client: str, device: str, connection: str) -> Claim:
        keys = self._membership.keys
        names = [keys.record(client, device), keys.devices(client)]
        previous, given_up, *fields = await self._membership.run(
            redis_scripts.CLAIM, names, connection, device, self._meta_ms, self._most
        )
        self.given_up += given_up
        record = _cursor(fields[2:]) if fields else None
        return Claim(record, previous.decode().partition("#")[0] or None)

    async def reclaim(self, client: str, device: str, connection: str, owner: str) -> Cursor | None:
        names = [self._membership.keys.record(client, device)]
        owned, *fields = await self._membership.run(redis_scripts.RECLAIM, names, connection, owner, self._meta_ms)
        return _cursor(fields) if owned else None

    async def save(self, client: str, device: str, connection: str, record: Cursor) -> bool:
        keys = self._membership.keys
        args: list[Argument] = [connection, self._meta_ms]
        for stream, position in record.items():
            args += [stream, f"{position.epoch} {position.offset}"]
        names = [keys.record(client, device), keys.devices(client)]
        return bool(await self._membership.run(redis_scripts.SAVE, names, *args))


def _cursor(fields: list[bytes]) -> Cursor:
    """A record's streams and positions, one after the other."""
    record: Cursor = {}
    for stream, position in zip(fields[::2], fields[1::2], strict=True):
        epoch, _, offset = position.decode().partition(" ")
        record[stream.decode()] = Position(epoch, int(offset))
    return record
