"""A node that stops sends its clients away, one after the other.

Theory of operation. Of n sessions the k-th is looked at when k/n of the first half is over. If another ready node is
known then, it is told that it is ``moving`` and closed half a drain later: time to connect anew, be welcomed there and
close this connection itself. If none is known it is told nothing, and closed when k/n of the whole is over. Either way
not all come at once, and the last is closed at the end. Source: docs/protocol.md, moving.

A client whose socket is at an edge (a trunk's) is told nothing: the edge takes it to the other node, and where there is
none keeps it for one that is about to start, so that all of them go at once. Source: docs/trunk.md.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Sequence

from tidegate import log
from tidegate.brokers.contract import Broker
from tidegate.core.errors import CloseCode, Refused
from tidegate.core.session import Session
from tidegate.gateway.gateway import Gateway

LOOK_S = 1.0  # how old what is known of the other nodes may be
STEP_S = 0.1  # who goes by itself is waited for no longer


class Drain:
    """``ping`` queues a control ping for a session: its pong confirms what came before."""

    def __init__(self, gateway: Gateway, broker: Broker, ping: Callable[[Session], None]) -> None:
        self._gateway = gateway
        self._broker = broker
        self._ping = ping
        self._looked_s = -math.inf
        self._ready = 0  # other nodes, as of then

    async def run(self, sessions: Sequence[Session], seconds: float) -> None:
        """Returns when each of them was closed, or has gone by itself."""
        half_s, begun_s = seconds / 2, asyncio.get_running_loop().time()
        if not half_s or not await self._may_move():
            for session in sessions:
                session.wire.hand_over()
        # When, which, and whether it is closed then. To begin with each is looked at, in order: that is a heap.
        due = [(half_s * number / len(sessions), number, False) for number in range(len(sessions))]
        while due:
            at_s, number, closes = heapq.heappop(due)
            session = sessions[number]
            await _until(begun_s + at_s, session)
            if session.ended:
                continue
            if closes or not half_s:
                self._gateway.close(session, CloseCode.RESTART)
            elif await self._tell(session, half_s):
                heapq.heappush(due, (at_s + half_s, number, True))
            else:
                # Whose socket is at an edge goes by itself, once what it asked for is answered.
                heapq.heappush(due, (2 * (at_s if session.wire.sink is None else half_s), number, True))

    async def _tell(self, session: Session, within_s: float) -> bool:
        """Whether it was told to move."""
        if not session.welcomed or not await self._may_move() or session.ended:
            return False
        if session.wire.sink is not None:
            session.wire.hand_over()
        else:
            self._gateway.move(session, within_s)
            self._ping(session)
        return True

    async def _may_move(self) -> bool:
        """Whether another node is known that takes handshakes. One that is full counts as well: that is not known."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            ready = await self._count_ready()
            if ready != self._ready:
                self._ready = ready
                log.info("drain.nodes_found", ready=ready)
        return self._ready > 0

    async def _count_ready(self) -> int:
        try:
            nodes = await self._broker.nodes()
        except Refused:
            return 0
        own = self._gateway.node
        return sum(node.node != own and not node.draining and node.lag_ms is not None for node in nodes)


async def _until(at_s: float, session: Session) -> None:
    """Returns at a time of the loop, or soon after the session has gone by itself."""
    loop = asyncio.get_running_loop()
    while not session.ended and (wait_s := at_s - loop.time()) > 0:  # noqa: ASYNC110 - nobody tells of each end
        await asyncio.sleep(min(wait_s, STEP_S))
