"""The composition root: builds the parts, starts, drains and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import platform
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tornado.web import Application

import tidegate
from tidegate import gauges, log
from tidegate.auth.api_keys import ApiKeys, trunk_key
from tidegate.auth.callback import Callback
from tidegate.auth.hosts import Hosts, Networks
from tidegate.auth.origins import Origins
from tidegate.auth.tokens import Verifier
from tidegate.brokers import registry
from tidegate.calls import Caller
from tidegate.config.endpoints import UNIX
from tidegate.config.settings import HEADER_BUFFERS, Config
from tidegate.core.errors import CloseCode, Refused, Unauthorized
from tidegate.core.hub import Hub
from tidegate.core.model import NodeInfo, is_id
from tidegate.core.pace import Rates
from tidegate.core.session import Rights, Session
from tidegate.gateway.commands import Commands
from tidegate.gateway.drain import Drain
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.moves import Moves
from tidegate.gateway.new_streams import NewStreams
from tidegate.gateway.policies import Policies
from tidegate.gateway.readiness import Readiness
from tidegate.gateway.rechecks import LOOK_S, Rechecks
from tidegate.gateway.recovery import Recovery
from tidegate.gateway.replay import Replay
from tidegate.gateway.tracing import Tracing, make_trace
from tidegate.http import operations
from tidegate.http.handler import ApiContext, InternalApplication
from tidegate.metrics import Metrics, Tally
from tidegate.process import open_files
from tidegate.process.addresses import bind, names
from tidegate.process.listener import Listener
from tidegate.process.socket_file import SocketFile
from tidegate.tasks import Tasks
from tidegate.tornado_seam import HttpServer
from tidegate.trunk.server import TrunkServer
from tidegate.turn import Shares, WriteBatch
from tidegate.websocket import handshake, unsent
from tidegate.websocket.admission import Admission
from tidegate.websocket.application import HandshakeContext, PublicApplication
from tidegate.websocket.fan_out import fan_out
from tidegate.websocket.heartbeat import Heartbeat
from tidegate.websocket.lag import Lag
from tidegate.websocket.peer import CLOSE_S, PeerContext
from tidegate.websocket.standing import Standing
from tidegate.websocket.unsent import Unsent

PROBE_S = 2.0
HOLD_MORE_S = 5.0  # than an edge holds a connection: until then it may be on its way
OUR_HEADER_BYTES = 8 * 1024  # what an edge adds to a client's headers, and more
PUBLIC_BODY_BYTES = 64 * 1024  # of a request that is no handshake, and is read only to be refused
INTERNAL_IDLE_S = 75.0  # pooled clients would run into connections that are just being closed
BACKLOG = 4096
API_BACKLOG = 128
SPARES = 16  # of the internal port: a health check must be answered when there are no open files left


class App:
    """One node. ``await start()``, then ``public_port`` and ``internal_port`` are where it listens (a configured 0
    means any free one); ``await drain(seconds)`` sends clients away, ``await stop()`` ends it. Raises Unusable for a
    configuration that cannot be used and OSError for an address that cannot be bound."""

    def __init__(self, config: Config, node: str | None = None) -> None:
        self.config = config
        self.node = node or node_id(config.server.node)
        self.metrics = Metrics()
        self._standing = Standing()
        self.tasks = Tasks()
        limits = config.limits
        self._callback = make_callback(config, self.metrics)
        asking = config.auth.callback_connections if self._callback else 0
        self.files = open_files.share(
            open_files.limit(), connections=limits.connections, calls=config.calls.connections + asking
        )
        self.started_ms = int(time.time() * 1000)
        self.verifier = make_verifier(config)
        self.api_keys = ApiKeys(config.internal.api_keys)
        self.broker = registry.make(config, self.node, self.metrics)
        self._caller = Caller(config.calls, observe=self._observe_call)
        self._requests = itertools.count(1)
        self._shares = Shares(_call_soon)
        self.trace = make_trace(config.trace)
        self.metrics.ages.turns = self.trace.fanned
        self.write_batch = WriteBatch(_call_soon, self._shares, written=self.metrics.ages.written)
        self.replay = Replay(self.broker, self.tasks, self.metrics, self.trace)
        self.hub = Hub(self.replay, self.write_batch.before_writing, fan_out, self.trace.fanned)
        self._tracing = Tracing(self.broker, self.trace, self.hub, self.node)
        recovery = Recovery(
            self.hub,
            self.replay,
            self.broker,
            self.tasks,
            self.metrics,
            policy=lambda group: config.policy(group).slow,
        )
        commands = Commands(
            config,
            self.broker,
            recovery,
            self.tasks,
            self.metrics,
            NewStreams(config, self.hub, self.broker, self.metrics),
            call=self._call,
            verify=self._verify if self.verifier else None,
        )
        self.readiness = Readiness(self.broker, time.monotonic, self.trace)
        self.gateway = Gateway(
            config,
            self.broker,
            commands,
            recovery,
            self.replay,
            self.hub,
            self.tasks,
            self.metrics,
            self._shares,
            self.readiness,
            node=self.node,
            wall=time.time,
            capacity=self.files.connections,
            on_delivered=self.metrics.ages.note,
        )
        self._moves = Moves(
            self.gateway,
            self.broker,
            self.hub,
            recovery,
            commands,
            self.tasks,
            hold_s=config.edge.hold_s + HOLD_MORE_S,
            wall=time.time,
        )
        self._rechecks = (
            None
            if self._callback is None
            else Rechecks(
                self._callback, self.gateway, self.hub, self.tasks, leeway_s=config.auth.leeway_s, wall=time.time
            )
        )
        self.policies = Policies(config, self.gateway, self.hub, commands)
        self._lag = Lag(limits.lag_s, self.metrics.loop_lag.observe)
        self.admission = Admission(limits, self._lag, self.gateway.check_room, asks=self._callback is not None)
        self._servers: list[HttpServer] = []
        self._socket_files: list[SocketFile] = []
        self._trunk_sockets: list[socket.socket] = []
        self._trunks = TrunkServer(self._moves, self.broker, self.tasks, self.node, trunk_key(config.trunk))
        self.unsent = Unsent(
            limits.all_outbox_bytes,
            self.write_batch.blocked,
            self._trunks.all_links,
            self.metrics,
            on_short=self._note_short,
        )
        gauges.register(
            self.metrics,
            config,
            node=self.node,
            started_ms=self.started_ms,
            capacity=self.files.connections,
            hub=self.hub,
            gateway=self.gateway,
            readiness=self.readiness,
            admission=self.admission,
            unsent=self.unsent,
            trunks=self._trunks,
            calls=self._caller.slots,
            callback=self._callback,
            rechecks=self._rechecks,
        )

    # Life

    async def start(self) -> None:
        config, loop = self.config, asyncio.get_running_loop()
        if self.verifier is not None:
            self.verifier.tell_left_out()
        await self._caller.start()
        if self._callback is not None:
            await self._callback.start()
        try:
            await self.broker.start(self.gateway, self.info())
            await self.readiness.probe()
            self._bind()
        except BaseException:
            await self._stop_asking()
            await self.broker.stop()
            raise
        settings: dict[str, Any] = {
            "websocket_ping_interval": config.heartbeat.websocket_ping_interval,
            "websocket_ping_timeout": config.heartbeat.websocket_ping_timeout,
        }
        self.heartbeat = Heartbeat(
            loop,
            self.write_batch,
            interval_s=settings["websocket_ping_interval"],
            timeout_s=settings["websocket_ping_timeout"],
            write_timeout_s=config.heartbeat.write_timeout_s,
            on_stalled=lambda wire: wire.abort(CloseCode.SLOW_CONSUMER),
            on_stood_still=self._standing.stood_still,
        )
        self.heartbeat.start()
        self._lag.start(loop)
        self.admission.start(loop)
        handshakes = self._handshake_context()
        public = PublicApplication(handshakes, **settings)
        api = self._api_context()
        internal = InternalApplication(api, operations.routes())
        header_s = config.server.header_timeout_s
        public_listener = Listener(
            "server.port",
            has_room=lambda: self._public() < self.files.public and self._has_files(),
            unsent_bytes=config.server.unsent_bytes,
        )
        internal_listener = Listener("internal.port", has_room=self._has_files, spares=SPARES)
        refused, refusals = self.metrics.handshakes, self.metrics.refusals
        self._public_server = self._serve(
            public, public_listener, self._public_sockets, refused, 4096, idle_s=header_s, body_s=header_s
        )
        self._internal_server = self._serve(
            internal, internal_listener, self._internal_sockets, refusals, 16 * 1024, idle_s=INTERNAL_IDLE_S
        )
        if self._trunk_sockets:
            trunk_listener = Listener("trunk", has_room=self._has_files, spares=1)
            self._trunks.start(handshakes, trunk_listener, self._trunk_sockets)
        self.tasks.spawn(self._every(PROBE_S, self._look_after), "probe")
        self.tasks.spawn(self._every(unsent.LOOK_S, self._look_at_unsent), "unsent")
        if self._rechecks is not None:
            self.tasks.spawn(self._every(LOOK_S, self._rechecks.look), "rechecks")
        self.broker.report(self.info())  # it is ready now
        if self.broker.sweep_s is not None:
            self.tasks.spawn(self._every(self.broker.sweep_s, self._sweep), "sweep")

    def _bind(self) -> None:
        server, internal, trunk = self.config.server, self.config.internal, self.config.trunk
        with contextlib.ExitStack() as undo:
            self._public_sockets = bind("server.port", server.address, server.port, BACKLOG)
            for sock in self._public_sockets:
                undo.callback(sock.close)
            self.public_port: int = self._public_sockets[0].getsockname()[1]
            if server.socket is not None:
                self._public_sockets.append(self._bind_file("server.socket", server.socket, BACKLOG, undo))
            if trunk.socket is not None:
                self._trunk_sockets.append(self._bind_file("trunk.socket", trunk.socket, API_BACKLOG, undo))
            if trunk.port:
                self._trunk_sockets += bind("trunk.port", trunk.address, trunk.port, API_BACKLOG)
            for sock in self._trunk_sockets:
                undo.callback(sock.close)
            self._internal_sockets = bind("internal.port", internal.address, internal.port, API_BACKLOG)
            self.internal_port: int = self._internal_sockets[0].getsockname()[1]
            undo.pop_all()

    def _bind_file(self, key: str, path: str, backlog: int, undo: contextlib.ExitStack) -> socket.socket:
        server = self.config.server
        file = SocketFile(key, path, mode=server.socket_mode, group=server.socket_group, backlog=backlog)
        undo.callback(file.sock.close)
        undo.callback(file.remove)
        self._socket_files.append(file)
        return file.sock

    def _serve(
        self,
        application: Application,
        listener: Listener,
        sockets: list[socket.socket],
        refusals: Tally,
        chunk: int,
        *,
        idle_s: float,
        body_s: float | None = None,  # the API sets it, request by request
    ) -> HttpServer:
        server = HttpServer(
            application,
            listener=listener,
            on_refusal=partial(_count_refusal, refusals),
            chunk_size=chunk,  # Tornado clears a buffer of this size for each read
            idle_connection_timeout=idle_s,
            body_timeout=body_s,
            # An edge refuses what is larger (large_client_header_buffers); what it lets pass must not be refused here.
            max_header_size=HEADER_BUFFERS * self.config.edge.header_bytes + OUR_HEADER_BYTES,
            max_body_size=PUBLIC_BODY_BYTES,  # the API sets its own, request by request
        )
        self._servers.append(server)
        server.add_sockets(sockets)
        return server

    def _public(self) -> int:
        """Open sockets of the public port."""
        return self._public_server.connections + self.metrics.open_connections - self._trunks.sessions

    def _has_files(self) -> bool:
        """Whether the process may open one more socket."""
        return self._public() + self._internal_server.connections + self._trunks.links < self.files.sockets

    def _handshake_context(self) -> HandshakeContext:
        config = self.config
        hosts = names(config.internal.hosts, config.internal.address)
        console = [f"http://{host}:{self.internal_port}" for host in hosts]
        rules = handshake.Rules(
            path=config.server.path,
            hosts=Hosts(names(config.server.hosts, config.server.address), "server.hosts"),
            origins=Origins(config.origins, console),
            verifier=self.verifier,
            callback=self._callback,
            edges=Networks(config.server.edges),
            check_room=self.gateway.check_room,
        )
        return HandshakeContext(
            rules=rules,
            gateway=self.gateway,
            metrics=self.metrics,
            batch=self.write_batch,
            peers=PeerContext(
                gateway=self.gateway,
                heartbeat=self.heartbeat,
                loop=asyncio.get_running_loop(),
                metrics=self.metrics,
                json_depth=config.limits.json_depth,
                not_understood_per_minute=config.limits.not_understood_per_minute,
                expiring_s=config.auth.expiring_s,
                leeway_s=config.auth.leeway_s,
            ),
            standing=self._standing,
            admission=self.admission,
            message_bytes=config.limits.message_bytes,
            outbox_bytes=config.limits.outbox_bytes,
            rates=Rates(config.limits.messages_per_second, config.limits.bytes_per_second),
            numbers=itertools.count(1),
            trunk=self._trunk_address,
        )

    def _trunk_address(self, over_unix: bool) -> str | None:
        """Where an edge that has asked this node finds its trunk: a Unix socket, or a port of the same host. Who asks
        over TCP may be on another machine, where the socket is not."""
        trunk = self.config.trunk
        if trunk.socket is not None and (over_unix or not trunk.port):
            return UNIX + trunk.socket
        return str(trunk.port) if trunk.port else None

    def _api_context(self) -> ApiContext:
        config = self.config
        return ApiContext(
            gateway=self.gateway,
            config=config,
            keys=self.api_keys,
            hosts=Hosts(names(config.internal.hosts, config.internal.address), "internal.hosts"),
            metrics=self.metrics,
            readiness=self.readiness,
            tracing=self._tracing,
            public_port=self.public_port,
        )

    async def drain(self, seconds: float) -> None:
        """No new connections; the present ones are sent away, spread over ``seconds`` so that they do not all come
        back at once (gateway/drain.py). Returns when all are gone."""
        self.gateway.drain()
        self.admission.end()
        self.broker.report(self.info())  # other nodes that stop shall not take this one for a ready one
        sessions = list(self.hub.sessions())
        log.info("drain.started", connections=len(sessions), duration_s=seconds)
        await Drain(self.gateway, self.broker, self._ping).run(sessions, seconds)
        deadline_s = time.monotonic() + CLOSE_S
        while self.metrics.open_connections and time.monotonic() < deadline_s:  # noqa: ASYNC110 - once in its life
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Ends at once what is left."""
        self.gateway.drain()
        self.admission.end()
        for file in self._socket_files:
            file.remove()
        for server in self._servers:
            server.stop()
        self._trunks.stop_listening()
        for session in list(self.hub.sessions()):
            self.gateway.close(session, CloseCode.RESTART)
        await asyncio.sleep(0)  # the turn in which close frames are written
        self.heartbeat.stop()
        self._lag.stop()
        for server in self._servers:
            await server.close_all_connections()
        await self._trunks.stop()
        await self.tasks.cancel_all()
        await self._stop_asking()
        await self.broker.stop()

    async def _stop_asking(self) -> None:
        """The application hears no more from this node."""
        await self._caller.stop()
        if self._callback is not None:
            await self._callback.stop()

    # What others are given

    def _ping(self, session: Session) -> None:
        """A control ping besides those that are due."""
        self.gateway.ping_queued(session, self.heartbeat.mark)
        session.wire.put(self.heartbeat.ping_frame)

    async def _call(self, session: Session, method: str, data: bytes, traceparent: str | None) -> tuple[int, bytes]:
        answer = await self._caller.call(
            client=session.client,
            connection=session.connection,
            request_id=f"{session.connection}-{next(self._requests)}",
            method=method,
            data=data,
            traceparent=traceparent,
        )
        return answer.status, answer.data

    def _verify(self, token: str, session: Session) -> Rights:
        assert self.verifier is not None
        grant = self.verifier.verify(token, time.time())
        if grant.client != session.client:
            raise Unauthorized("the token is another client's")
        return grant

    def _observe_call(self, outcome: str, seconds: float) -> None:
        self.metrics.call_seconds[outcome,].observe(seconds)

    # What happens again and again

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await work()

    async def _look_after(self) -> None:
        await self.readiness.probe()
        self.broker.report(self.info())

    async def _look_at_unsent(self) -> None:
        self.unsent.look()

    def _note_short(self, short: bool) -> None:
        self.gateway.short = short

    async def _sweep(self) -> None:
        self.broker.sweep()

    def info(self) -> NodeInfo:
        return NodeInfo(
            node=self.node,
            version=tidegate.__version__,
            started_ms=self.started_ms,
            connections=self.metrics.open_connections,
            draining=self.gateway.draining,
            lag_ms=self.readiness.lag_ms,
            trunks=tuple(self._trunks.workers),
            trunk_sessions=self._trunks.sessions,
            health=gauges.health(self.config, self.files, self.broker),
        )


def _call_soon(work: Callable[[], None]) -> None:
    """The loop's, which is not there yet when a node is built."""
    asyncio.get_running_loop().call_soon(work)


def _count_refusal(tally: Tally, error: Refused) -> None:
    tally[error.code,] += 1


def make_verifier(config: Config) -> Verifier | None:
    """None where there are no tokens. Raises Unusable."""
    return Verifier(config.auth) if config.auth.mode == "jwt" else None


def make_callback(config: Config, metrics: Metrics) -> Callback | None:
    """None where the application is not asked who a client is."""
    if config.auth.mode != "callback":
        return None

    def observe(why: str, outcome: str, seconds: float) -> None:
        metrics.auth_seconds[why, outcome].observe(seconds)

    return Callback(config.auth, observe)


def node_id(prefix: str) -> str:
    """``prefix`` or the host's name, and a random part, so that no two runs share an id."""
    name = prefix or platform.node().partition(".")[0][:24]
    return f"{name}.{secrets.token_hex(2)}" if is_id(name) else f"n{secrets.token_hex(3)}"
