"""What happens to a cluster, each kind by its name."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator

import redis

from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer, Trio
from tests.faults.cluster import Cluster
from tests.support import eventually
from tests.upgrades.release import Release

FAULTS = {
    "kill_node": 3,
    "pause_node": 2,
    "kill_redis": 2,
    "pause_redis": 1,
    "kill_pubsub": 3,
    "kill_commands": 2,
    "forget_scripts": 1,
    "fill_redis": 1,
    "flush_redis": 1,
}
# What happens to nodes alone: clients of an edge with trunks notice nothing of these.
NODE_FAULTS = {"kill_node": 3, "pause_node": 1, "hang_node": 1, "drain_node": 3, "restart_all": 0}

# Between the edge and its nodes.
EDGE_FAULTS = {"cut_edge": 3, "reset_edge": 2}
# What happens to a machine. A Redis whose disk is full ends by itself where it syncs before it answers.
HOST_FAULTS = {"fill_disk": 2, "fill_redis": 1, "move_clock": 3, "freeze_node": 1, "kill_node": 1, "kill_redis": 1}
SENTINEL_FAULTS = {"fail_over": 1}
# What happens to the one machine that everything runs on.
EVERYTHING_FAULTS = {"restart_everything": 1}
SNAPSHOT_FAULTS = {"restart_everything": 1, "crash_everything": 1}
WITH = {
    "crash_everything": "snapshots",
    "cut_edge": "wires",
    "reset_edge": "wires",
    "fill_disk": "disk",
    "move_clock": "clocks",
    "fail_over": "sentinels",
}
DISK_BYTES = 32 << 20
FAR_S = 120  # that a clock goes: not beyond what a key of a push is remembered for


class Hazards(Cluster):
    """Names of faults are those of its methods, without the underscore."""

    _lacks_sentinel = False

    # Faults of nodes and edge

    async def _kill_node(self) -> None:
        await self._kill(self._chance.choice(self._indexes))

    async def _kill_reader(self) -> None:
        """The node that reads the ingress: its lease begins with its name."""
        token = await eventually(lambda: self._redis.command("GET", "tidegate:push:lease"), 20)
        await self._kill(int(token[1]))

    async def _kill(self, index: int) -> None:
        self._say(f"kill node {index}")
        self._down.add(index)
        self._nodes[index].kill()
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        await self._start_again(index)

    async def _drain_node(self) -> None:
        await self._drain(self._chance.choice(self._indexes))

    async def _restart_all(self) -> None:
        """One after the other, as a deploy does."""
        for index in self._indexes:
            await self._drain(index)

    async def _upgrade(self) -> None:
        """One node after the other, as a deploy does."""
        for index in self._indexes:
            await self._change_version(index, None)

    async def _roll_back(self) -> None:
        for index in self._indexes:
            await self._change_version(index, self._before)

    async def _upgrade_and_roll_back(self) -> None:
        await self._upgrade()
        await self._roll_back()

    async def _swap_version(self) -> None:
        index = self._chance.choice(self._indexes)
        await self._change_version(index, self._before if self._versions[index] is None else None)

    async def _change_version(self, index: int, release: Release | None) -> None:
        self._say(f"node {index} is to be of {release.version if release else 'this checkout'}")
        self._versions[index] = release
        await self._drain(index)

    async def _drain(self, index: int) -> None:
        self._say(f"drain node {index}")
        self._down.add(index)
        self._nodes[index].signal(signal.SIGTERM)
        await self._nodes[index].ended(self._drain_s + 15)
        await self._start_again(index)

    async def _pause_node(self) -> None:
        await self._stop_for(self._chance.uniform(0.2, 4))

    async def _hang_node(self) -> None:
        """For longer than an edge waits for a sign of it on a trunk."""
        await self._stop_for(self._chance.uniform(6, 8))

    async def _freeze_node(self) -> None:
        """For longer than any lease."""
        await self._stop_for(self._chance.uniform(11, 12))

    async def _stop_for(self, pause_s: float) -> None:
        index = self._chance.choice(self._indexes)
        self._say(f"pause node {index} for {pause_s:.1f} s")
        self._nodes[index].signal(signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        self._nodes[index].signal(signal.SIGCONT)

    async def _cut_edge(self) -> None:
        """Nothing passes between the edge and a node, and nobody is told; then what was open is broken."""
        index, cut_s = self._chance.choice(self._indexes), self._chance.uniform(0.5, 7)
        self._say(f"cut node {index} off from the edge for {cut_s:.1f} s")
        for wire in self._wires_of(index):
            wire.cut()
        await asyncio.sleep(cut_s)
        for wire in self._wires_of(index):
            wire.heal()

    async def _reset_edge(self) -> None:
        index = self._chance.choice(self._indexes)
        self._say(f"break what is open between the edge and node {index}")
        for wire in self._wires_of(index):
            wire.heal()

    def _wires_of(self, index: int) -> list[Proxy]:
        return [wires[index] for wires in (self._wires, self._trunk_wires) if index in wires]

    async def _reload_edge(self) -> None:
        """Clients are told to move, and go to the new worker within ``edge.shutdown_timeout_s``."""
        assert self._edge is not None
        self._say("reload the edge")
        await self._edge.reload()

    # Faults of Redis

    async def _kill_redis(self) -> None:
        self._say("kill Redis")
        self._redis.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await asyncio.to_thread(self._redis.start)

    async def _kill_node_then_redis(self) -> None:
        """Redis is started again within the time for which a node that says nothing stays on the roster."""
        index = self._chance.choice(self._indexes)
        wait_s = self._chance.uniform(0, 10)
        self._say(f"kill node {index}, and stop Redis after {wait_s:.1f} s")
        self._down.add(index)
        self._nodes[index].kill()
        await asyncio.sleep(wait_s)
        await asyncio.to_thread(self._redis.stop)
        await asyncio.to_thread(self._redis.start)
        await asyncio.sleep(6)  # whether the others agree is known then
        await self._start_again(index)

    async def _restart_everything(self) -> None:
        """All nodes are stopped in order, then Redis, and all are started again."""
        self._say("restart everything")
        await self._leave_all()
        await asyncio.to_thread(self._redis.stop)
        await asyncio.to_thread(self._redis.start)
        await self._come_all()

    async def _crash_everything(self) -> None:
        """A moment after everybody is back from a restart. The disk has no more than the last snapshot."""
        await self._restart_everything()
        await asyncio.sleep(self._chance.uniform(0.5, 3))
        self._say("everything is killed")
        seconds, micros = self._redis.command("TIME")
        self._down.update(self._indexes)
        for node in self._nodes:
            node.kill()
        self._redis.kill()
        await self._failed_over(0, int(seconds) * 1000 + int(micros) // 1000 + 1000)
        await asyncio.to_thread(self._redis.start)
        await self._come_all()

    async def _leave_all(self) -> None:
        self._down.update(self._indexes)
        for node in self._nodes:
            await asyncio.sleep(self._chance.uniform(0, 0.3))
            node.signal(signal.SIGTERM)
        for node in self._nodes:
            await node.ended(self._drain_s + 15)

    async def _come_all(self) -> None:
        await asyncio.gather(*(self._start_again(index) for index in self._indexes))

    async def _pause_redis(self) -> None:
        pause_s = self._chance.uniform(0.2, 4)
        self._say(f"pause Redis for {pause_s:.1f} s")
        self._redis.pause()
        await asyncio.sleep(pause_s)
        self._redis.resume()

    async def _kill_pubsub(self) -> None:
        self._say("kill pub/sub connections")
        self._redis.command("CLIENT", "KILL", "TYPE", "pubsub")

    async def _kill_commands(self) -> None:
        self._say("kill command connections")
        self._redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def _forget_scripts(self) -> None:
        self._say("forget scripts")
        self._redis.command("SCRIPT", "FLUSH")

    async def _fill_redis(self) -> None:
        self._say("Redis is full")
        self._redis.command("CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(self._chance.uniform(0.2, 2))
        self._redis.command("CONFIG", "SET", "maxmemory", "0")

    async def _fill_disk(self) -> None:
        self._say("Redis' disk is full")
        filler = self._redis.folder / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(DISK_BYTES))
        await asyncio.sleep(self._chance.uniform(1, 4))
        for _ in range(self._chance.randint(0, 2)):
            if self._redis.ended:
                self._say("Redis has ended, and is started in vain")
                self._redis.launch()
                await eventually(lambda: self._redis.ended, 20)
        filler.unlink(missing_ok=True)
        if self._redis.ended:
            self._say("Redis has ended, and is started again")
            await asyncio.to_thread(self._redis.start)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """A small one for Redis. Only root may make it."""
        if "disk" not in self._with:
            yield
            return
        assert isinstance(self._store, RedisServer)
        folder = self._store.folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()

    async def _move_clock(self) -> None:
        name, off_s = self._chance.choice([*self._clocks, "redis"]), self._chance.randint(-FAR_S, FAR_S)
        self._say(f"the clock of {name} is {off_s:+d} s off")
        self._clocks[name].set(off_s)
        await asyncio.sleep(self._chance.uniform(1.5, 4))
        if self._chance.random() < 0.5:
            self._say(f"the clock of {name} is right")
            self._clocks[name].set(0)

    async def _fail_over(self) -> None:
        """With a Sentinel dead or hung, from the first time on. What the replicas had not got yet is lost."""
        assert isinstance(self._store, Trio)
        old, sentinel = self._redis, self._store.sentinels[0]
        hangs, lags = self._chance.random() < 0.5, self._chance.random() < 0.5
        self._say(f"Redis dies{', ahead of its replicas' * lags}; a Sentinel {'hangs' if hangs else 'is dead'}")
        if not self._lacks_sentinel:
            self._lacks_sentinel = True
            (sentinel.pause if hangs else sentinel.kill)()
        begun_s = self.now_s()
        if lags:
            for replica in self._store.servers:
                if replica is not old:
                    replica.command("REPLICAOF", "127.0.0.1", "1")  # where nobody is
            await asyncio.sleep(0.5)
        old.kill()
        await eventually(lambda: self._redis is not old and self._role(self._redis) == "master", 40)
        self._say("another Redis is the master")
        seconds, micros = self._redis.command("TIME")
        await self._failed_over(begun_s, int(seconds) * 1000 + int(micros) // 1000)
        await asyncio.to_thread(old.start)
        await eventually(lambda: self._role(old) == "slave", 40)

    @staticmethod
    def _role(server: RedisServer) -> str:
        """Empty while it cuts its connections, as one does that becomes a replica."""
        try:
            return str(server.client.info("replication")["role"])
        except redis.ConnectionError:
            return ""

    async def _failed_over(self, begun_s: float, redis_ms: int) -> None:
        """What was accepted in this time may be lost."""
        raise NotImplementedError
