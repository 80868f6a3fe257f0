"""Real edges in front of real nodes: nginx of Debian's packages, service processes and the example REST application,
all on free ports."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.http.node import JSON, Answer, Link, head
from tests.peer import Peer
from tests.service_fixture import PATIENT_S
from tests.support import ROOT, Process, eventually, free_port, free_ports
from tidegate.config import load as configuration
from tidegate.nginx import render

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
DIRECT = "direct"
TRUNK = "trunk"

Settings = Mapping[str, Any]  # names as in the environment without TIDEGATE_; what is no text goes in as JSON

# What tests call for all the time must not be refused by what one address may do.
_GENEROUS: Settings = {
    "EDGE__CONNECTIONS_PER_ADDRESS": 10_000,
    "EDGE__HANDSHAKES_PER_SECOND": 10_000,
    "EDGE__HANDSHAKES_BURST": 10_000,
    "EDGE__WORKER_CONNECTIONS": 2048,
    "EDGE__NOFILE": 4096,
    "LIMITS__CONNECTIONS": 1024,
}


def environ(settings: Settings) -> dict[str, str]:
    return {
        f"TIDEGATE_{name}": value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()
    }


@functools.cache
def certificates() -> str:
    """A folder with a self-signed certificate; stays as long as the machine's temporary files do."""
    folder = Path(tempfile.gettempdir()) / f"tidegate-test-tls-{os.getuid()}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(prefix="tidegate-test-tls-"))
        subprocess.run([ROOT / "tools/certificate.sh", made], check=True, capture_output=True)
        try:
            made.rename(folder)  # at once, for other tests run beside this one
        except OSError:
            shutil.rmtree(made)
    return str(folder)


class Node:
    """One service process; ``start`` again after it has ended takes the same ports. ``upstream`` is where an edge
    reaches it: a Unix socket if ``over_unix``, else the public port."""

    def __init__(self, folder: Path, settings: Settings, *, over_unix: bool = False) -> None:
        self.folder = folder
        self.name: str = settings["SERVER__NODE"]
        self.public = free_port()
        self.internal = free_port()
        self.upstream = f"127.0.0.1:{self.public}"
        self.settings = {
            "LIMITS__LAG_S": PATIENT_S,
            **settings,
            "SERVER__PORT": self.public,
            "INTERNAL__PORT": self.internal,
        }
        if over_unix:
            self.socket = f"{folder}/node.sock"
            self.upstream = f"unix:{self.socket}"
            # Workers of nginx run as another user where tests run as root.
            self.settings |= {"SERVER__SOCKET": self.socket, "SERVER__SOCKET_MODE": "0666"}
        if settings.get("EDGE__TRUNK") and not settings.get("TRUNK__PORT"):
            self.settings |= {"TRUNK__SOCKET": f"{folder}/trunk.sock", "SERVER__SOCKET_MODE": "0666"}
        self.program: Sequence[str] = ("tidegate",)  # a module that takes the same arguments after its own
        self._starts = 0
        self.process: Process

    def start(self) -> None:
        self._starts += 1
        folder = self.folder / str(self._starts)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", *self.program, "serve"]
        self.process = Process(*command, folder=folder, env=environ(self.settings))

    async def ready(self) -> None:
        """Returns when it listens, and hears signals."""
        await self.process.line("service.started")

    async def call(self, method: str, target: str, body: Any = None) -> Answer:
        raw = b"" if body is None else json.dumps(body, ensure_ascii=False).encode()
        return await ask(self.internal, method, target, {"Content-Type": JSON}, raw)

    async def push(self, address: str, data: Any) -> Any:
        """The position. ``address``: clients/alice, groups/news, all."""
        answer = await self.call("POST", f"/api/{address}/push", {"data": data})
        assert answer.status == 202, answer
        return answer.json

    async def connections(self, client: str) -> list[dict[str, Any]]:
        answer = await self.call("GET", f"/api/clients/{client}")
        connections: list[dict[str, Any]] = answer.json["connections"]
        return connections


class Edge:
    """nginx with one of the project's configurations. What it complains about must have been ``provoked``."""

    def __init__(self, variant: str, folder: Path, settings: Settings) -> None:
        self.variant = variant
        self.folder = folder
        self.port, self.tls_port, self.internal, calls_port = free_ports(4)
        self.access_log = folder / "access.log"
        self.environ = environ(
            {
                **_GENEROUS,
                "EDGE__PORT": self.port,
                "EDGE__TLS_PORT": self.tls_port,
                "EDGE__INTERNAL": f"127.0.0.1:{self.internal}",
                "EDGE__CALLS_PORT": calls_port,
                "EDGE__RUN_DIR": f"{folder}/run",
                "EDGE__TLS_DIR": certificates(),
                "EDGE__ACCESS_LOG": str(self.access_log),
                "EDGE__WORKERS": 1,
                "EDGE__TRUNK": False,
                **settings,
            }
        )
        self.config = configuration.load(None, self.environ)
        self.file = folder / "conf.d" / f"{variant}.conf"
        self._expected: list[str] = []
        self._seen = 0

    def start(self) -> None:
        (self.folder / "run").mkdir()
        self.render()
        self.process = Process(
            NGINX, "-e", "stderr", "-c", self.file, "-g", "daemon off;", folder=self.folder / "run", cwd=self.folder
        )

    def render(self) -> None:
        render.write(self.config, self.folder)

    async def ready(self) -> None:
        await self.process.port(self.port)

    def workers(self) -> list[int]:
        """The process ids of those that are there, the ones that are shutting down too."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    async def reload(self) -> None:
        """Returns when a new worker has taken over; old ones may still be there."""
        before = set(self.workers())
        self.process.signal(signal.SIGHUP)
        await eventually(lambda: set(self.workers()) - before)
        await eventually(lambda: "gracefully shutting down" in self.process.stderr)

    def log(self) -> list[dict[str, Any]]:
        """The access log's lines so far."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    async def logged(self, **fields: Any) -> dict[str, Any]:
        """The first line of the access log with these fields."""

        def find() -> dict[str, Any] | None:
            return next((line for line in self.log() if fields.items() <= line.items()), None)

        found: dict[str, Any] = await eventually(find)
        return found

    def provoked(self, pattern: str) -> None:
        """From now on lines in which this is found may come."""
        self._expected.append(pattern)

    def complaints(self) -> list[str]:
        """What nginx complained about, unprovoked, since this was asked last."""
        lines = self.process.stderr.splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        bad = [line for line in new if re.search(r"\[(error|crit|alert|emerg)\]", line)]
        return [line for line in bad if not any(re.search(pattern, line) for pattern in self._expected)]


class Stand:
    """``nodes`` service processes, a REST application if asked for, and an edge in front of them; direct: none,
    clients speak to the first node. The edge reaches one node over a Unix socket and several over TCP, as they are
    shipped; a variant with ``-tcp`` or ``-unix`` behind it is reached over that; ``-trunk``: its clients share links.

    ``async with stand("plain", AUTH__MODE="jwt") as s`` for one test; a class's own is started once, by ``start``.
    """

    def __init__(
        self,
        variant: str,
        *,
        nodes: int = 1,
        rest: bool = False,
        edge: Settings | None = None,
        first: Settings | None = None,
        behind: Stand | None = None,
        others: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """``settings`` are the nodes' and the edge's, ``edge`` is the edge's alone, ``first`` the first node's.
        ``behind``: a stand whose nodes this one takes, which saves starting some; ``others``: further upstreams."""
        self.variant, _, hop = variant.partition("-")
        if hop == TRUNK:
            settings = {"EDGE__HOLD_S": 0.5, **settings, "EDGE__TRUNK": True}
        ways = {"": nodes == 1, TRUNK: nodes == 1, "unix": True, "tcp": False}
        over_unix = self.variant != DIRECT and ways[hop]
        # Workers of nginx run as another user where tests run as root, and need to get in here.
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-edge-"))
        self.folder.chmod(0o755)
        self.rest_port = free_port()
        self._has_rest = rest
        common = {"CALLS__URL": f"http://127.0.0.1:{self.rest_port}", "SERVER__DRAIN_S": 1, **settings}
        self._own = [
            Node(
                self.folder / f"node-{n}",
                {"SERVER__NODE": f"n{n}", **common, **((n == 1 and first) or {})},
                over_unix=over_unix,
            )
            for n in range(1, (0 if behind else nodes) + 1)
        ]
        self.nodes: list[Node] = behind.nodes if behind else self._own
        upstreams = [*(node.upstream for node in self.nodes), *others]
        before = {"EDGE__UPSTREAMS": upstreams, "EDGE__SHUTDOWN_TIMEOUT_S": 2, **common, **(edge or {})}
        self._edge = None if self.variant == DIRECT else Edge(self.variant, self.folder / "edge", before)
        self.rest: Process

    @property
    def edge(self) -> Edge:
        assert self._edge is not None
        return self._edge

    @property
    def has_edge(self) -> bool:
        return self._edge is not None

    @property
    def node(self) -> Node:
        return self.nodes[0]

    @property
    def port(self) -> int:
        return self.node.public if self._edge is None else self._edge.port

    def peer(self, client: str, **options: Any) -> Peer:
        return Peer(self.port, client=client, **options)

    def start_rest(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rest-", dir=self.folder))
        program = ("-m", "examples.rest_app", "--port", str(self.rest_port))
        self.rest = Process(sys.executable, *program, folder=folder)

    def start(self) -> None:
        """Returns when all listen."""
        asyncio.run(self.begin())

    async def begin(self) -> None:
        if self._has_rest:
            self.start_rest()
        for node in self._own:
            node.start()
        if self._edge is not None:
            self._edge.folder.mkdir()
            self._edge.start()
            await self._edge.ready()
        if self._has_rest:
            await self.rest.port(self.rest_port)
        for node in self._own:
            await node.ready()

    def stop(self) -> None:
        for part in (self._edge, self, *self._own):
            for name in ("process", "rest"):
                if hasattr(part, name):
                    getattr(part, name).kill()
        shutil.rmtree(self.folder)

    def complaints(self) -> list[str]:
        return [] if self._edge is None else self._edge.complaints()

    def provoked(self, pattern: str) -> None:
        if self._edge is not None:
            self._edge.provoked(pattern)


@contextlib.asynccontextmanager
async def stand(variant: str, **options: Any) -> AsyncIterator[Stand]:
    """One test's own."""
    it = Stand(variant, **options)
    try:
        await it.begin()
        yield it
        assert not (found := it.complaints()), found
    finally:
        it.stop()


async def ask(
    port: int, method: str, target: str, headers: Mapping[str, str | None] | None = None, body: bytes = b""
) -> Answer:
    """One HTTP request on a connection of its own; a header of None is left out."""
    fields: dict[str, str | None] = {"Host": f"127.0.0.1:{port}", "Connection": "close"}
    if body:
        fields["Content-Length"] = str(len(body))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await Link(reader, writer).ask(head(method, target, fields | dict(headers or {})) + body)
    finally:
        writer.close()


def resident_kib(pid: int) -> int:
    """The memory of a process that no other shares, in KiB, swapped out or not."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^(?:Private_Clean|Private_Dirty|Swap): +(\d+) kB", text, re.MULTILINE))
