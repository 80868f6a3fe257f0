"""Clients that stay: each comes back until it is let in, as a client library does, and then keeps its WebSocket."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tests.edges.edge import Node, Stand, ask
from tests.peer import Peer, Refusal
from tests.support import eventually, scaled


class Crowd:
    """``refused`` has the status of each handshake that was refused, ``waited_s`` how long each of them took."""

    def __init__(self, stand: Stand) -> None:
        self.peers: list[Peer] = []
        self.refused: list[int] = []
        self.waited_s: list[float] = []
        self._stand = stand
        self._names = 0

    async def come(self, number: int, *, at_once: bool = True, within_s: float = 3.0) -> list[str]:
        """So many more; the nodes that they are on. Raises TimeoutError where not all are in in time."""
        self._names += number
        names = [f"c{n}" for n in range(self._names - number, self._names)]
        async with asyncio.timeout(scaled(within_s)):
            if at_once:
                found = await asyncio.gather(*map(self._come, names))
            else:
                found = [await self._come(name) for name in names]
        self.peers += found
        return [node_of(peer) for peer in found]

    async def _come(self, name: str) -> Peer:
        while True:
            peer = self._stand.peer(name)
            begun_s = time.monotonic()
            try:
                await peer.connect()
            except Refusal as refusal:
                self.refused.append(refusal.status)
                again_s = float(refusal.headers["retry-after"])
                await asyncio.sleep(min(again_s, 1))  # not all of it: what is asked is when it would get in
            else:
                await peer.event()
                return peer
            finally:
                self.waited_s.append(time.monotonic() - begun_s)

    async def reach(self, node: Node, within_s: float = 3.0) -> None:
        """One more now and then, until one is on ``node``."""
        async with asyncio.timeout(scaled(within_s)):
            while await self.come(1) != [node.name]:  # noqa: ASYNC110 - each adds a session
                await asyncio.sleep(0.2)

    async def leave(self, peers: list[Peer]) -> None:
        for peer in peers:
            await peer.cut()
            self.peers.remove(peer)

    async def come_back(self, within_s: float = 3.0) -> None:
        """Those that were cut or closed come again."""
        gone = [peer for peer in self.peers if peer.gone.is_set()]
        await self.leave(gone)
        await self.come(len(gone), within_s=within_s)

    def spread(self) -> list[int]:
        """Connections of each node that are still there, the fewest first; nodes without one are not in it."""
        return sorted(Counter(node_of(peer) for peer in self.peers if not peer.gone.is_set()).values())

    async def end(self) -> None:
        await asyncio.gather(*(peer.cut() for peer in self.peers))


def node_of(peer: Peer) -> str:
    """The first part of its node's id, which outlives a restart."""
    node: str = peer.seen[0]["node"]
    return node.partition(".")[0]


async def all_ready(nodes: list[Node]) -> None:
    """Returns when ``/readyz`` of each says yes."""
    for node in nodes:
        await node.ready()

    async def ready() -> bool:
        return all([(await ask(node.internal, "GET", "/readyz")).status == 200 for node in nodes])

    await eventually(ready, 15)
