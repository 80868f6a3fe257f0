"""Three real nodes on one real Redis, behind a real nginx where an edge is named, and what can happen to all of them.

An edge of this module is a variant as tests/edges has them: "plain", "njs", "openresty", "openresty-trunk"."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import aiohttp

from tests.brokers.server import RedisServer
from tests.edges.edge import TRUNK, Edge, environ
from tests.support import Process, eventually, free_ports, lasting_port

NODES = 3
RETENTION = 200
TROUBLE = (OSError, aiohttp.ClientError, TimeoutError)
DRAIN_S = 2
HOLD_S = 20
FAULTY = r"\[(alert|emerg)\]|runtime error|aborted|session failed|does not follow|is followed where|is no frame"

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
EDGES = ("plain", "njs", "openresty", "openresty-trunk")


class Cluster:
    """Names of faults are those of its methods, without the underscore. ``log`` is what was done, and when."""

    def __init__(
        self,
        folder: Path,
        chance: random.Random,
        *,
        plant: str,
        edge: str | None,
        nodes: int,
        drain_s: float,
        quiet_s: float,
    ) -> None:
        self.log: list[str] = []
        self.done: dict[str, int] = {}
        self._folder = folder
        self._chance = chance
        self._plant = plant
        self._drain_s = drain_s
        self._quiet_s = quiet_s
        self._redis = RedisServer(appendonly="yes", appendfsync="always")
        self._internal = free_ports(nodes)
        self._public = [lasting_port() for _ in self._internal]
        self._nodes: list[Process] = []
        self._old: list[Process] = []
        self._down: set[int] = set()
        self._edge: Edge | None = None
        self._sockets: Path | None = None
        if edge is not None:
            self._edge = self._make_edge(*edge.split("-"))

    @property
    def _indexes(self) -> range:
        return range(len(self._public))

    def now_s(self) -> float:
        """Seconds since it began."""
        raise NotImplementedError

    def _say(self, text: str) -> None:
        self.log.append(f"{self.now_s():7.3f} {text}")

    # Nodes and edge

    def _make_edge(self, variant: str, hop: str = "") -> Edge:
        # Workers of nginx run as another user where tests run as root, and need to get in here.
        self._sockets = Path(tempfile.mkdtemp(prefix="tidegate-faults-edge-"))
        self._sockets.chmod(0o755)
        (self._sockets / "edge").mkdir()
        settings = {
            "EDGE__UPSTREAMS": [f"127.0.0.1:{port}" for port in self._public],
            "EDGE__TRUNK": hop == TRUNK,
            "EDGE__SHUTDOWN_TIMEOUT_S": 4,
            "EDGE__WORKER_CONNECTIONS": 8192,
            "EDGE__NOFILE": 16384,
            "LIMITS__CONNECTIONS": 8000,
            "EDGE__HOLD_S": HOLD_S,  # Redis may be away for so long, and no node takes anybody then
        }
        return Edge(variant, self._sockets / "edge", settings)

    async def _start_cluster(self) -> None:
        self._nodes = [self._start_node(index) for index in self._indexes]
        for index in self._indexes:
            await self._ready(index)
        if self._edge is not None:
            self._edge.start()
            await self._edge.ready()

    def _stop_cluster(self) -> None:
        for node in self._nodes:
            node.kill()
        if self._edge is not None and hasattr(self._edge, "process"):
            self._edge.process.kill()
            (self._folder / "edge.log").write_text(self._edge.process.stderr)
        if self._sockets is not None:
            shutil.rmtree(self._sockets)

    @property
    def has_trunk(self) -> bool:
        return self._edge is not None and self._edge.config.edge.trunk

    def _door(self, index: int) -> int:
        """The port by which a client comes to a node, or to any of them."""
        return self._public[index] if self._edge is None else self._edge.port

    def _complaints(self) -> list[str]:
        """What nodes and edge have logged that says that a promise was broken."""
        nodes = [line for node in self._nodes + self._old for line in node.lines() if '"level":"error"' in line]
        edge = [] if self._edge is None else self._edge.process.stderr.splitlines()
        return nodes + [line for line in edge if re.search(FAULTY, line)]

    def _start_node(self, index: int) -> Process:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        settings = {
            "BROKER__KIND": "redis",
            "BROKER__URL": self._redis.url,
            "HISTORY__MESSAGES": RETENTION,
            "SERVER__PORT": self._public[index],
            "SERVER__NODE": f"n{index}",
            "SERVER__DRAIN_S": self._drain_s,
            "INTERNAL__PORT": self._internal[index],
        }
        if self.has_trunk:
            settings |= {
                "EDGE__WORKER_CONNECTIONS": 8192,
                "EDGE__NOFILE": 16384,
                "LIMITS__CONNECTIONS": 8000,
                "EDGE__HOLD_S": HOLD_S,
                "TRUNK__SOCKET": f"{self._sockets}/trunk-{index}.sock",
                "SERVER__SOCKET_MODE": "0666",
            }
        command = [sys.executable, "-m", "tests.faults.plants", self._plant, "serve"]
        return Process(*command, folder=folder, env=environ(settings))

    async def _ready(self, index: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def ready() -> bool:
                assert self._nodes[index].exit_code is None, str(self._nodes[index])
                with contextlib.suppress(*TROUBLE):
                    async with session.get(f"http://127.0.0.1:{self._internal[index]}/readyz") as answer:
                        return answer.status == 200
                return False

            await eventually(ready, self._quiet_s)

    # Faults of nodes and edge

    async def _kill_node(self) -> None:
        index = self._chance.choice(self._indexes)
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

    async def _drain(self, index: int) -> None:
        self._say(f"drain node {index}")
        self._down.add(index)
        self._nodes[index].signal(signal.SIGTERM)
        await self._nodes[index].ended(self._drain_s + 15)
        await self._start_again(index)

    async def _start_again(self, index: int) -> None:
        self._old.append(self._nodes[index])
        self._nodes[index] = self._start_node(index)
        with contextlib.suppress(AssertionError):
            await self._ready(index)
        self._down.discard(index)

    async def _pause_node(self) -> None:
        await self._stop_for(self._chance.uniform(0.2, 4))

    async def _hang_node(self) -> None:
        """For longer than an edge waits for a sign of it on a trunk."""
        await self._stop_for(self._chance.uniform(6, 8))

    async def _stop_for(self, pause_s: float) -> None:
        index = self._chance.choice(self._indexes)
        self._say(f"pause node {index} for {pause_s:.1f} s")
        self._nodes[index].signal(signal.SIGSTOP)
        await asyncio.sleep(pause_s)
        self._nodes[index].signal(signal.SIGCONT)

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
