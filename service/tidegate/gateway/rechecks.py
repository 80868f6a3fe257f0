"""Live connections are asked for again, at the application that let them in (``auth.mode: callback``).

Theory of operation. A connection's ``Login`` says when it is due. Each second all connections are looked at, and those
that are due are asked for, the longest overdue first, a few at a time. By the answer a connection goes on, with other
rights perhaps, or ends (4009). Without an answer it stays, and is due again soon: an application that is away for an
hour ends nobody, and when it is back hears of all of them, a few at a time. Source: docs/protocol.md, Cookies.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable

from tidegate.auth.callback import Callback, Login
from tidegate.core.errors import AuthUnavailable, CloseCode, NotAllowed, Unauthorized
from tidegate.core.hub import Hub
from tidegate.core.session import Session
from tidegate.gateway.changes import NewRights
from tidegate.gateway.gateway import Gateway
from tidegate.tasks import Tasks

LOOK_S = 1.0
SLICE = 2000  # connections that are looked at before others have a turn
AGAIN_S = 10.0  # at most, after a question without an answer


class Rechecks:
    """``look`` is to be called every ``LOOK_S``. ``leeway_s``: after the end of a login, as for a handshake."""

    def __init__(
        self,
        callback: Callback,
        gateway: Gateway,
        hub: Hub,
        tasks: Tasks,
        *,
        leeway_s: float,
        wall: Callable[[], float],
    ) -> None:
        self._callback = callback
        self._gateway = gateway
        self._hub = hub
        self._tasks = tasks
        self._leeway_s = leeway_s
        self._wall = wall
        self._due: deque[Session] = deque()
        self._asking: set[Session] = set()

    @property
    def waiting(self) -> int:
        """Connections that are overdue."""
        return len(self._due)

    async def look(self) -> None:
        now_s, wall_s = time.monotonic(), self._wall()
        due = []
        for number, session in enumerate(list(self._hub.sessions()), 1):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            login = session.rights
            if not isinstance(login, Login) or session.ended or not session.welcomed:
                continue
            if login.expires is not None and login.expires + self._leeway_s <= wall_s:
                self._gateway.close(session, CloseCode.TOKEN_EXPIRED)  # its heartbeat knows of an earlier answer's end
            elif login.due_s <= now_s and session not in self._asking:
                due.append((login.due_s, session.connection, session))
        self._due = deque(session for _, _, session in sorted(due))
        while self._due and len(self._asking) < self._callback.rechecks:
            self._ask_next()

    def _ask_next(self) -> None:
        session = self._due.popleft()
        self._asking.add(session)
        self._tasks.spawn(self._ask(session), "recheck")

    async def _ask(self, session: Session) -> None:
        try:
            if not session.ended:
                await self._recheck(session)
        finally:
            self._asking.discard(session)
            if self._due:
                self._ask_next()

    async def _recheck(self, session: Session) -> None:
        login = session.rights
        assert isinstance(login, Login)
        try:
            grant = await self._callback.recheck(login)
        except (Unauthorized, NotAllowed):
            self._gateway.close(session, CloseCode.TOKEN_EXPIRED)
        except AuthUnavailable:
            login.due_s = min(time.monotonic() + AGAIN_S * random.uniform(0.5, 1), self._callback.next_s())
        else:
            login.due_s = self._callback.next_s()
            if grant != login.grant:
                new = Login(grant, login.question, login.due_s)
                self._gateway.change(session, NewRights(new, new.ticket))
