"""Gets a connection, keeps it, and comes back: attempts, tokens, delays, liveness, make before break. What passes over
a connection is the host's.

    disconnected -> connecting -> connected;  closed by ``finish``

``_next`` is the attempt, ``_current`` the connection, both at once while one is made before the other breaks. Each
attempt is an object of its own: what comes of one that is neither is dropped. Source: clients/README.md, The
machine, 1 to 3 and 11 to 16."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.exceptions import WebSocketException
from websockets.uri import parse_uri

from tidegate_client.client import tokens as jwt
from tidegate_client.client.back_off import BackOff, Plan
from tidegate_client.client.connection import Connection, GiveUp, Request
from tidegate_client.client.errors import NotAllowed
from tidegate_client.client.liveness import Liveness
from tidegate_client.client.model import Reason, State
from tidegate_client.client.streams import Asked
from tidegate_client.client.timing import Deadline
from tidegate_client.client.tokens import Tokens

_LOG = logging.getLogger("tidegate_client")

_PING_INTERVAL_S = 25.0


@dataclass(frozen=True, slots=True)
class Settings:
    welcome_timeout_s: float = 10.0
    answer_timeout_s: float = 10.0
    ping_interval_s: float | None = None
    pong_timeout_s: float = 10.0
    backoff_s: tuple[float, float] = (0.5, 30.0)
    stable_s: float = 10.0
    give_up_after_s: float | None = None


class Host(Protocol):
    async def _before_attempt(self) -> None: ...

    def _asked(self, target: str) -> Asked: ...

    def _identify(self, client: str) -> None: ...

    def _welcomed(self, connection: Connection, event: Mapping[str, Any], told: bool) -> None: ...

    def _event(self, event: Mapping[str, Any]) -> None: ...

    def _late(self, event: Mapping[str, Any]) -> None: ...

    def _cut(self, connection: Connection, current: bool) -> None: ...

    def _awaits(self, connection: Connection) -> bool: ...

    def _ping(self, connection: Connection) -> None: ...

    def _state_changed(self) -> None: ...


class Connector:
    def __init__(
        self,
        host: Host,
        url: str,
        client: str | None,
        tokens: Tokens,
        settings: Settings,
        headers: Mapping[str, str],
        options: Mapping[str, Any],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        parts = urlsplit(url)
        self._url = parts._replace(scheme=parts.scheme.replace("http", "ws"), path=parts.path or "/", fragment="")
        try:
            parse_uri(self._url.geturl())
        except WebSocketException as exc:
            raise ValueError(f"no URL of a gateway (ws://… or wss://…): {url!r}") from exc
        self.state: State = "disconnected"
        self.reason: Reason | None = None
        self._host, self._client, self._tokens, self._settings = host, client, tokens, settings
        self._headers, self._options, self._spawn = headers, options, spawn
        self._back_off = BackOff(*settings.backoff_s)
        self._current: Connection | None = None
        self._next: Connection | None = None
        self._retiring: dict[Connection, asyncio.TimerHandle] = {}
        self._number = 0
        self._refused_tokens = 0
        self._moving_until: float | None = None
        self._deadline: Deadline | None = None
        self._liveness: Liveness | None = None
        self._delay: asyncio.Handle | None = None
        self._stable: asyncio.TimerHandle | None = None
        self._give_up: asyncio.TimerHandle | None = None

    # What is asked of it

    def start(self) -> None:
        if self.state in ("connecting", "connected"):
            return
        self._refused_tokens = 0
        self._begin_to_connect()
        # Not here: a loop with eager tasks may carry it out, to its end, before the state is set.
        self._delay = asyncio.get_running_loop().call_soon(self._attempt)
        self._set("connecting")

    def stop(self) -> None:
        """No connection and no attempt; ``start`` begins again."""
        self._end_all()
        if self.state in ("connecting", "connected"):
            self._set("disconnected")

    def finish(self, reason: Reason) -> None:
        self._end_all()
        if self.state != "closed":
            self.reason = reason
        self._set("closed")

    def again(self) -> None:
        """Another connection, beside the one there is."""
        asyncio.get_running_loop().call_soon(self._beside)

    def wake(self) -> None:
        """The machine slept or the network changed: a waiting attempt is made now, a connection is probed."""
        if self._liveness is not None:
            self._liveness.probe()
        elif self._delay is not None:
            self._stop_timer("_delay")
            self._attempt()

    # What the connections tell

    async def _prepare(self, connection: Connection) -> Request:
        await self._host._before_attempt()
        self._deadline = Deadline(
            self._settings.welcome_timeout_s,
            lambda: connection.cut(Plan(Reason("timeout", None, "no welcome in time", again=True))),
        )
        try:
            token = await self._tokens.ask()
        except NotAllowed as exc:
            raise GiveUp(Plan(Reason("not_allowed", None, str(exc)))) from exc
        except Exception as exc:
            # What it says may be secret.
            _LOG.warning("no token: the function raised %s", type(exc).__name__)
            raise GiveUp(Plan(Reason("token", None, f"no token: {type(exc).__name__}", again=True))) from exc
        if connection is not self._next:
            raise asyncio.CancelledError  # the token function held on to an attempt that was given up
        headers = dict(self._headers)
        if token is not None:
            if not self._tokens.can_be_new and jwt.is_over(token):
                raise GiveUp(Plan(Reason("token_expired", None, "the token has ended")))
            if (client := jwt.subject(token)) is not None:
                self._host._identify(client)
            headers["Authorization"] = f"Bearer {token}"
        query = "&".join(filter(None, [self._url.query, self._client and f"client={quote(self._client)}"]))
        asked = self._host._asked(f"{self._url.path}?{query}")
        query = "&".join(filter(None, [query, asked.query]))
        return Request(urlunsplit(self._url._replace(query=query)), headers, asked)

    def _came(self, connection: Connection, event: dict[str, Any]) -> None:
        if connection is self._current:
            if self._liveness is not None:
                self._liveness.heard()
            if event.get("type") == "moving":
                self._move(event.get("within"))
            else:
                self._host._event(event)
        elif connection is self._next:
            if event.get("type") == "welcome":
                self._welcome(connection, event)
        elif connection in self._retiring:
            self._host._late(event)
            if not self._host._awaits(connection):
                self._retire_now(connection)

    def _over(self, connection: Connection, plan: Plan) -> None:
        if connection is self._next:
            self._next = None
            self._end_deadline()
            if self._current is None:
                self._come_back(plan)
            elif plan.reason.again and (self._moving_until is None or self._now() < self._moving_until):
                delay_s = self._back_off.delay_s("growing")
                self._delay = asyncio.get_running_loop().call_later(delay_s, self._beside_again)
        elif connection is self._current:
            self._cut(connection, plan)
        elif connection in self._retiring:
            self._retiring.pop(connection).cancel()
            self._host._cut(connection, current=False)

    # Within

    def _begin_to_connect(self) -> None:
        if self._give_up is None and self._settings.give_up_after_s is not None:
            reason = Reason("unreachable", None, f"no welcome within {self._settings.give_up_after_s:g} s")
            loop = asyncio.get_running_loop()
            self._give_up = loop.call_later(self._settings.give_up_after_s, self.finish, reason)

    def _attempt(self) -> None:
        self._delay = None
        self._number += 1
        connection = self._next = Connection(self, self._number, self._options)
        connection.task = self._spawn(connection.run())

    def _beside(self) -> None:
        if self._current is not None and self._next is None and self._delay is None:
            self._attempt()

    def _beside_again(self) -> None:
        self._delay = None
        self._beside()

    def _move(self, within: object) -> None:
        """The node stops: a connection to another one, before this one is closed."""
        seconds = within if isinstance(within, int | float) and not isinstance(within, bool) else 0.0
        self._moving_until = self._now() + max(seconds, 0.0)
        self._beside()

    def _welcome(self, connection: Connection, event: Mapping[str, Any]) -> None:
        old, self._current, self._next = self._current, connection, None
        self._refused_tokens = 0
        self._end_deadline()
        for timer in ("_delay", "_stable", "_give_up"):
            self._stop_timer(timer)
        self._end_liveness()
        self._stable = asyncio.get_running_loop().call_later(self._settings.stable_s, self._back_off.rest)
        theirs = event.get("ping_interval")
        interval_s = self._settings.ping_interval_s
        if interval_s is None:
            is_number = isinstance(theirs, int | float) and not isinstance(theirs, bool) and theirs > 0
            interval_s = min(_PING_INTERVAL_S, float(theirs)) if is_number else _PING_INTERVAL_S  # type: ignore[arg-type]
        self._liveness = Liveness(
            interval_s,
            self._settings.pong_timeout_s,
            lambda: self._host._ping(connection),
            lambda: connection.cut(Plan(Reason("silent", None, "nothing came after a ping", again=True))),
        )
        self._host._welcomed(connection, event, told=old is None)
        if old is not None:
            self._retire(old)
        self._moving_until = None
        self._set("connected")

    def _retire(self, old: Connection) -> None:
        """What it still answers is taken until ``within`` is over."""
        left_s = self._settings.answer_timeout_s
        if self._moving_until is not None:
            left_s = min(left_s, max(0.0, self._moving_until - self._now()))
        self._retiring[old] = asyncio.get_running_loop().call_later(left_s, self._retire_now, old)
        if not self._host._awaits(old):
            self._retire_now(old)

    def _retire_now(self, old: Connection) -> None:
        if (timer := self._retiring.pop(old, None)) is not None:
            timer.cancel()
            old.close()
            self._host._cut(old, current=False)

    def _cut(self, connection: Connection, plan: Plan) -> None:
        self._current = None
        self._moving_until = None
        if plan.reason.word == "taken_over" and self._next is not None:
            # By our own next connection, whose welcome is still on its way.
            plan = Plan(replace(plan.reason, again=True))
        self._end_liveness()
        self._stop_timer("_stable")
        self._stop_timer("_delay")
        self._host._cut(connection, current=True)
        if plan.reason.again and self._next is not None:
            self.reason = plan.reason
            self._begin_to_connect()
            self._set("connecting")
        else:
            self._come_back(plan)

    def _come_back(self, plan: Plan) -> None:
        reason = self._after_token(plan)
        if not reason.again:
            self.finish(reason)
            return
        self.reason = reason
        self._begin_to_connect()
        delay_s = self._back_off.delay_s(plan.delay, plan.retry_after_s)
        self._delay = asyncio.get_running_loop().call_later(delay_s, self._attempt)
        self._set("connecting")

    def _after_token(self, plan: Plan) -> Reason:
        """The plan's reason; an end where it asks for a new token and there is none to be had."""
        reason = plan.reason
        if not plan.token:
            return reason
        if self._tokens.are_used and not self._tokens.can_be_new:
            return Reason("token_expired", reason.code, reason.message)
        if reason.code == 401:
            self._refused_tokens += 1
            if self._refused_tokens > 1 or not self._tokens.are_used:
                return Reason("unauthorized", reason.code, reason.message)
        return reason

    def _end_all(self) -> None:
        connections = [self._current, self._next, *self._retiring]
        current, self._current, self._next = self._current, None, None
        for timer in self._retiring.values():
            timer.cancel()
        self._retiring.clear()
        self._moving_until = None
        self._end_deadline()
        self._end_liveness()
        for name in ("_delay", "_stable", "_give_up"):
            self._stop_timer(name)
        for connection in connections:
            if connection is not None:
                connection.close()
                self._host._cut(connection, connection is current)

    def _set(self, state: State) -> None:
        """The last thing that is done, because those who hear of it may do anything."""
        if state != self.state:
            self.state = state
            self._host._state_changed()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_liveness(self) -> None:
        if self._liveness is not None:
            self._liveness.stop()
            self._liveness = None

    def _stop_timer(self, name: str) -> None:
        if (timer := getattr(self, name)) is not None:
            timer.cancel()
            setattr(self, name, None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
