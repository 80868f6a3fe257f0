"""The use cases of connections and of the application. Only this module, ``recovery`` and ``commands`` know both hub
and broker.

A connection's life: ``admit`` (before the handshake is answered, so that a refusal is an HTTP status) -> ``welcome`` ->
``submit`` for each command -> ``close`` (we close) -> ``remove`` (it is gone). Removing is idempotent.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tidegate import log
from tidegate.brokers.contract import Broker, CloseOrder, MembershipOrder, Order, ServerCondition
from tidegate.config.load import Config
from tidegate.core import protocol
from tidegate.core.errors import (
    BrokerDown,
    CloseCode,
    Draining,
    Full,
    NotAllowed,
    Refused,
    TooManyConnections,
)
from tidegate.core.hub import Hub
from tidegate.core.model import (
    ConnectionInfo,
    Gap,
    History,
    Message,
    NodeInfo,
    Position,
    Publication,
    RejectedPush,
)
from tidegate.core.protocol import Command, NotUnderstood
from tidegate.core.session import Rights, Session, Transport
from tidegate.gateway.changes import Change
from tidegate.gateway.commands import Commands
from tidegate.gateway.readiness import Readiness
from tidegate.gateway.records import OwnedRecords
from tidegate.gateway.recovery import Recovery
from tidegate.gateway.replay import Replay
from tidegate.gateway.requests import HandshakeRequest, Requests
from tidegate.metrics import Metrics
from tidegate.tasks import Tasks
from tidegate.turn import Floods, Shares

Work: TypeAlias = Command | NotUnderstood


class Gateway:
    """``capacity``: how many connections this node may have. ``on_delivered`` is told of each message that is heard."""

    def __init__(
        self,
        config: Config,
        broker: Broker,
        commands: Commands,
        recovery: Recovery,
        replay: Replay,
        hub: Hub,
        tasks: Tasks,
        metrics: Metrics,
        shares: Shares,
        readiness: Readiness,
        *,
        node: str,
        wall: Callable[[], float],
        capacity: int,
        on_delivered: Callable[[Message], None] | None = None,
    ) -> None:
        self._config = config
        self._told_limits = {
            "message_bytes": config.limits.message_bytes,
            "data_bytes": config.limits.data_bytes,
            "groups": config.limits.groups_per_connection,
        }
        self._broker = broker
        self._commands = commands
        self._recovery = recovery
        self._replay = replay
        self.trace = replay.trace
        self._records = OwnedRecords(broker, tasks)
        self._requests = Requests(config, broker, commands, recovery, self._records)
        self._hub = hub
        self._tasks = tasks
        self._metrics = metrics
        self._shares = shares
        self._readiness = readiness
        self._floods = Floods()
        self._inboxes: dict[Session, deque[Work]] = {}  # what waits for its turn; of who has any, or did until now
        self._early: dict[Session, list[Change]] = {}  # what has happened to it before it is welcomed
        self._wall = wall
        self.node = node
        self.draining = False
        self._capacity = capacity
        self.short = False  # of memory for what is unsent
        self.paused = 0  # how often a connection had so many commands in flight that reading stopped
        self._on_delivered = on_delivered

    # The broker says

    def on_message(self, message: Message) -> None:
        self._hub.on_message(message)
        if self._on_delivered is not None:
            self._on_delivered(message)

    def on_gap(self, gap: Gap, position: Position) -> None:
        self._metrics.broker_gaps += 1
        self.trace.gap(None, gap)
        self._hub.on_gap(gap, position)

    def on_moved(self, stream: str, position: Position) -> None:
        self._hub.on_moved(stream, position)

    def on_order(self, order: Order) -> None:
        self._hub.deliver()  # what was said before it
        match order:
            case CloseOrder():
                # 0.2.0 knows no terms, and names a connection that has moved as its record does.
                connection = order.connection and order.connection.partition("#")[0]
                for session in self._hub.of_client(order.client):
                    if connection in (None, session.connection):
                        self._obey(session, CloseCode(order.code))
            case MembershipOrder():
                for session in self._hub.of_client(order.client):
                    self.change(session, order)

    def _obey(self, session: Session, code: CloseCode) -> None:
        """An order to close it. Who was told to move is taken over by its own next connection, and may read on."""
        if session.moving and code is CloseCode.TAKEN_OVER:
            self._records.give_up(session)
        else:
            self.close(session, code)

    # A connection's life

    def drain(self) -> None:
        """This node is stopping: from now on it refuses handshakes."""
        self.draining = True

    async def admit(self, request: HandshakeRequest, rights: Rights, connection: str, wire: Transport) -> Session:
        """A session with all its streams attached, to be welcomed or dropped; one that was ended meanwhile has its
        close frame queued, and hears that instead of a welcome. Raises Refused."""
        session = Session(request.client, connection, rights, wire, int(self._wall() * 1000))
        self.check_room()
        if len(self._hub.clients.get(request.client, ())) >= self._config.limits.connections_per_client:
            raise TooManyConnections(f"a client may have {self._config.limits.connections_per_client} connections")
        self._hub.add(session)
        try:
            await self._requests.attach(session, request)
            if not session.ended:
                await self._broker.presence_join(self.info(session))
        except BaseException as exc:
            if session.ended and isinstance(exc, BrokerDown):
                return session
            self.remove(session, confirmed=False)
            raise
        return session

    @property
    def takes_handshakes(self) -> bool:
        """False where this node refuses any client's, for a while: it is stopping, or full."""
        return not (self.draining or self.short) and self._hub.connections < self._capacity

    def check_room(self, waiting: int = 0) -> None:
        """Raises Refused where this node takes nobody, behind so many who wait already."""
        if self.draining:
            raise Draining("this node is stopping")
        if self._hub.connections + waiting >= self._capacity:
            raise Full(f"this node has {self._capacity} connections")
        if self.short:
            raise Full("too much waits to be sent to the connections of this node")
        if self._readiness.lost:
            raise BrokerDown("this node does not reach its broker")  # at once: it would say so after its timeout

    def welcome(self, session: Session) -> None:
        """The handshake was answered: says where each stream starts, then what was missed."""
        session.welcomed = True
        streams = list(session.streams)
        heartbeat = self._config.heartbeat
        session.send(
            protocol.encode_welcome(
                session.client,
                session.connection,
                self.node,
                heartbeat.websocket_ping_interval,
                heartbeat.websocket_ping_timeout,
                self._told_limits,
                {stream: session.join_fields(stream) for stream in streams},
            )
        )
        self.trace.connected(session)
        for stream in session.refused:
            self._metrics.refusals[NotAllowed.code,] += 1
            session.send(protocol.encode_left(stream, "not_allowed"))
            self.trace.left(session, stream, "not_allowed")
        for stream in streams:
            self._recovery.start_delivery(session, stream)
        self._records.save(session)
        self.begin_work(session)

    def begin_work(self, session: Session) -> None:
        """It is welcomed: what has happened to it before takes effect, and what it sent takes its turn."""
        for change in self._early.pop(session, ()):
            self.change(session, change)
        if session in self._inboxes:
            self._work(session)

    def change(self, session: Session, change: Change) -> None:
        """It takes effect at once; of one that is not welcomed yet, then."""
        if session.ended:
            return
        if not session.welcomed:
            self._early.setdefault(session, []).append(change)
        elif self._commands.changes.take(session, change):
            self._tasks.spawn(self._groups_changed(session), "change")
        elif isinstance(change, MembershipOrder) and change.member:
            self._tasks.spawn(self._make_member(session, change.group), "change")

    async def _make_member(self, session: Session, group: str) -> None:
        try:
            if await self._commands.changes.join(session, group):
                await self._groups_changed(session)
        except BrokerDown:
            self.close(session, CloseCode.TRY_LATER)  # the order could not be obeyed; it will be when it is back
        except Exception:
            self.close(session, CloseCode.INTERNAL_ERROR)
            raise  # for the log

    async def _groups_changed(self, session: Session) -> None:
        if not session.ended:
            with contextlib.suppress(BrokerDown):  # presence is renewed with the lease
                await self._broker.presence_join(self.info(session))
        self._records.save(session)

    def submit(self, session: Session, work: Command) -> None:
        """Commands of one connection take their turns; calls run beside them."""
        if session.ended:
            return
        self._commands.count(work)
        if isinstance(work, protocol.Ping) and session not in self._inboxes:
            self._commands.ping(session, work)
            session.wire.done()
            return
        if isinstance(work, protocol.Call):
            self._commands.call(session, work)
            return
        self._queue(session, work)

    def refuse(self, session: Session, text: NotUnderstood) -> None:
        """What is no command takes its turn as well: answers come in the order of what they answer."""
        if not session.ended:
            self._queue(session, text)

    def waiting(self, session: Session) -> int | None:
        """How much waits for its turn behind what is being carried out; None where nothing is."""
        inbox = self._inboxes.get(session)
        return None if inbox is None else len(inbox)

    def _queue(self, session: Session, work: Work) -> None:
        inbox = self._inboxes.get(session)
        if inbox is None:
            inbox = self._inboxes[session] = deque()
            if session.welcomed:  # else ``welcome`` begins
                self._work(session)
        inbox.append(work)
        if len(inbox) >= self._config.limits.commands_in_flight:
            self.paused += 1
            self._note_flood(session, "commands")
            session.wire.pause_reading()

    def _work(self, session: Session) -> None:
        self._tasks.spawn(self._run_inbox(session, self._inboxes[session]), "commands")

    async def _run_inbox(self, session: Session, inbox: deque[Work]) -> None:
        """One after the other, as far as there is room for the answer and the share of a turn goes. With a broker that
        answers at once nothing else would ever interrupt this."""
        limits, wire = self._config.limits, session.wire
        until_s = self._shares.first()
        try:
            while inbox and not session.ended:
                if wire.size + limits.answer_bytes > wire.limit and not wire.has_room:
                    await self._replay.room(session)
                    until_s = await self._shares.next()
                    continue
                work = inbox.popleft()
                changed = False
                if isinstance(work, NotUnderstood):
                    self._commands.refuse(session, work.id, work.error)
                    if work.one_too_many:
                        self.close(session, CloseCode.NOT_UNDERSTOOD)
                else:
                    changed = await self._commands.carry_out(session, work)
                session.wire.done()
                if changed:
                    await self._groups_changed(session)
                else:
                    self._records.save(session)
                if len(inbox) == limits.commands_in_flight // 2:
                    wire.resume_reading()
                if inbox and self._shares.clock() >= until_s:
                    self.share_used(session, "commands")
                    until_s = await self._shares.next()
        except Exception:
            self.close(session, CloseCode.INTERNAL_ERROR)
            raise  # for the log
        finally:
            self._inboxes.pop(session, None)

    def share_used(self, session: Session, what: str) -> None:
        """A connection has more ``what`` (frames, commands) than its share of a turn."""
        self._metrics.shares_used[what,] += 1
        self._note_flood(session, what)

    def _note_flood(self, session: Session, what: str) -> None:
        if self._floods.used(session.connection, self._shares.clock()):
            log.warning("connection.flooding", conn=session.connection, client=session.client, what=what)

    def move(self, session: Session, within_s: float) -> None:
        """Says that it will be closed within so many seconds, and is welcome on another node."""
        session.moving = True
        self._metrics.moving += 1
        session.send(protocol.encode_moving(within_s))

    def close(self, session: Session, code: CloseCode, reason: str = "") -> None:
        """We close: nothing of any stream is queued from here on."""
        if session.ended:
            return
        if session.confirmations is not None and code is not CloseCode.SLOW_CONSUMER:
            session.confirmations.closing = session.positions()  # a slow consumer never gets what waits
        self.unsubscribe_all(session, code)
        session.wire.close(code, reason or code.reason)

    def remove(self, session: Session, *, confirmed: bool) -> None:
        """The connection is gone. ``confirmed``: the peer answered our close frame, so all that was queued before it
        arrived."""
        self.unsubscribe_all(session)
        if session.dropped:
            return
        session.dropped = True
        confirmations = session.confirmations
        if confirmations is not None and session.welcomed:
            if confirmed and confirmations.closing is not None:
                confirmations.confirm(confirmations.closing)
            self._records.save(session)
        self._tasks.spawn(self._presence_leave(session), "depart")

    def session(self, client: str, connection: str) -> Session | None:
        """A connection of this node."""
        return self._hub.clients.get(client, {}).get(connection)

    def lose(self, session: Session) -> ConnectionInfo:
        """Its client is on its way to another node, or back to this one: here nothing is left of it but what presence
        shows."""
        info = self.info(session)
        self.unsubscribe_all(session)
        self.trace.moved(session)
        if not session.dropped:
            session.dropped = True
            if session.welcomed:
                self._records.save(session)
        return info

    def unsubscribe_all(self, session: Session, code: int | None = None) -> None:
        """Nothing of any stream is queued from here on, whoever closes. Idempotent. ``code``: where we do."""
        if session.ended:
            return
        self.trace.ended(session, code)
        session.ended = True
        confirmations, session.confirmations = session.confirmations, None  # leaving streams must not forget positions
        self._recovery.detach_all(session)
        session.confirmations = confirmations
        self._inboxes.pop(session, None)
        self._early.pop(session, None)
        self._hub.remove(session)
        session.wire.tell_room()

    async def _presence_leave(self, session: Session) -> None:
        with contextlib.suppress(BrokerDown):  # its lease ends
            await self._broker.presence_leave(self.info(session))

    def info(self, session: Session) -> ConnectionInfo:
        return ConnectionInfo(session.connection, self.node, session.client, session.since_ms, tuple(session.groups))

    # Heartbeat and slowness

    def ping_queued(self, session: Session, mark: bytes) -> None:
        """A control ping with this payload was queued just now."""
        self._records.ping_queued(session, mark)

    def pong(self, session: Session, mark: bytes) -> None:
        self._records.pong(session, mark)

    def slow(self, session: Session) -> bool:
        """The outbox is above its limit. False: close it."""
        return self._recovery.slow(session)

    # The application

    async def push(self, publications: Sequence[Publication]) -> list[Position | Refused]:
        """Journals each, in order. Never raises."""
        results = await self._broker.publish(publications)
        for publication, result in zip(publications, results, strict=True):
            self._metrics.pushed(publication.stream, result.code if isinstance(result, Refused) else "accepted")
        return results

    async def connections(self, client: str) -> list[ConnectionInfo]:
        return await self._broker.connections(client)

    async def memberships(self, client: str) -> frozenset[str]:
        return await self._broker.memberships(client)

    async def disconnect(self, client: str, connection: str | None) -> list[str]:
        """Orders every node to close this client's connections (or the one); the connections that presence knew."""
        known = [info.connection for info in await self._broker.connections(client)]
        if connection is not None:
            known = [name for name in known if name == connection]
        await self._broker.order(CloseOrder(client, connection, CloseCode.DISCONNECTED))
        return known

    async def add_member(self, group: str, client: str) -> bool:
        """True if it is new. Raises TooManyGroups."""
        return await self._broker.add_member(group, client, most=self._config.limits.groups_per_connection)

    async def remove_member(self, group: str, client: str) -> bool:
        return await self._broker.remove_member(group, client)

    async def presence(self, group: str) -> tuple[list[str], int]:
        """The clients in the group, each once, and how many connections they have."""
        present = await self._broker.present(group)
        return sorted({client for client, _ in present}), len(present)

    async def history(self, stream: str, since: Position | None, limit: int) -> History:
        return await self._broker.history(stream, since, messages=limit, size=self._config.limits.answer_bytes)

    async def rejected(self, limit: int) -> list[RejectedPush]:
        return await self._broker.rejected(limit)

    async def nodes(self) -> list[NodeInfo]:
        return await self._broker.nodes()

    async def condition(self) -> ServerCondition | None:
        """Of the server behind the broker."""
        return await self._broker.condition()
