"""How the connections to an application are shared out among those who ask it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator


class Slots:
    """Gives out the ``limit`` connections, so that calls which hang do not take them all: a client may
    have as many as are free, half of all where nobody else calls; a method, where there are several, three times as
    many as are free. Somebody else finds one free then. Calls that wait get one in turn, method by method, client by
    client."""

    def __init__(self, limit: int, *, methods: int) -> None:
        self._free = limit
        self._methods = methods
        self._of_client: Counter[str] = Counter()
        self._of_method: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[str, dict[asyncio.Future[None], None]]] = OrderedDict()
        self.waiting = 0  # calls

    def waiting_of(self, client: str, method: str = "") -> int:
        """How many of its calls wait."""
        clients = self._waiting.get(method)
        return len(clients.get(client, ())) if clients is not None else 0

    @contextlib.asynccontextmanager
    async def of(self, client: str, method: str) -> AsyncIterator[None]:
        if self._may(client, method):  # who waits may not: else they would have been let in before
            self._take(client, method)
        else:
            await self._wait(client, method)
        try:
            yield
        finally:
            self._give(client, method)

    def _may(self, client: str, method: str) -> bool:
        return self._of_client[client] < self._free and self._may_method(method)

    def _may_method(self, method: str) -> bool:
        return self._methods == 1 or self._of_method[method] < 3 * self._free

    def _take(self, client: str, method: str) -> None:
        self._free -= 1
        self._of_client[client] += 1
        self._of_method[method] += 1

    def _give(self, client: str, method: str) -> None:
        self._free += 1
        self._of_method[method] -= 1
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]
        self._let_in()

    async def _wait(self, client: str, method: str) -> None:
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(method, OrderedDict()).setdefault(client, {})[slot] = None
        self.waiting += 1
        try:
            await slot
        except asyncio.CancelledError:
            if not slot.cancelled():
                self._give(client, method)  # it came at the same time
            else:
                self._leave(client, method, slot)
            raise

    def _leave(self, client: str, method: str, slot: asyncio.Future[None]) -> None:
        """It waits no longer. Idempotent."""
        clients = self._waiting.get(method)
        if clients is None or slot not in clients.get(client, ()):
            return
        self.waiting -= 1
        del clients[client][slot]
        if not clients[client]:
            del clients[client]
        if not clients:
            del self._waiting[method]

    def _let_in(self) -> None:
        """Everybody who may have a slot now."""
        while (found := self._next()) is not None:
            client, method = found
            clients = self._waiting[method]
            slot = next(iter(clients[client]))
            self._waiting.move_to_end(method)
            clients.move_to_end(client)
            self._leave(client, method, slot)
            if not slot.cancelled():
                self._take(client, method)
                slot.set_result(None)

    def _next(self) -> tuple[str, str] | None:
        for method, clients in self._waiting.items():
            if self._free and self._may_method(method):
                for client in clients:  # few have as many as are free, so that this is short
                    if self._of_client[client] < self._free:
                        return client, method
        return None
