"""The client: streams that are followed over a connection which comes back by itself."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from tidegate_client.client import replies
from tidegate_client.client.back_off import BackOff
from tidegate_client.client.commands import Commands, to_json
from tidegate_client.client.connection import Connection
from tidegate_client.client.connector import Connector, Settings
from tidegate_client.client.errors import Closed
from tidegate_client.client.listeners import Event, Listeners
from tidegate_client.client.model import (
    Answer,
    Gap,
    History,
    Joined,
    Limits,
    Message,
    Position,
    Presence,
    Published,
    Reason,
    State,
    is_name,
)
from tidegate_client.client.refresher import Refresher
from tidegate_client.client.storage import Keeper, Storage
from tidegate_client.client.streams import ALL, DIRECT, Asked, Stream, Streams
from tidegate_client.client.subscription import Handlers, Subscription
from tidegate_client.client.tasks import Changes, Tasks
from tidegate_client.client.tokens import Token, Tokens

_LOG = logging.getLogger("tidegate_client")

# How long ``close`` lets handlers go on that are at work.
_PASSING = ("broker_down", "too_fast", "full")  # errors of a join that is worth repeating
_HANDLERS_S = 5.0


class Client:
    """``async with Client(url, token=…) as client`` connects, and waits until it is welcomed; it raises ``Closed``
    where that cannot be. Without ``async with``: ``connect()``, ``await ready()``, and in the end ``await close()``.

    All of it belongs to one event loop. Options are described in clients/python/README.md."""

    def __init__(
        self,
        url: str,
        *,
        token: Token = None,
        client: str | None = None,
        device: str | None = None,
        last: bool = False,
        storage: Storage | None = None,
        storage_key: str = "tidegate",
        welcome_timeout_s: float = 10.0,
        answer_timeout_s: float = 10.0,
        ping_interval_s: float | None = None,
        pong_timeout_s: float = 10.0,
        backoff_s: tuple[float, float] = (0.5, 30.0),
        stable_s: float = 10.0,
        give_up_after_s: float | None = None,
        queue_limit: int = 1000,
        headers: Mapping[str, str] | None = None,
        websocket_options: Mapping[str, Any] | None = None,
    ) -> None:
        """``headers`` go with each handshake, ``websocket_options`` to ``websockets.connect`` (``ssl``, ``proxy``)."""
        settings = Settings(
            welcome_timeout_s, answer_timeout_s, ping_interval_s, pong_timeout_s, backoff_s, stable_s, give_up_after_s
        )
        self._tokens = Tokens(token)
        self._tasks = Tasks()
        self._handlers = Tasks()
        self._listeners = Listeners(self._handlers.spawn)
        self._refresher = Refresher(
            self._tokens, backoff_s, self._give_token, self._forbid, self._listeners.error, self._tasks.spawn
        )
        self._connector = Connector(
            self, url, client, self._tokens, settings, headers or {}, websocket_options or {}, self._tasks.spawn
        )
        self._streams = Streams(self._send_wish, self._connector.again, self._moved, last, device)
        self._commands = Commands(answer_timeout_s)
        self._keeper = Keeper(
            None if last else storage, storage_key, self._to_store, self._listeners.error, self._tasks.spawn
        )
        self._queue_limit, self._client = queue_limit, client
        self._subscriptions: dict[str, Subscription] = {}
        self._workers: dict[Subscription, asyncio.Task[None]] = {}
        self._own: dict[int, tuple[Connection, Stream, int]] = {}
        self._wish_back_off = BackOff(*backoff_s)
        self._connection: Connection | None = None
        self._closing: asyncio.Task[None] | None = None
        self._changes = Changes()

    # Life

    @property
    def state(self) -> State:
        return self._connector.state

    @property
    def reason(self) -> Reason | None:
        """Why it is closed; else why the last connection ended, or the last attempt."""
        return self._connector.reason

    @property
    def client(self) -> str | None:
        """Who the gateway says that we are."""
        return self._streams.client

    @property
    def limits(self) -> Limits:
        return self._commands.limits

    @property
    def positions(self) -> dict[str, Position]:
        """What was received of each stream."""
        return self._streams.positions()

    async def __aenter__(self) -> Self:
        self.connect()
        try:
            await self.ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def connect(self) -> None:
        """Begins to connect. Does nothing while it is connecting or connected. Raises Closed after ``close()``."""
        self._refuse_if_done()
        for subscription in self._subscriptions.values():
            self._work(subscription)
        self._connector.start()

    async def ready(self) -> None:
        """Returns when it is connected and each group so far was joined or refused. Raises Closed."""
        while not (self.state == "connected" and self._streams.is_settled()):
            if (reason := self._closed_by()) is not None:
                raise Closed(reason)
            await self._changes.next()

    async def wait_closed(self) -> Reason:
        """Returns when the client is closed, by whatever."""
        while (reason := self._closed_by()) is None:
            await self._changes.next()
        return reason

    async def disconnect(self) -> None:
        """No connection until ``connect()``, which goes on where this one ended."""
        self._refresher.stop()
        self._connector.stop()
        await self._keeper.flush()

    async def close(self) -> None:
        """The end: the connection is closed, commands that wait raise ``Closed``, iterations end, handlers that are
        at work may end theirs within 5 s. Within a handler it returns at once."""
        if self._closing is None:
            self._refresher.stop()
            self._connector.finish(Reason("done", 1000))
            for subscription in list(self._subscriptions.values()):
                subscription._end()
            self._closing = asyncio.get_running_loop().create_task(self._finish())
        task = asyncio.current_task()
        if task not in self._handlers and task not in self._tasks:
            await asyncio.shield(self._closing)

    def wake(self) -> None:
        """The machine slept, or the network is another one: the connection is tried, or an attempt made, at once."""
        self._connector.wake()

    # Streams

    def group(
        self,
        name: str,
        on_message: Callable[[Message], Any] | None = None,
        *,
        on_gap: Callable[[Gap], Any] | None = None,
        on_joined: Callable[[Joined], Any] | None = None,
        on_left: Callable[[str], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
        state: Callable[[], Any] | None = None,
        queue_limit: int | None = None,
    ) -> Subscription:
        """Subscribes to a group. Handlers may be coroutine functions; the next one is called when the last is done. One
        group has one subscription at a time: ValueError. ``state`` loads what the messages change, see README.md."""
        if not is_name(name):
            raise ValueError(f"no name of a group: {name!r}")
        handlers = Handlers(on_message, on_gap, on_joined, on_left, on_error, state)
        return self._subscribe(f"group:{name}", handlers, queue_limit)

    def direct(
        self,
        on_message: Callable[[Message], Any] | None = None,
        *,
        on_gap: Callable[[Gap], Any] | None = None,
        on_joined: Callable[[Joined], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
        state: Callable[[], Any] | None = None,
        queue_limit: int | None = None,
    ) -> Subscription:
        """Subscribes to what is pushed to this client alone."""
        return self._subscribe(DIRECT, Handlers(on_message, on_gap, on_joined, None, on_error, state), queue_limit)

    def all(
        self,
        on_message: Callable[[Message], Any] | None = None,
        *,
        on_gap: Callable[[Gap], Any] | None = None,
        on_joined: Callable[[Joined], Any] | None = None,
        on_error: Callable[[Exception], Any] | None = None,
        state: Callable[[], Any] | None = None,
        queue_limit: int | None = None,
    ) -> Subscription:
        """Subscribes to what is pushed to everybody."""
        return self._subscribe(ALL, Handlers(on_message, on_gap, on_joined, None, on_error, state), queue_limit)

    def leave(self, group: str) -> None:
        """Ends the subscription of a group; without one it leaves a lasting group, for the life of this client."""
        if (subscription := self._subscriptions.get(f"group:{group}")) is not None:
            subscription.leave()
        else:
            self._streams.leave(f"group:{group}")

    def on(self, event: Event, callback: Callable[..., Any]) -> Callable[[], None]:
        """Calls back for each ``state`` (state, reason), ``gap`` (Gap), ``joined`` (Joined), ``left`` (Left) and
        ``error`` (exception). Gives a function that ends it."""
        return self._listeners.on(event, callback)

    # Commands

    async def publish(
        self,
        group: str,
        data: Any,
        *,
        key: str | bool = True,
        conflate: str | None = None,
        traceparent: str | None = None,
    ) -> Published:
        """Publishes to a group, where it is allowed. With a key (its own, unless it is given one) it is sent again
        after a cut, and counts once; with ``key=False`` it ends with UnknownOutcome then. ``conflate``: of messages
        with the same word slow connections get the newest. ``traceparent``: the span that publishes."""
        text = uuid.uuid4().hex if key is True else key or None
        words = {"group": group, "key": text, "conflate": conflate, "traceparent": traceparent}
        reply = await self._ask("publish", repeats=text is not None, data=data, has_data=True, **words)
        return Published(reply["stream"], reply["epoch"], reply["offset"])

    async def call(self, method: str, data: Any = None, *, traceparent: str | None = None) -> Answer:
        """Asks the application, which gets ``traceparent``, the span that asks, as the header of this name. After a cut
        nobody can tell: UnknownOutcome."""
        words = {"method": method, "traceparent": traceparent}
        reply = await self._ask("call", repeats=False, data=data, has_data=True, **words)
        return Answer(reply["status"], reply.get("data"))

    async def history(
        self, group: str, *, position: Position | tuple[str, int] | None = None, limit: int | None = None
    ) -> History:
        """The journal's messages behind ``position``, or from the oldest on."""
        epoch, offset = position if position is not None else (None, None)
        reply = await self._ask("history", repeats=True, group=group, epoch=epoch, offset=offset, limit=limit)
        return replies.history(reply)

    async def presence(self, group: str) -> Presence:
        reply = await self._ask("presence", repeats=True, group=group)
        return Presence(reply["stream"], reply["clients"], reply["connections"], reply.get("more", False))

    async def refresh(self, token: str | None = None) -> int:
        """Gives the gateway a new token: this one, or what the token function gives. Its end, in Unix seconds. After a
        cut (UnknownOutcome) the client comes back with it."""
        if (new := token if token is not None else await self._tokens.ask()) is None:
            raise ValueError("there is no token")
        with self._tokens.replaced(new):
            reply = await self._ask("refresh", repeats=False, token=new)
        return int(reply["expires"])

    async def ping(self) -> float:
        """Asks whether the gateway lives. Seconds until its answer."""
        began = time.monotonic()
        await self._ask("ping", repeats=False)
        return time.monotonic() - began

    async def _ask(self, kind: str, **keys: Any) -> dict[str, Any]:
        if (reason := self._closed_by()) is not None:
            raise Closed(reason)
        return await self._commands.ask(kind, **keys)

    # For subscriptions

    def _subscribe(self, name: str, handlers: Handlers, limit: int | None) -> Subscription:
        self._refuse_if_done()
        if name in self._subscriptions:
            raise ValueError(f"there is a subscription of {name} already: use it, or leave() it first")
        subscription = Subscription(self, name, handlers, self._queue_limit if limit is None else limit)
        self._subscriptions[name] = subscription
        self._work(subscription)
        return subscription

    def _work(self, subscription: Subscription) -> None:
        """Handlers are called by a task of their own, as soon as there is a loop."""
        if subscription._handlers.on_message is None:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        if (task := self._workers.get(subscription)) is None or task.done():
            self._workers[subscription] = self._handlers.spawn(subscription._run())

    def _left(self, subscription: Subscription, stream: Stream) -> None:
        self._workers.pop(subscription, None)
        if self._subscriptions.get(stream.key) is subscription:
            del self._subscriptions[stream.key]
            self._streams.unsubscribe(stream)
            self._changes.tell()

    def _join(self, subscription: Subscription, stream: Stream) -> None:
        self._refuse_if_done()
        if subscription._ended:
            if stream.key in self._subscriptions:
                raise ValueError(f"there is another subscription of {stream.key}")
            self._subscriptions[stream.key] = subscription
            subscription._revive()
            self._streams.subscribe(stream.key, subscription._inbox)
            self._work(subscription)
        elif not stream.is_own and not stream.wished:
            self._streams.wish(stream)

    def _moved(self) -> None:
        self._keeper.changed()

    def _closed_by(self) -> Reason | None:
        return self._connector.reason if self._connector.state == "closed" else None

    # For the connector: see its Host

    async def _before_attempt(self) -> None:
        found = await self._keeper.read()
        if found is None:
            return
        client, positions = found
        if self._client is None or client is None or client == self._client:
            self._streams.restore(client, positions)

    def _asked(self, target: str) -> Asked:
        return self._streams.asked(target, self._commands.limits.groups)

    def _identify(self, client: str) -> None:
        self._streams.identify(client)

    def _welcomed(self, connection: Connection, event: Mapping[str, Any], told: bool) -> None:
        self._connection = connection
        self._own.clear()
        streams, client = event.get("streams"), event.get("client")
        self._streams.welcome(
            client if isinstance(client, str) else "",
            streams if isinstance(streams, dict) else {},
            connection.asked,
            told,
        )
        self._commands.welcomed(connection, replies.limits(event.get("limits")))
        self._changes.tell()

    def _event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "message":
            self._streams.message(event)
        elif kind == "gap":
            self._streams.gap(event)
        elif kind == "joined":
            self._streams.joined(event)
        elif kind == "left":
            self._streams.left(event)
            self._changes.tell()
        elif kind == "expiring":
            self._refresher.begin()
        elif kind in ("reply", "error", "pong"):
            number = event.get("id")
            if type(number) is int and (own := self._own.pop(number, None)) is not None:
                self._wish_answered(*own, event)
            else:
                self._commands.answered(event)

    def _late(self, event: Mapping[str, Any]) -> None:
        if event.get("type") in ("reply", "error", "pong"):
            self._commands.answered(event)

    def _cut(self, connection: Connection, current: bool) -> None:
        if current:
            self._connection = None
            self._refresher.stop()
            self._streams.cut()
        self._commands.cut(connection)

    def _awaits(self, connection: Connection) -> bool:
        return self._commands.awaits(connection)

    def _ping(self, connection: Connection) -> None:
        connection.send(f'{{"type":"ping","id":{self._commands.next_number()}}}')

    def _state_changed(self) -> None:
        state, reason = self.state, self.reason
        if state == "closed" and reason is not None:
            self._refresher.stop()
            self._commands.end(lambda: Closed(reason))
            for subscription in self._subscriptions.values():
                subscription._wake.set()
            if reason.word != "done" and self._closing is None:
                self._tasks.spawn(self._keeper.flush())
        self._changes.tell()
        _LOG.info("%s%s", state, f" after {reason}" if reason is not None and state != "connected" else "")
        self._listeners.tell("state", state, reason, holds=lambda: self.state == state)

    # Within

    def _send_wish(self, stream: Stream, number: int, command: dict[str, Any]) -> None:
        """A join or a leave, on the connection of now."""
        assert self._connection is not None
        own = self._commands.next_number()
        self._own[own] = (self._connection, stream, number)
        self._connection.send(_with_id(command, own))

    def _wish_answered(self, connection: Connection, stream: Stream, number: int, event: Mapping[str, Any]) -> None:
        if connection is not self._connection:
            return
        if number > 0 and event.get("type") == "error" and event.get("code") in _PASSING:
            # It will pass, and the wish is as it was.
            asyncio.get_running_loop().call_later(
                self._wish_back_off.delay_s("growing"), self._wish_again, connection, stream, number
            )
            return
        self._wish_back_off.rest()
        self._streams.answered(stream, number, event)
        self._changes.tell()

    def _wish_again(self, connection: Connection, stream: Stream, number: int) -> None:
        if connection is self._connection:
            self._streams.repeat(stream, number)

    async def _finish(self) -> None:
        """Waits for what is under way, and leaves no task behind."""
        await self._keeper.flush()
        await self._handlers.end(_HANDLERS_S)
        await self._keeper.end()
        await self._tasks.end(_HANDLERS_S)

    async def _give_token(self, token: str) -> None:
        await self._ask("refresh", repeats=False, token=token)

    def _forbid(self, message: str) -> None:
        self._connector.finish(Reason("not_allowed", None, message))

    def _to_store(self) -> tuple[str | None, Mapping[str, Position]]:
        return self._streams.client, self._streams.stored()

    def _refuse_if_done(self) -> None:
        if self._closing is not None:
            raise Closed(Reason("done", 1000))


def _with_id(command: dict[str, Any], number: int) -> str:
    return to_json({"type": command["type"], "id": number} | command)
