"""Three real nodes on one real Redis, behind a real nginx where an edge is named, and what can happen to all of them.

An edge of this module is a variant as tests/edges has them: "plain", "njs", "openresty", "openresty-trunk"."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

import aiohttp

from tests.brokers.proxy import Proxy
from tests.brokers.server import RedisServer, Trio
from tests.edges.edge import TRUNK, Edge, Settings, environ
from tests.faults.clock import Clock
from tests.faults.plants import plant_in_edge
from tests.support import Process, eventually, free_port, free_ports
from tests.upgrades.release import Release

NODES = 3
RETENTION = 200
TROUBLE = (OSError, aiohttp.ClientError, TimeoutError)
DRAIN_S = 2
HOLD_S = 20
FAULTY = r"\[(alert|emerg)\]|runtime error|aborted|session failed|does not follow|is followed where|is no frame"

EDGES = ("plain", "njs", "openresty", "openresty-trunk")


class PlantedEdge(Edge):
    def __init__(self, plant: str, variant: str, folder: Path, settings: Settings) -> None:
        super().__init__(variant, folder, settings)
        self._plant = plant

    def render(self) -> None:
        super().render()
        plant_in_edge(self._plant, self.folder)


class Cluster:
    """What there is, and how it is started again. ``log`` is what was done to it, and when; ``fsync``: Redis' own word
    for when it writes to its disk. What costs something is there only if ``with_`` names it: "wires" between the edge
    and its nodes, "clocks" that can be set, a "disk" of Redis' own, "sentinels" with two replicas instead of a disk,
    "snapshots" of Redis instead of a log.
    ``before``: the release that its nodes are of at first."""

    def __init__(
        self,
        folder: Path,
        chance: random.Random,
        *,
        plant: str,
        edge: str | None,
        fsync: str,
        with_: frozenset[str],
        nodes: int,
        drain_s: float,
        quiet_s: float,
        before: Release | None = None,
    ) -> None:
        self.log: list[str] = []
        self.done: dict[str, int] = {}
        self._folder = folder
        self._chance = chance
        self._plant = plant
        self._before = before
        self._versions: list[Release | None] = [before] * nodes  # what each node is started as; None: this checkout
        self._drain_s = drain_s
        self._quiet_s = quiet_s
        self._with = with_
        self._clocks = {name: Clock(folder / f"clock-{name}") for name in ("redis", *(f"n{i}" for i in range(nodes)))}
        self._store: RedisServer | Trio
        if "sentinels" in with_:
            self._store = Trio()
        elif "snapshots" in with_:
            self._store = RedisServer(save="3600 1")
        else:
            self._store = RedisServer(appendonly="yes", appendfsync=fsync, environ=self._clock("redis"))
        self._internal = free_ports(nodes)
        self._public = [free_port() for _ in self._internal]
        self._nodes: list[Process] = []
        self._old: list[Process] = []
        self._down: set[int] = set()
        self._wires: dict[int, Proxy] = {}  # of the public ports
        self._trunk_wires: dict[int, Proxy] = {}
        self._edge: Edge | None = None
        self._sockets: Path | None = None
        if edge is not None:
            self._edge = self._make_edge(*edge.split("-"))

    @property
    def _redis(self) -> RedisServer:
        """The master."""
        return self._store.master if isinstance(self._store, Trio) else self._store

    def _clock(self, name: str) -> dict[str, str]:
        return self._clocks[name].environ if "clocks" in self._with else {}

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
        doors = self._public
        if "wires" in self._with:
            doors = [free_port() for _ in self._public]
            self._wires = {i: Proxy(port, listen=doors[i]) for i, port in enumerate(self._public)}
        settings = {
            "EDGE__UPSTREAMS": [f"127.0.0.1:{port}" for port in doors],
            "EDGE__TRUNK": hop == TRUNK,
            "EDGE__SHUTDOWN_TIMEOUT_S": 4,
            "EDGE__WORKER_CONNECTIONS": 8192,
            "EDGE__NOFILE": 16384,
            "LIMITS__CONNECTIONS": 8000,
            "EDGE__HOLD_S": HOLD_S,  # Redis may be away for so long, and no node takes anybody then
        }
        return PlantedEdge(self._plant, variant, self._sockets / "edge", settings)

    async def _start_cluster(self) -> None:
        self._nodes = [self._start_node(index) for index in self._indexes]
        for index in self._indexes:
            await self._ready(index)
        for wire in self._wires.values():
            await wire.__aenter__()
        if self._edge is not None:
            self._edge.start()
            await self._edge.ready()

    async def _stop_cluster(self) -> None:
        for wire in (*self._wires.values(), *self._trunk_wires.values()):
            with contextlib.suppress(AttributeError):  # it was not there yet
                await wire.__aexit__()
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
            "BROKER__URL": self._store.url,
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
        env = environ(settings) | self._clock(f"n{index}")
        release = self._versions[index]
        if release is not None:
            return Process(*release.command("serve"), folder=folder, env=release.environ(env), cwd=release.folder)
        return Process(*command, folder=folder, env=env)

    async def _ready(self, index: int) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:

            async def ready() -> bool:
                assert self._nodes[index].exit_code is None, str(self._nodes[index])
                with contextlib.suppress(*TROUBLE):
                    async with session.get(f"http://127.0.0.1:{self._internal[index]}/readyz") as answer:
                        return answer.status == 200
                return False

            await eventually(ready, self._quiet_s)
        if "wires" in self._with and self.has_trunk and index not in self._trunk_wires:
            await self._put_wire(index)

    async def _put_wire(self, index: int) -> None:
        """Into the trunk: the node's socket gets another name, and the wire has the one that the edge is told."""
        told = f"{self._sockets}/trunk-{index}.sock"
        os.rename(told, f"{told}.node")
        self._trunk_wires[index] = wire = Proxy(f"{told}.node", listen=told)
        await wire.__aenter__()
        os.chmod(told, 0o666)

    async def _take_wire(self, index: int) -> None:
        """Out again, or a node that starts would find another process there."""
        if (wire := self._trunk_wires.pop(index, None)) is not None:
            await wire.__aexit__()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._sockets}/trunk-{index}.sock")

    async def _start_again(self, index: int) -> None:
        self._old.append(self._nodes[index])
        await self._take_wire(index)
        self._nodes[index] = self._start_node(index)
        with contextlib.suppress(AssertionError):
            await self._ready(index)
        self._down.discard(index)
