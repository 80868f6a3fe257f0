"""Faults for real: what makes each alert fire. Each is a function of ``Gateway`` whose end mends it again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.brokers.server import RedisServer
from tests.edges.edge import Edge, Node, Stand
from tests.http.node import JSON, Link, head
from tests.monitoring.watch import Prometheus
from tests.peer import Peer, Refusal
from tests.support import ROOT, Process, eventually, free_port

CONNECTIONS = 150
UNSENT_BYTES = 1310720
WAITING = 90_000  # of 100,000
BATCH = 300
PUSHERS = 16
PREFERRED = -10  # nice
TOKEN_WAIT_S = 0.1
GROUPS = {"big": {"slow": "close"}, "short": {"messages": 1}}


@contextlib.asynccontextmanager
async def again(step: Callable[[], Awaitable[object]], every_s: float = 0.1) -> AsyncIterator[None]:
    """Until the block ends."""
    is_on = True

    async def loop() -> None:
        while is_on:  # Python 3.11's wait_for may swallow that it is cancelled
            await step()
            await asyncio.sleep(every_s)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        try:
            yield
        finally:
            is_on = False
            task.cancel()


class Gateway:
    """Two nodes on a Redis of their own, three edges, an application, and who watches them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer()
        self.stand = Stand(
            "openresty-trunk",
            nodes=2,
            rest=True,
            BROKER__KIND="redis",
            BROKER__URL=self.redis.url,
            LIMITS__CONNECTIONS=CONNECTIONS,
            LIMITS__HANDSHAKES_PER_SECOND=60,
            LIMITS__GROUPS_PER_CONNECTION=2,
            LIMITS__OUTBOX_BYTES=327680,
            LIMITS__ALL_OUTBOX_BYTES=UNSENT_BYTES,
            LIMITS__INGRESS_ENTRIES=100_000,
            SERVER__UNSENT_BYTES=16384,
            GROUPS=GROUPS,
        )
        self.others = [Stand(variant, behind=self.stand) for variant in ("plain", "njs")]
        self.watch = Prometheus(folder / "prometheus", self.jobs())

    def start(self) -> None:
        """Returns when all is there, and watched."""
        self.redis.start()
        for stand in (self.stand, *self.others):
            stand.start()
        asyncio.run(self.watch.start())

    @property
    def nodes(self) -> list[Node]:
        return self.stand.nodes

    def jobs(self, *more_edges: Edge, nodes: tuple[int, ...] = ()) -> dict[str, list[str]]:
        edges = [stand.edge for stand in (self.stand, *self.others)]
        return {
            "tidegate": [f"127.0.0.1:{port}" for port in (*(node.internal for node in self.nodes), *nodes)],
            "tidegate-edge": [f"127.0.0.1:{edge.internal}" for edge in (*edges, *more_edges)],
        }

    def close(self) -> None:
        self.watch.stop()
        for stand in (*self.others, self.stand):
            stand.stop()
        self.redis.close()

    def peer(self, client: str, **options: Any) -> Peer:
        return Peer(self.nodes[0].public, client=client, **options)

    @contextlib.asynccontextmanager
    async def peers(self, count: int, port: int | None = None, **options: Any) -> AsyncIterator[list[Peer]]:
        """Connected, in the node's own time."""
        peers = [Peer(port or self.nodes[0].public, client=f"p{number}", **options) for number in range(count)]
        try:
            for peer in peers:
                while True:
                    try:
                        await peer.connect()
                        break
                    except Refusal:
                        await asyncio.sleep(TOKEN_WAIT_S)
            yield peers
        finally:
            for peer in peers:
                if hasattr(peer, "writer"):
                    await peer.cut()

    async def knock(self, port: int, times: int, **options: Any) -> None:
        """Handshakes one after the other, whatever is answered."""
        for number in range(times):
            peer = Peer(port, client=f"k{number}", **options)
            try:
                with contextlib.suppress(Refusal, OSError, asyncio.IncompleteReadError, TimeoutError):
                    await peer.connect()
                    peer.close()
                    await peer.ended()
            finally:
                if hasattr(peer, "writer"):
                    await peer.cut()

    @contextlib.asynccontextmanager
    async def edge(self, variant: str = "openresty", **settings: Any) -> AsyncIterator[Edge]:
        """One more, watched."""
        folder = _folder("edge")
        upstreams = [node.upstream for node in self.nodes]
        edge = Edge(variant, folder, {"EDGE__UPSTREAMS": upstreams, "EDGE__SHUTDOWN_TIMEOUT_S": 2, **settings})
        edge.start()
        try:
            await edge.ready()
            self.watch.aim(self.jobs(edge))
            await self.watch.sees(edge.internal)
            yield edge
        finally:
            self.watch.aim(self.jobs())
            edge.process.kill()
            shutil.rmtree(folder)

    @contextlib.asynccontextmanager
    async def node(self, plant: str = "none", **settings: Any) -> AsyncIterator[Node]:
        """One more, with its broker in memory, watched; with one of ``tests.faults.plants``."""
        folder = _folder("node")
        node = Node(folder, {"SERVER__NODE": "n9", "SERVER__DRAIN_S": 1, **settings})
        node.program = ("tests.faults.plants", plant)
        node.start()
        try:
            await node.ready()
            self.watch.aim(self.jobs(nodes=(node.internal,)))
            await self.watch.sees(node.internal)
            yield node
        finally:
            self.watch.aim(self.jobs())
            node.process.kill()
            shutil.rmtree(folder)

    @contextlib.contextmanager
    def stopped(self, node: Node) -> Iterator[None]:
        node.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            node.process.signal(signal.SIGCONT)

    async def restart(self, node: Node) -> None:
        node.process.kill()
        node.start()
        await node.ready()

    # Whether they are there

    @contextlib.asynccontextmanager
    async def node_down(self) -> AsyncIterator[None]:
        self.nodes[1].process.kill()
        try:
            yield
        finally:
            self.nodes[1].start()
            await self.nodes[1].ready()

    @contextlib.asynccontextmanager
    async def edge_down(self) -> AsyncIterator[None]:
        async with self.edge("plain") as edge:
            edge.process.kill()
            yield

    @contextlib.asynccontextmanager
    async def not_watched(self) -> AsyncIterator[None]:
        self.watch.aim({"tidegate-edge": []})
        try:
            yield
        finally:
            self.watch.aim(self.jobs())

    @contextlib.asynccontextmanager
    async def redis_refuses(self) -> AsyncIterator[None]:
        """It is over maxmemory: nodes have it, and no canary passes."""
        self.redis.command("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            self.redis.command("CONFIG", "SET", "maxmemory", "0")

    @contextlib.asynccontextmanager
    async def restarts(self) -> AsyncIterator[None]:
        for _ in range(4):
            await self.restart(self.nodes[1])
            await asyncio.sleep(1.5)  # for Prometheus to see it
        yield

    # Redis

    @contextlib.asynccontextmanager
    async def redis_away(self) -> AsyncIterator[None]:
        self.redis.pause()
        try:
            yield
        finally:
            self.redis.resume()

    @contextlib.asynccontextmanager
    async def redis_flaps(self) -> AsyncIterator[None]:
        async def cut() -> None:
            self.redis.command("CLIENT", "KILL", "TYPE", "normal")

        async with again(cut, 3):
            yield

    @contextlib.asynccontextmanager
    async def redis_full(self) -> AsyncIterator[None]:
        used = self.redis.client.info("memory")["used_memory"]
        self.redis.command("CONFIG", "SET", "maxmemory", int(used * 1.05))
        try:
            yield
        finally:
            self.redis.command("CONFIG", "SET", "maxmemory", "0")

    @contextlib.asynccontextmanager
    async def redis_forgets(self) -> AsyncIterator[None]:
        async with self.peers(2):
            await self.nodes[0].push("all", 1)
            await asyncio.to_thread(self.redis.restart)
            yield

    @contextlib.asynccontextmanager
    async def redis_slow(self) -> AsyncIterator[None]:
        async def hold() -> None:
            self.redis.pause()
            try:
                await asyncio.sleep(0.3)
            finally:
                self.redis.resume()

        async with again(hold, 0.05):
            yield

    # Messages

    @contextlib.asynccontextmanager
    async def pushes_too_large(self) -> AsyncIterator[None]:
        async def push() -> None:
            await self.nodes[0].call("POST", "/api/all/push", {"data": "x" * 70_000})

        async with again(push):
            yield

    @contextlib.asynccontextmanager
    async def no_json(self) -> AsyncIterator[None]:
        async def push() -> None:
            self.redis.command("XADD", "tidegate:push", "*", "all", "1", "data", "{")

        async with again(push):
            yield

    @contextlib.asynccontextmanager
    async def many_pushes(self) -> AsyncIterator[None]:
        """They have waited for a while when they begin to be taken."""

        def push() -> None:
            for _ in range(WAITING // 1000):
                with self.redis.client.pipeline(transaction=False) as pipeline:
                    for number in range(1000):
                        pipeline.xadd("tidegate:push", {"group": f"g{number % 50}", "data": "1"})
                    pipeline.execute()

        async with self.nobody_reads():
            await asyncio.to_thread(push)
            await asyncio.sleep(10)
        try:
            yield
        finally:
            self.redis.command("XTRIM", "tidegate:push", "MAXLEN", "0")

    @contextlib.asynccontextmanager
    async def nobody_reads(self) -> AsyncIterator[None]:
        """A node that lives has the lease, by a token that it does not know."""
        holder = await eventually(lambda: self.redis.command("GET", "tidegate:push:lease"), 10)
        node = holder.partition(":")[0]

        async def take() -> None:
            self.redis.command("SET", "tidegate:push:lease", f"{node}:0", "EX", "60")

        try:
            async with again(take):
                yield
        finally:
            self.redis.command("DEL", "tidegate:push:lease")

    @contextlib.asynccontextmanager
    async def node_stutters(self) -> AsyncIterator[None]:
        """What is pushed while it stands still is written late."""

        async def stand_still() -> None:
            with self.stopped(self.nodes[0]):
                for _ in range(5):
                    await self.nodes[1].push("all", 1)
                await asyncio.sleep(2)

        async with self.peers(5), again(stand_still, 0.7):
            yield

    @contextlib.asynccontextmanager
    async def late_cursors(self) -> AsyncIterator[None]:
        position = await self.nodes[0].push("groups/short", 1)
        for _ in range(5):
            await self.nodes[0].push("groups/short", 1)
        text = json.dumps({"group:short": [position["epoch"], 0]}).encode()
        cursor = base64.urlsafe_b64encode(text).decode().rstrip("=")

        async def come_back() -> None:
            await self.knock(self.nodes[0].public, 5, cursor=cursor)

        async with again(come_back):
            yield

    @contextlib.asynccontextmanager
    async def hub_loses(self) -> AsyncIterator[None]:
        async with self.node("lose_in_hub") as node, self.peers(2, node.public):

            async def push() -> None:
                await node.push("all", 1)

            async with again(push):
                yield

    @contextlib.asynccontextmanager
    async def api_stumbles(self) -> AsyncIterator[None]:
        async with self.node("stumble") as node:

            async def push() -> None:
                answer = await node.call("POST", "/api/all/push", {"data": 1})
                assert answer.code == "internal_error"

            async with again(push):
                yield

    @contextlib.asynccontextmanager
    async def commands_stumble(self) -> AsyncIterator[None]:
        async with self.node("stumble") as node:

            async def ask() -> None:
                async with self.peers(1, node.public, groups="news") as (peer,):
                    peer.send(type="history", id=1, group="news")
                    await peer.ended()
                    assert peer.close_code == 1011

            async with again(ask):
                yield

    # Clients

    @contextlib.asynccontextmanager
    async def storm(self) -> AsyncIterator[None]:
        async def come() -> None:
            await self.knock(self.nodes[0].public, 5)

        async with contextlib.AsyncExitStack() as stack:
            for _ in range(100):
                await stack.enter_async_context(again(come, 0))
            yield

    @contextlib.asynccontextmanager
    async def clients_in_a_loop(self) -> AsyncIterator[None]:
        async def come() -> None:
            await self.knock(self.nodes[0].public, 5)

        async with again(come, 0), again(come, 0), again(come, 0):
            yield

    @contextlib.asynccontextmanager
    async def clients_gone(self) -> AsyncIterator[None]:
        async with self.peers(120):
            await asyncio.sleep(2)  # for Prometheus to see them
        yield

    @contextlib.asynccontextmanager
    async def bad_origin(self) -> AsyncIterator[None]:
        async def come() -> None:
            await self.knock(self.nodes[0].public, 3, headers={"Origin": "https://elsewhere.example"})

        async with again(come):
            yield

    @contextlib.asynccontextmanager
    async def no_logins(self) -> AsyncIterator[None]:
        url = f"http://127.0.0.1:{free_port()}/"
        async with self.node(AUTH__MODE="callback", AUTH__CALLBACK_URL=url) as node:

            async def come() -> None:
                await self.knock(node.public, 3)

            async with again(come):
                yield

    @contextlib.asynccontextmanager
    async def cuts(self) -> AsyncIterator[None]:
        async def connect_and_cut() -> None:
            async with self.peers(20):
                pass

        async with again(connect_and_cut):
            yield

    @contextlib.asynccontextmanager
    async def slow_readers(self) -> AsyncIterator[None]:
        async with self.peers(30, rcvbuf=4096, groups="big") as peers:
            for peer in peers:
                peer.reading.clear()

            async def push() -> None:
                await self.nodes[0].push("groups/big", "x" * 60_000)

            async with again(push):
                yield

    @contextlib.asynccontextmanager
    async def no_answers(self) -> AsyncIterator[None]:
        self.stand.rest.kill()
        try:
            async with self.peers(1) as (peer,):

                async def call() -> None:
                    peer.send(type="call", id=1, method="echo", data=1)

                async with again(call):
                    yield
        finally:
            self.stand.start_rest()
            await self.stand.rest.port(self.stand.rest_port)

    # Limits

    @contextlib.asynccontextmanager
    async def many_connections(self) -> AsyncIterator[None]:
        async with self.peers(CONNECTIONS - 10):
            yield

    @contextlib.asynccontextmanager
    async def too_many_connections(self) -> AsyncIterator[None]:
        async def come() -> None:
            await self.knock(self.nodes[0].public, 2)

        async with self.peers(CONNECTIONS), again(come):
            yield

    @contextlib.asynccontextmanager
    async def small_edge(self) -> AsyncIterator[None]:
        async with self.edge("plain", EDGE__WORKER_CONNECTIONS=128) as edge:
            async with self.peers(56, edge.port):
                yield

    @contextlib.asynccontextmanager
    async def few_files(self) -> AsyncIterator[None]:
        pid = self.nodes[0].process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        open_now = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 1, most))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    @contextlib.asynccontextmanager
    async def much_unsent(self) -> AsyncIterator[None]:
        """Five of them, each with somewhat less than what would close it."""
        async with self.peers(5, rcvbuf=4096) as peers:
            for peer in peers:
                peer.reading.clear()

            async def push() -> None:
                if (await self.watch.value("max(tidegate_unsent_bytes)") or 0) < 0.68 * UNSENT_BYTES:
                    for peer in peers:
                        await self.nodes[0].push(f"clients/{peer.query.partition('=')[2]}", "x" * 10_000)

            async with again(push, 0.3):
                yield

    @contextlib.asynccontextmanager
    async def too_many_groups(self) -> AsyncIterator[None]:
        async with self.peers(1) as (peer,):

            async def join() -> None:
                for number in range(10):
                    peer.send(type="join", id=number, group=f"g{number}")

            async with again(join):
                yield

    # Edges

    @contextlib.asynccontextmanager
    async def knocked(self, knocks: int = 3, **settings: Any) -> AsyncIterator[None]:
        """One edge more, and clients that come to it all the time."""
        async with self.edge(**settings) as edge:

            async def come() -> None:
                await self.knock(edge.port, knocks)

            async with again(come):
                yield

    @contextlib.asynccontextmanager
    async def lost_by_all(self) -> AsyncIterator[None]:
        async with self.node(EDGE__TRUNK=True) as node:
            async with self.edge(EDGE__TRUNK=True, EDGE__HOLD_S=0.5, EDGE__UPSTREAMS=[node.upstream]) as edge:
                async with self.peers(5, edge.port):
                    node.process.kill()
                    yield

    @contextlib.asynccontextmanager
    async def certificate(self, days: int) -> AsyncIterator[None]:
        folder = _folder("tls")
        await asyncio.to_thread(_certify, folder, days)
        async with self.edge(EDGE__TLS_DIR=str(folder)):
            yield
        shutil.rmtree(folder)

    # Capacity

    @contextlib.asynccontextmanager
    async def late_loop(self) -> AsyncIterator[None]:
        async def stand_still() -> None:
            with self.stopped(self.nodes[1]):
                await asyncio.sleep(0.6)

        async with again(stand_still, 0.05):
            yield

    @contextlib.asynccontextmanager
    async def much_pushed(self) -> AsyncIterator[None]:
        """As fast as it is answered. Programs that share the machine would have the core that is to be full."""
        body = json.dumps({"pushes": [{"group": f"g{number}", "data": "x" * 100} for number in range(BATCH)]}).encode()
        async with self.node() as node, contextlib.AsyncExitStack() as stack:
            _prefer(node.process.pid)
            fields = {"Host": node.upstream, "Content-Type": JSON, "Content-Length": str(len(body))}
            request = head("POST", "/api/push", fields) + body
            for _ in range(PUSHERS):  # others wait while one is answered
                reader, writer = await asyncio.open_connection("127.0.0.1", node.internal)
                stack.callback(writer.close)
                link = Link(reader, writer)

                async def push(link: Link = link) -> None:
                    answer = await link.ask(request)
                    assert answer.status == 200, answer

                await stack.enter_async_context(again(push, 0))
            yield

    @contextlib.asynccontextmanager
    async def unread_log(self) -> AsyncIterator[None]:
        port, internal = free_port(), free_port()
        settings = {"SERVER__PORT": port, "INTERNAL__PORT": internal, "LOG__LEVEL": "debug"}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environ |= {f"TIDEGATE_{name}": str(value) for name, value in settings.items()}
        with _unread(environ):
            self.watch.aim(self.jobs(nodes=(internal,)))

            async def come() -> None:
                await self.knock(port, 20)

            try:
                async with contextlib.AsyncExitStack() as stack:
                    for _ in range(8):
                        await stack.enter_async_context(again(come, 0))
                    yield
            finally:
                self.watch.aim(self.jobs())

    # Upgrades

    @contextlib.asynccontextmanager
    async def another_version(self) -> AsyncIterator[None]:
        folder = Path(tempfile.mkdtemp(prefix="tidegate-other-"))
        shutil.copytree(ROOT / "service/tidegate", folder / "tidegate")
        (folder / "tidegate/__init__.py").write_text('__version__ = "99.0.0"\n')
        internal = free_port()
        (folder / "run").mkdir()
        process = Process(
            sys.executable,
            "-m",
            "tidegate",
            "serve",
            folder=folder / "run",
            cwd=folder,
            env={"PYTHONPATH": str(folder), "TIDEGATE_SERVER__PORT": "0", "TIDEGATE_INTERNAL__PORT": str(internal)},
        )
        try:
            await process.line("service.started")
            self.watch.aim(self.jobs(nodes=(internal,)))
            yield
        finally:
            self.watch.aim(self.jobs())
            process.kill()
            shutil.rmtree(folder)

    @contextlib.asynccontextmanager
    async def long_drain(self) -> AsyncIterator[None]:
        async with self.node(SERVER__DRAIN_S=600) as node, self.peers(3, node.public):
            node.process.signal(signal.SIGTERM)
            yield


def _folder(name: str) -> Path:
    """That nginx's workers may enter."""
    folder = Path(tempfile.mkdtemp(prefix=f"tidegate-{name}-"))
    folder.chmod(0o755)
    return folder


def _prefer(pid: int) -> None:
    """It goes before others, as far as this user may say so. Linux may compare sessions first, then those in one."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, PREFERRED)
    with contextlib.suppress(PermissionError, FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(PREFERRED))


def _certify(folder: Path, days: int) -> None:
    key, certificate = folder / "privkey.pem", folder / "fullchain.pem"
    made = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost"]
    args: list[str | Path] = ["openssl", "req", *made, "-days", str(days), "-keyout", key, "-out", certificate]
    subprocess.run(args, check=True, capture_output=True)
    key.chmod(0o644)


@contextlib.contextmanager
def _unread(environ: dict[str, str]) -> Iterator[None]:
    """A node whose log nobody reads."""
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate", "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ
    ) as process:
        try:
            yield
        finally:
            process.kill()


Fault = Callable[[Gateway], contextlib.AbstractAsyncContextManager[None]]

FAULTS: dict[str, Fault] = {
    "TidegateNodeDown": Gateway.node_down,
    "TidegateEdgeDown": Gateway.edge_down,
    "TidegateNotWatched": Gateway.not_watched,
    "TidegateNotReady": Gateway.redis_refuses,
    "TidegateRestarts": Gateway.restarts,
    "TidegateRedisLost": Gateway.redis_away,
    "TidegateRedisFlaps": Gateway.redis_flaps,
    "TidegateRedisFull": Gateway.redis_full,
    "TidegateRedisWentBack": Gateway.redis_forgets,
    "TidegateRedisSlow": Gateway.redis_slow,
    "TidegateMessagesLost": Gateway.hub_loses,
    "TidegateInternalErrors": Gateway.api_stumbles,
    "TidegateRequestsRefused": Gateway.pushes_too_large,
    "TidegatePushesRejected": Gateway.no_json,
    "TidegateBacklog": Gateway.many_pushes,
    "TidegateIngressUnread": Gateway.nobody_reads,
    "TidegateDeliveriesLate": Gateway.node_stutters,
    "TidegateHistoryTooShort": Gateway.late_cursors,
    "TidegateReconnectStorm": Gateway.storm,
    "TidegateReconnectLoop": Gateway.clients_in_a_loop,
    "TidegateConnectionsGone": Gateway.clients_gone,
    "TidegateClientsRefused": Gateway.bad_origin,
    "TidegateLoginsFail": Gateway.no_logins,
    "TidegatePeersSilent": Gateway.cuts,
    "TidegateSlowConsumers": Gateway.slow_readers,
    "TidegateCallsFail": Gateway.no_answers,
    "TidegateConnectionsNearLimit": Gateway.many_connections,
    "TidegateEdgeNearLimit": Gateway.small_edge,
    "TidegateOpenFilesNearLimit": Gateway.few_files,
    "TidegateUnsentNearLimit": Gateway.much_unsent,
    "TidegateIngressNearLimit": Gateway.many_pushes,
    "TidegateFull": Gateway.too_many_connections,
    "TidegateLimitsMet": Gateway.too_many_groups,
    "TidegateEdgeFindsNoNode": lambda gateway: gateway.knocked(EDGE__UPSTREAMS=[f"127.0.0.1:{free_port()}"]),
    "TidegateEdgeLimitsAddresses": lambda gateway: gateway.knocked(
        20, EDGE__HANDSHAKES_PER_SECOND=1, EDGE__HANDSHAKES_BURST=1
    ),
    "TidegateEdgePassesOver": lambda gateway: gateway.knocked(
        EDGE__UPSTREAMS=[gateway.nodes[0].upstream, f"127.0.0.1:{free_port()}"]
    ),
    "TidegateMovesFail": Gateway.lost_by_all,
    "TidegateCertificateEnds": lambda gateway: gateway.certificate(10),
    "TidegateCertificateEndsNow": lambda gateway: gateway.certificate(1),
    "TidegateLoopLags": Gateway.late_loop,
    "TidegateCpuFull": Gateway.much_pushed,
    "TidegateLogDropped": Gateway.unread_log,
    "TidegateVersionsDiffer": Gateway.another_version,
    "TidegateDrainsLong": Gateway.long_drain,
}

# The other half of a rule that has two.
OTHERS: list[tuple[str, Fault]] = [("TidegateInternalErrors", Gateway.commands_stumble)]
