"""What an application holds of a stream: its messages by ``async for`` or by a function, and what it may ask of a
group."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidegate_client.client.calling import carried_out
from tidegate_client.client.cursor import is_position
from tidegate_client.client.errors import Closed, NotJoined
from tidegate_client.client.inbox import Inbox, Item, Load
from tidegate_client.client.model import Gap, History, Joined, Left, Message, Position, Presence, Published

if TYPE_CHECKING:
    from tidegate_client.client.client import Client

_LOG = logging.getLogger("tidegate_client")

_STATE_FIRST_S, _STATE_LONGEST_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Handlers:
    on_message: Callable[[Message], Any] | None = None
    on_gap: Callable[[Gap], Any] | None = None
    on_joined: Callable[[Joined], Any] | None = None
    on_left: Callable[[str], Any] | None = None
    on_error: Callable[[Exception], Any] | None = None
    state: Callable[[], Any] | None = None


class Subscription:
    """Made by ``Client.group``, ``direct`` and ``all``. Either ``on_message`` is called for each message, or it is an
    asynchronous iterator: a message counts as dealt with when the next one is asked for.

    A plain ``async for`` gives messages. It passes gaps to ``on_gap``, or to those who listen to the client's
    ``gap``, and else logs them as warnings. It ends after ``leave()`` and ``Client.close()``, raises ``Closed`` when
    the client is closed for another reason (after what was queued), and ``NotJoined`` when the group is refused or
    ended from outside, unless ``on_left`` or a listener takes that. ``events()`` gives gaps and the rest in their
    place."""

    def __init__(self, client: Client, name: str, handlers: Handlers, limit: int) -> None:
        """``name``: of the stream, ``client:`` for the client's own."""
        self._client, self._handlers = client, handlers
        self._wake = asyncio.Event()
        self._inbox = Inbox(limit, handlers.state is not None, self._wake.set, client._moved)
        self._ended = False
        self._taken = False
        self._stream = client._streams.subscribe(name, self._inbox)

    @property
    def stream(self) -> str:
        """``group:news``, ``all``, or ``client:alice``, which is ``client:`` as long as the id is not known."""
        return self._stream.name or self._stream.key

    @property
    def name(self) -> str:
        """Of the group; of other streams as ``stream``."""
        return self.stream.removeprefix("group:")

    @property
    def is_joined(self) -> bool:
        return self._stream.is_open

    def leave(self) -> None:
        """The end of this subscription: nothing more is told, iteration ends, and a group is left."""
        if not self._ended:
            self._end()
            self._inbox.clear()
            self._client._left(self, self._stream)

    def join(self) -> None:
        """Joins the group again after it was left, from now on. It does nothing where it is joined or about to be."""
        self._client._join(self, self._stream)

    async def publish(
        self, data: Any, *, key: str | bool = True, conflate: str | None = None, traceparent: str | None = None
    ) -> Published:
        return await self._client.publish(self.name, data, key=key, conflate=conflate, traceparent=traceparent)

    async def history(self, position: Position | None = None, limit: int | None = None) -> History:
        return await self._client.history(self.name, position=position, limit=limit)

    async def presence(self) -> Presence:
        return await self._client.presence(self.name)

    # Iteration

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while True:
            item = await self._next()
            if isinstance(item, Message):
                return item
            if isinstance(item, Left) and self._handlers.on_left is None and not self._client._listeners.any("left"):
                raise NotJoined(item)
            await self._tell(item)

    async def events(self) -> AsyncIterator[Item]:
        """``Message``, ``Gap``, ``Joined`` and ``Left`` in their order. ``on_gap`` and the others are not called."""
        while True:
            try:
                yield await self._next()
            except StopAsyncIteration:
                return

    async def _next(self) -> Item:
        """The next item; what was given before is dealt with. A state that is due is loaded first. Raises
        StopAsyncIteration at the end, and Closed. A caller that is cancelled loses nothing."""
        if self._taken:
            raise RuntimeError("two tasks iterate over one subscription")
        self._taken = True
        try:
            while True:
                if self._ended:
                    self._inbox.dealt_with()
                    raise StopAsyncIteration
                self._wake.clear()
                item = self._inbox.take()
                self._client._streams.make_room(self._stream)
                if isinstance(item, Load):
                    await self._load(item)
                elif item is not None:
                    return item
                elif (reason := self._client._closed_by()) is not None and self._handlers.on_message is None:
                    raise Closed(reason)
                else:
                    await self._wake.wait()
        finally:
            self._taken = False

    # A function for each message

    async def _run(self) -> None:
        """Carries the items to the handlers, one after the other, until the end."""
        while True:
            try:
                item = await self._next()
            except StopAsyncIteration:
                return
            if isinstance(item, Message):
                assert self._handlers.on_message is not None
                await self._call(self._handlers.on_message, item)
                self._inbox.dealt_with()
                self._client._streams.make_room(self._stream)
            else:
                await self._tell(item)

    async def _tell(self, item: Gap | Joined | Left) -> None:
        handlers = self._handlers
        heard = True
        if isinstance(item, Gap):
            heard = self._client._listeners.tell("gap", item) or handlers.state is not None
            if handlers.on_gap is not None:
                await self._call(handlers.on_gap, item)
            elif not heard and item.reason != "skipped":
                _LOG.warning(
                    "%s: messages %s to %s are missing (%s), and nobody listens to gaps",
                    item.stream, item.first, item.last, item.reason,
                )  # fmt: skip
        elif isinstance(item, Joined):
            self._client._listeners.tell("joined", item)
            if handlers.on_joined is not None:
                await self._call(handlers.on_joined, item)
        else:
            heard = self._client._listeners.tell("left", item)
            if handlers.on_left is not None:
                await self._call(handlers.on_left, item.reason)
            elif not heard:
                _LOG.warning("%s: not joined (%s), and nobody listens to that", item.stream, item.reason)

    async def _call(self, function: Callable[[Any], Any], given: Any) -> None:
        try:
            await carried_out(function, given)
        except Exception as exc:
            if not (self._ended and isinstance(exc, Closed)):  # what it asked was ended with the client
                await self._failed(exc)

    async def _failed(self, exc: Exception) -> None:
        if self._handlers.on_error is not None:
            try:
                await carried_out(self._handlers.on_error, exc)
                return
            except Exception as further:
                exc = further
        if not self._client._listeners.tell("error", exc):
            _LOG.error("a handler of %s failed", self.stream, exc_info=exc)

    # State

    async def _load(self, load: Load) -> None:
        """Calls ``state()`` until it gave something or it is no longer wanted."""
        assert self._handlers.state is not None
        failures = 0
        try:
            while self._inbox.is_wanted(load):
                try:
                    result = await carried_out(self._handlers.state)
                except Exception as exc:
                    if not self._inbox.is_wanted(load):
                        return
                    await self._failed(exc)
                    await self._pause(load, min(_STATE_LONGEST_S, _STATE_FIRST_S * 2**failures))
                    failures = min(failures + 1, 16)
                    continue
                if not self._inbox.is_wanted(load):
                    return
                try:
                    read_at = _read_at(result)
                except TypeError as exc:
                    read_at = None
                    await self._failed(exc)
                if (behind := self._inbox.loaded(load, read_at)) is not None:
                    self._client._streams.back_to(self._stream, behind)
                return
        except BaseException:
            self._inbox.put_back(load)
            raise

    async def _pause(self, load: Load, longest_s: float) -> None:
        """Waits; not for what is no longer wanted."""
        until = asyncio.get_running_loop().time() + random.uniform(longest_s / 2, longest_s)
        while self._inbox.is_wanted(load) and not self._ended:
            self._wake.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                return

    # For the client

    def _end(self) -> None:
        self._ended = True
        self._inbox.drop()
        self._wake.set()

    def _revive(self) -> None:
        self._ended = False


def _read_at(result: Any) -> Position | None:
    """The position in what ``state()`` gave: None, a Position, or a mapping with ``position``, or with ``epoch`` and
    ``offset``. Raises TypeError for a position that is none."""
    if isinstance(result, Mapping) and result.get("position") is not None:
        result = result["position"]
    if isinstance(result, Mapping) and "epoch" in result:
        result = Position(result.get("epoch"), result.get("offset"))  # type: ignore[arg-type]
    if not isinstance(result, Position):
        return None
    if not is_position(*result):
        raise TypeError(f"state() gave a position that is none: {result!r}")
    return result
