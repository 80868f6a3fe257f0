"""The clients that are here, on all nodes. An entry names its node and counts while that node beats, so that a
lease for each connection is not needed; keys of nodes long dead expire.

What was written is kept here too: a ``presence_join`` or ``presence_leave`` that failed is made good, and all of it
is written again where Redis may have lost it, and now and then so that it does not expire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import msgspec

from tidegate.brokers.redis import scripts as redis_scripts
from tidegate.brokers.redis.membership import ClusterMembership
from tidegate.brokers.redis.pipeline import Argument
from tidegate.core.errors import Refused
from tidegate.core.model import ConnectionInfo

KEY_MS = 3_600_000
RENEW_S = 1200.0
AT_ONCE = 200

_decoder = msgspec.json.Decoder(ConnectionInfo)


class RedisPresence:
    """``events``: how many entries ``tidegate:events`` keeps, 0 for no events."""

    def __init__(self, membership: ClusterMembership, events: int) -> None:
        self._membership = membership
        self._events = events
        self._here: dict[str, ConnectionInfo] = {}  # as it should be in Redis
        self._unwritten: dict[str, ConnectionInfo] = {}  # what Redis may lack, or have too much; by connection
        self._came_from: dict[str, str] = {}  # the node that a connection here had before
        self._untold: list[str] = []  # connections that the application must hear of once more
        self.on_lost: Callable[[ConnectionInfo], None] = lambda info: None
        self._may_be_lost = False  # it was away: the others may have said so
        self._lost_ms: bytes | None = None  # when they did, as far as all was told again

    def clients(self) -> set[str]:
        """Those with a connection on this node."""
        return {info.client for info in self._here.values()}

    async def presence_join(self, info: ConnectionInfo) -> None:
        before = self._here.get(info.connection)
        self._here[info.connection] = info
        await self._write(info, self._changed(before, info))

    def _changed(self, before: ConnectionInfo | None, info: ConnectionInfo) -> list[tuple[Argument, ...]]:
        old = before.groups if before else ()
        events = [] if before else [("connected", "")]
        events += [("joined", group) for group in info.groups if group not in old]
        events += [("left", group) for group in old if group not in info.groups]
        gone = [self._absent(group, info) for group in old if group not in info.groups]
        return [*self._present(info), *gone, *self._told(info, events)]

    async def presence_leave(self, info: ConnectionInfo) -> None:
        self._came_from.pop(info.connection, None)
        before = self._here.pop(info.connection, None) or info
        self._unwritten[info.connection] = before
        told = self._told(before, [("disconnected", "")])
        if await self._release(before) >= 0 and told:  # it may be another node's, where this one was late
            await self._membership.commands(*told)
        if self._unwritten.get(info.connection) is before:
            del self._unwritten[info.connection]

    async def presence_move(self, info: ConnectionInfo) -> None:
        key = self._membership.keys.connections(info.client)
        (raw,) = await self._membership.commands(("HGET", key, info.connection))
        self._here[info.connection] = info
        before = _decoder.decode(raw) if raw else None
        if before is not None and before.node != info.node and self._events:
            self._came_from[info.connection] = before.node
        # It may have left: an edge that hung for longer than anybody waits comes back with its clients.
        await self._write(info, self._changed(before, info))

    def presence_hold(self, info: ConnectionInfo) -> None:
        self._here.pop(info.connection, None)
        self._came_from.pop(info.connection, None)
        self._unwritten.pop(info.connection, None)  # or it would be written over another node's

    async def presence_release(self, info: ConnectionInfo) -> None:
        if await self._release(info) > 0:
            await self._membership.commands(*self._told(info, [("disconnected", "")]))

    async def _release(self, info: ConnectionInfo) -> int:
        """1: it has left; 0: nobody has it; -1: another node has it."""
        keys = self._membership.keys
        names = [keys.connections(info.client), *map(keys.present, info.groups)]
        return int(await self._membership.run(redis_scripts.RELEASE, names, info.connection))

    async def _write(self, info: ConnectionInfo, commands: list[tuple[Argument, ...]]) -> None:
        self._unwritten[info.connection] = info
        await self._membership.commands(*commands)
        if self._unwritten.get(info.connection) is info:
            del self._unwritten[info.connection]

    def _present(self, info: ConnectionInfo) -> list[tuple[Argument, ...]]:
        keys = self._membership.keys
        connections = keys.connections(info.client)
        commands: list[tuple[Argument, ...]] = [
            ("HSET", connections, info.connection, msgspec.json.encode(info)),
            ("PEXPIRE", connections, KEY_MS),
        ]
        for group in info.groups:
            commands.append(("HSET", keys.present(group), info.connection, f"{info.client} {info.node}"))
            commands.append(("PEXPIRE", keys.present(group), KEY_MS))
        return commands

    def _departed(self, info: ConnectionInfo) -> list[tuple[Argument, ...]]:
        gone: tuple[Argument, ...] = ("HDEL", self._membership.keys.connections(info.client), info.connection)
        return [gone, *(self._absent(group, info) for group in info.groups)]

    def _absent(self, group: str, info: ConnectionInfo) -> tuple[Argument, ...]:
        return ("HDEL", self._membership.keys.present(group), info.connection)

    def _told(self, info: ConnectionInfo, events: list[tuple[str, str]]) -> list[tuple[Argument, ...]]:
        if not self._events:
            return []
        head: tuple[Argument, ...] = ("XADD", self._membership.keys.events, "MAXLEN", "~", self._events, "*")
        who: tuple[Argument, ...] = ("client", info.client, "connection", info.connection, "node", info.node)
        return [(*head, "event", event, *who, *(("group", group) if group else ())) for event, group in events]

    async def connections(self, client: str) -> list[ConnectionInfo]:
        key = self._membership.keys.connections(client)
        (raw,) = await self._membership.commands(("HVALS", key))
        found = [_decoder.decode(info) for info in raw]
        for info in found:
            if not self._membership.alive(info.node):
                self.on_lost(info)
        await self._forget(key, [info.connection for info in found if not self._membership.alive(info.node)])
        return [info for info in found if self._membership.alive(info.node)]

    async def present(self, group: str) -> list[tuple[str, str]]:
        key = self._membership.keys.present(group)
        (raw,) = await self._membership.commands(("HGETALL", key))
        here: list[tuple[str, str]] = []
        gone: list[str] = []
        for connection, value in zip(raw[::2], raw[1::2], strict=True):
            client, _, node = value.decode().partition(" ")
            if self._membership.alive(node):
                here.append((client, connection.decode()))
            else:
                gone.append(connection.decode())
        await self._forget(key, gone)
        return here

    async def _forget(self, key: str, connections: list[str]) -> None:
        """Those of dead nodes."""
        if connections:
            await self._membership.commands(("HDEL", key, *connections))

    def write_again(self) -> None:
        """Redis may have lost all of it."""
        self._unwritten |= self._here
        self._may_be_lost = bool(self._events)

    async def keep(self) -> None:
        """Makes good what failed, and renews what would expire."""
        renewed_s = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(self._membership.timing.beat_s)
            await self._membership.up.wait()
            if asyncio.get_running_loop().time() - renewed_s > RENEW_S:
                renewed_s = asyncio.get_running_loop().time()
                self.write_again()
            try:
                while self._unwritten:
                    await self._write_some()
                await self._tell_again()
            except Refused:
                pass  # the next beat tries again

    async def _tell_again(self) -> None:
        """The application hears of a node that died, and takes its connections for gone: of those that have moved
        here it hears once more, and of all that are here if it was this node, which hung. Of one that stopped it hears
        nothing, and nothing of them."""
        if self._may_be_lost:
            (lost_ms,) = await self._membership.commands(("ZSCORE", self._membership.keys.lost, self._membership.node))
            if lost_ms is not None and lost_ms != self._lost_ms:
                self._untold += self._here
            self._may_be_lost, self._lost_ms = False, lost_ms
        members = self._membership.members
        moved = [connection for connection, node in self._came_from.items() if node not in members]
        if moved:
            (died,) = await self._membership.commands(("ZRANGE", self._membership.keys.lost, "0", "-1"))
            for connection in moved:
                if self._came_from.pop(connection).encode() in died:
                    self._untold.append(connection)
        while self._untold:
            commands: list[tuple[Argument, ...]] = []
            for connection in self._untold[:AT_ONCE]:
                if (info := self._here.get(connection)) is not None:
                    commands += self._told(info, [("connected", ""), *(("joined", group) for group in info.groups)])
            await self._membership.commands(*commands)
            del self._untold[:AT_ONCE]

    async def _write_some(self) -> None:
        some = list(islice(self._unwritten.items(), AT_ONCE))
        commands: list[tuple[Argument, ...]] = []
        for connection, info in some:
            now = self._here.get(connection)
            if now is None:
                await self._release(info)
            else:
                # Also out of groups that it had when the write failed.
                commands += [*self._departed(info), *self._present(now)]
        await self._membership.commands(*commands)
        for connection, info in some:
            if self._unwritten.get(connection) is info:
                del self._unwritten[connection]
