"""A connection that goes from one node to another while its client's socket stays where it is, at the edge.

Theory of operation. The node that loses it (its trunk has ended, or it said MOVE) forgets the session, but presence
goes on to show the connection until ``hold_s`` is over: then it has left, unless another node has it. The node that
takes it up gets from the edge where the client is in each stream, and continues there: no welcome, and nobody hears of
a beginning or an end. What both might still do for the same connection is told apart by its *term*, which is one higher
at each move.

What could have gone wrong meanwhile: a token that has ended (4009), a record that another connection took (4502),
orders that nobody obeyed (read from their journal; where that no longer reaches back, 1012), memberships that changed
(``joined``, ``left``). Source: docs/trunk.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from tidegate.brokers.contract import Broker, CloseOrder, MembershipOrder, Order
from tidegate.core import protocol
from tidegate.core.errors import BrokerDown, CloseCode
from tidegate.core.hub import Hub
from tidegate.core.model import ALL, ConnectionInfo, Cursor, Gap, client_stream, group_of, group_stream
from tidegate.core.session import Confirmations, Rights, Session, Transport
from tidegate.gateway.commands import Commands
from tidegate.gateway.gateway import Gateway
from tidegate.gateway.records import OwnedRecords
from tidegate.gateway.recovery import Recovery
from tidegate.tasks import Tasks


class Resumption(msgspec.Struct):
    """What an edge knows of a connection. ``cursor``: where its client is in each of its streams; ``device``: of its
    record of ``cursor=last``, None without one; ``orders``: how far its last node had obeyed."""

    client: str
    connection: str
    term: int
    cursor: Cursor
    device: str | None
    orders: str


class Resumed(msgspec.Struct):
    """One that was taken up. ``left``: streams that it may no longer have, and why; ``record``: of ``cursor=last``."""

    session: Session
    cursor: Cursor
    left: dict[str, str] = {}
    record: Cursor | None = None


class CannotResume(Exception):
    """The client has to come back by itself, or may not. ``code`` is what it hears."""

    def __init__(self, code: CloseCode) -> None:
        self.code = code
        super().__init__(code.reason)


class Moves:
    def __init__(
        self,
        gateway: Gateway,
        broker: Broker,
        hub: Hub,
        recovery: Recovery,
        commands: Commands,
        tasks: Tasks,
        *,
        hold_s: float,
        wall: Callable[[], float],
    ) -> None:
        self._gateway = gateway
        self._broker = broker
        self._hub = hub
        self._recovery = recovery
        self._commands = commands
        self._records = OwnedRecords(broker, tasks)
        self._tasks = tasks
        self._hold_s = hold_s
        self._lost: dict[str, ConnectionInfo] = {}  # by connection; those that may come back here or elsewhere
        self._wall = wall

    # Away

    def lose(self, session: Session) -> None:
        """Its client may go on elsewhere."""
        info = self._gateway.lose(session)
        self._broker.presence_hold(info)
        self._lost[info.connection] = info
        self._tasks.spawn(self._release(info), "release")

    async def _release(self, info: ConnectionInfo) -> None:
        await asyncio.sleep(self._hold_s)
        if self._lost.get(info.connection) is not info:
            return  # it has come back, and may be away once more
        del self._lost[info.connection]
        with contextlib.suppress(BrokerDown):  # it vanishes with this node's lease
            await self._broker.presence_release(info)

    # Here

    async def resume(self, asked: Resumption, rights: Rights, wire: Transport) -> Resumed:
        """The session, with all its streams attached; ``go_on`` comes next. Raises Refused where another node may take
        it, and CannotResume."""
        self._gateway.check_room()
        session = Session(asked.client, asked.connection, rights, wire, int(self._wall() * 1000))
        session.term = asked.term
        self._hub.add(session)
        try:
            resumed = await self._attach(session, asked)
            if not session.ended:
                await self._broker.presence_move(self._gateway.info(session))
        except BaseException:
            self._broker.presence_hold(self._gateway.info(session))  # what failed is not to be made good later
            self._gateway.unsubscribe_all(session)
            raise
        self._lost.pop(asked.connection, None)
        return resumed

    async def _attach(self, session: Session, asked: Resumption) -> Resumed:
        orders = await self._orders(asked)
        session.lasting = await self._broker.memberships(session.client)
        resumed = Resumed(session, asked.cursor)
        removed = {group_stream(order.group) for order in orders if isinstance(order, MembershipOrder)}
        own = (client_stream(session.client), ALL)
        for stream in asked.cursor:
            group = group_of(stream)
            if group is not None and stream in removed and group not in session.lasting:
                resumed.left[stream] = "removed"
            elif stream not in own and (group is None or not self._commands.changes.may_join(session, group)):
                resumed.left[stream] = "not_allowed"
        if asked.device is not None:
            resumed.record = await self._records.reclaim(session, asked.device)
            if resumed.record is None:
                raise CannotResume(CloseCode.TAKEN_OVER)
        lasting = [group_stream(group) for group in sorted(session.lasting)]
        for stream in dict.fromkeys([*asked.cursor, *lasting]):
            if stream not in resumed.left and not session.ended:
                await self._recovery.attach(session, stream, asked.cursor.get(stream))
        return resumed

    async def _orders(self, asked: Resumption) -> list[Order]:
        """Those for this client that nobody has obeyed for this connection."""
        orders = await self._broker.orders_since(asked.orders)
        if orders is None:
            raise CannotResume(CloseCode.RESTART)
        mine = [order for order in orders if order.client == asked.client]
        for order in mine:
            if isinstance(order, CloseOrder) and order.connection in (None, asked.connection):
                raise CannotResume(CloseCode(order.code))
        return mine

    def go_on(self, resumed: Resumed) -> None:
        """From where its client is: what it missed, or a gap, and then it is live. To be called in the turn in which
        the edge is answered."""
        session = resumed.session
        session.welcomed = True
        starts = {}
        for stream in list(session.streams):
            known, page = resumed.cursor.get(stream), session.tracks[stream].page
            fields = session.join_fields(stream)
            starts[stream] = session.position(stream)
            if known is None:  # a lasting membership that was made meanwhile
                session.wire.track(stream)
                session.send(protocol.encode_joined(stream, fields))
            elif fields["epoch"] != known.epoch and not (page and page.gap and page.gap.first is None):
                # Its beginning has moved (docs/decisions/0013), and no welcome says so.
                session.send(protocol.encode_gap(Gap(stream, str(fields["epoch"]), None, 0, "reset")))
            self._recovery.start_delivery(session, stream)
        self._gateway.trace.resumed(session, starts)
        for stream, reason in resumed.left.items():
            session.send(protocol.encode_left(stream, reason))
            self._gateway.trace.left(session, stream, reason)
        if resumed.record is not None:
            # What its client has confirmed is what it had: that more was queued for it proves nothing.
            confirmed = resumed.cursor | resumed.record
            session.confirmations = Confirmations(
                {stream: confirmed.get(stream) or session.position(stream) for stream in session.streams}
            )
            session.confirmations.unsaved = True
            self._records.save(session)
        self._gateway.begin_work(session)
