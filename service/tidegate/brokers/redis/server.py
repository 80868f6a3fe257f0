"""What a Redis server says of itself: which one it is, and what it has on its disk.

A node must know that the disk has something where a farewell ends (docs/decisions/0084). A server that syncs before it
answers has it; one that knows WAITAOF says so; of any other it is known when it has written its data anew since.
"""

from __future__ import annotations

import msgspec
from redis.exceptions import ResponseError

from tidegate.brokers.redis.pipeline import Pipeline
from tidegate.core.errors import BrokerDown

_SYNCS = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}
SETTINGS = (*_SYNCS, b"save")
WRITTEN_ANEW_BYTES = 256 << 20  # of memory, at most, where its data must be written anew: some seconds
_WAIT_MS = 500
_WAITS = 6  # for a log that is synced once a second, or by the kernel alone


class ServerInfo(msgspec.Struct, frozen=True):
    """What INFO says of the server at the other end, and CONFIG GET where it answers."""

    incarnation: str
    version: str
    role: str
    mode: str
    policy: str
    is_alone: bool  # it has no replica
    was_replica: bool  # what it has is not from its own disk
    settings: dict[bytes, bytes]  # those of SETTINGS; empty where it does not tell
    memory: int  # bytes

    @classmethod
    def of(cls, info: dict[str, str], config: list[bytes] | None) -> ServerInfo:
        return cls(
            incarnation=f"{info.get('run_id')}.{info.get('master_replid')}",
            version=info.get("redis_version", "0"),
            role=info.get("role", ""),
            mode=info.get("redis_mode", ""),
            policy=info.get("maxmemory_policy", "noeviction"),
            is_alone=info.get("connected_slaves") == "0",
            was_replica=info.get("master_replid2", "").strip("0") != "",
            settings=dict(zip(config[::2], config[1::2], strict=True)) if config else {},
            memory=int(info.get("used_memory", 0)),
        )

    @property
    def syncs(self) -> bool:
        """What it acknowledges is on its own disk, and nobody could take its place without it."""
        return self.is_alone and self.settings.items() >= _SYNCS.items()

    @property
    def owns_its_data(self) -> bool:
        """No other server has had it, as far as this one knows."""
        return self.is_alone and not self.was_replica

    def check(self) -> None:
        """Raises ValueError for a server that cannot be used."""
        if int(self.version.partition(".")[0]) < 7:
            raise ValueError(f"Redis is {self.version}; 7 or newer is needed")
        if self.mode == "cluster":
            raise ValueError("Redis is in cluster mode, which is not supported")


def fields(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}


class Disk:
    """The server's, for what was written by this pipeline before."""

    def __init__(self, pipeline: Pipeline, server: ServerInfo) -> None:
        self._pipeline = pipeline
        self._server = server
        self._waits = 0
        self._begun = False  # it writes its data anew, since then

    async def could_tell(self) -> bool:
        """Whether ``has_all`` would find out, and soon: the server keeps its data, and may be asked."""
        server = self._server
        if server.syncs:
            return True
        logs = server.settings.get(b"appendonly") == b"yes"
        if logs and await self._answers("WAITAOF", 0, 0, 0):
            return True
        if server.memory > WRITTEN_ANEW_BYTES or not (logs or server.settings.get(b"save")):
            return False
        # No such option: whoever may not save is told that first.
        return await self._answers("BGSAVE", "?", but="syntax")

    async def _answers(self, *command: str | int, but: str | None = None) -> bool:
        try:
            await self._pipeline.call(*command)
        except BrokerDown:
            raise
        except ResponseError as exc:
            return but is not None and but in str(exc)
        return but is None

    async def has_all(self) -> bool:
        """Asked again and again until it has. Has the server do what is needed for that."""
        if self._server.syncs:
            return True
        info = fields(await self._pipeline.call("INFO", "persistence"))
        logs = info.get("aof_enabled") == "1"
        if logs and self._waits < _WAITS:
            self._waits += 1
            try:
                synced, _ = await self._pipeline.call("WAITAOF", 1, 0, _WAIT_MS)
                return bool(synced >= 1)
            except ResponseError:
                self._waits = _WAITS  # before 7.2
        running = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if any(info.get(name) == "1" for name in running):
            return False
        status = info.get("aof_last_bgrewrite_status" if logs else "rdb_last_bgsave_status")
        if self._begun and status == "ok":
            return True
        self._begun = await self._answers("BGREWRITEAOF" if logs else "BGSAVE")
        return False
