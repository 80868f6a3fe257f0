"""``Publisher`` and ``AsyncPublisher``: the same words, blocking and awaiting. What they do is in ``calls``."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tidegate_client.publisher.attempts import LONGEST_S, Call, Patience, Send
from tidegate_client.publisher.calls import Calls
from tidegate_client.publisher.model import History, Position, Presence
from tidegate_client.publisher.pushes import Key, Limits, Push, Rules, Span
from tidegate_client.publisher.wires import Wire, WireOptions, wire

if TYPE_CHECKING:
    from tidegate_client.tokens import TokenSigner

T = TypeVar("T")

_LIMITS = Limits()


class _Words:
    """What both are made with: the options, and what needs no wire."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        prefix: str = "tidegate",
        deadline_s: float = 30.0,
        timeout_s: float = 5.0,
        json_default: Callable[[Any], Any] | None = None,
        traceparent: Span | None = None,
        ssl_context: ssl.SSLContext | None = None,
        data_bytes: int = _LIMITS.data_bytes,
        body_bytes: int = _LIMITS.body_bytes,
        batch_pushes: int = _LIMITS.batch_pushes,
        token_key: str | bytes | None = None,
        token_algorithm: str = "HS256",
        token_issuer: str | None = None,
        token_audience: str | None = None,
        token_kid: str | None = None,
    ) -> None:
        """Connects to nothing yet. Raises ValueError for what cannot be meant.

        ``url``: of the gateway's internal port, with ``api_key``; or of Redis, with ``prefix`` (``broker.prefix``).
        ``deadline_s``: over all attempts of a call, ``timeout_s``: of one. ``json_default``: as in ``json.dumps``.
        ``traceparent``: gives the span of each push that names none, or None; it is called where ``push`` is.
        ``data_bytes``, ``body_bytes``, ``batch_pushes``: the gateway's ``limits``, where they are not the defaults.
        ``token_…``: what ``token`` signs with.
        """
        for name, seconds in (("deadline_s", deadline_s), ("timeout_s", timeout_s)):
            if not 0 < seconds <= LONGEST_S:
                raise ValueError(f"{name}: up to {LONGEST_S:g}, because keys are known for five minutes")
        limits = Limits(data_bytes=data_bytes, body_bytes=body_bytes, batch_pushes=batch_pushes)
        self.rules = Rules(limits, json_default, traceparent)
        self._patience = lambda: Patience(deadline_s, timeout_s)
        self._signs = (token_key, token_algorithm, token_issuer, token_audience, token_kid)
        self._use(wire(url, limits, WireOptions(api_key, prefix, timeout_s, ssl_context)))

    def _use(self, wire: Wire) -> None:
        self._calls = Calls(self.rules, wire.pushes, self._patience, answers=wire.answers)

    def token(
        self,
        sub: str,
        groups: Iterable[str] = (),
        publish: Iterable[str] = (),
        expires_in: float | timedelta = 3600,
    ) -> str:
        """A token of the client ``sub``, for ``expires_in`` seconds. ``groups`` and ``publish`` are lists of patterns.
        It is signed here, without I/O. Raises ValueError."""
        return self._signer.token(sub, groups, publish, expires_in)

    @cached_property
    def _signer(self) -> TokenSigner:
        from tidegate_client.tokens import TokenSigner

        key, algorithm, issuer, audience, kid = self._signs
        if key is None:
            raise ValueError("token() needs token_key=, what tokens are signed with")
        return TokenSigner(key, algorithm, issuer=issuer, audience=audience, kid=kid)


class Publisher(_Words):
    """Pushes, and what else an application may ask of the gateway. Each call returns when it is done, so that nothing
    is left behind at the end of a thread or a process. It is safe to use from several threads, and after a fork.

    ``with Publisher("http://127.0.0.1:8001", api_key=…) as publisher``, or ``close()`` at the end.
    All calls raise Refused, NotConfirmed, and BadPush for what can never be taken; through Redis, all but ``push``,
    ``push_many`` and ``token`` raise NotThroughRedis.
    """

    def _use(self, wire: Wire) -> None:
        super()._use(wire)
        self._sender = wire.sender()

    def push(
        self,
        *,
        data: Any,
        client: str | None = None,
        group: str | None = None,
        all: bool = False,
        key: Key = None,
        conflate: str | None = None,
        traceparent: str | None = None,
    ) -> Position | None:
        """Pushes to a client, a group or to all. Its position; None through Redis. ``key``: None has one made, so that
        it is repeated where that may help, and never doubled; False goes without. ``conflate``: of messages with the
        same word slow connections get the newest, where the group's policy is ``latest``. ``traceparent``: the span
        that pushes (W3C Trace Context), which ``tidegate trace`` shows with the message."""
        push = Push(data=data, client=client, group=group, all=all, key=key, conflate=conflate, traceparent=traceparent)
        return self._run(self._calls.push(push))

    def push_many(self, pushes: Iterable[Push | Mapping[str, Any]]) -> list[Position | None]:
        """Pushes all of them, those of one stream in their order: ``[{"group": "news", "data": …, "key": …}, …]`` or
        ``Push(…)``. Their positions; None each through Redis. Raises PushFailed where some were not accepted, and
        BadPush, before anything is sent, where one of them can never be."""
        return self._run(self._calls.push_many(pushes))

    def add_member(self, group: str, client: str) -> bool:
        """Makes the client a lasting member. False: it was one already."""
        return self._run(self._calls.add_member(group, client))

    def remove_member(self, group: str, client: str) -> bool:
        """Ends a lasting membership, and takes all of the client's connections out. False: it was no lasting member."""
        return self._run(self._calls.remove_member(group, client))

    def disconnect(self, client: str, connection: str | None = None) -> list[str]:
        """Closes the client's connections with 4501, or the one that is named. Those that were known."""
        return self._run(self._calls.disconnect(client, connection))

    def presence(self, group: str) -> Presence:
        """Who is in the group now."""
        return self._run(self._calls.presence(group))

    def history(
        self,
        *,
        client: str | None = None,
        group: str | None = None,
        all: bool = False,
        position: Position | None = None,
        limit: int = 100,
    ) -> History:
        """What follows ``position`` in a journal, up to ``limit`` messages, 1000 at most. Without it the newest
        ones."""
        return self._run(self._calls.history(client, group, all, position, limit))

    def close(self) -> None:
        """Closes this process's connections. The next call opens new ones."""
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        try:
            step = next(call)
            while True:
                if isinstance(step, Send):
                    step = call.send(self._sender.send(step.request, step.timeout_s))
                else:
                    time.sleep(step.seconds)
                    step = next(call)
        except StopIteration as end:
            value: T = end.value
            return value


class AsyncPublisher(_Words):
    """``Publisher`` for asyncio: its words, awaited. One may be used in several event loops, one after the other or at
    once, and after a fork; each loop has its own connections, which are closed with it.

    ``async with AsyncPublisher("http://127.0.0.1:8001", api_key=…) as publisher``, or ``await close()`` at the end.
    """

    def _use(self, wire: Wire) -> None:
        super()._use(wire)
        self._sender = wire.async_sender()

    async def push(
        self,
        *,
        data: Any,
        client: str | None = None,
        group: str | None = None,
        all: bool = False,
        key: Key = None,
        conflate: str | None = None,
        traceparent: str | None = None,
    ) -> Position | None:
        """As ``Publisher.push``."""
        push = Push(data=data, client=client, group=group, all=all, key=key, conflate=conflate, traceparent=traceparent)
        return await self._run(self._calls.push(push))

    async def push_many(self, pushes: Iterable[Push | Mapping[str, Any]]) -> list[Position | None]:
        """As ``Publisher.push_many``."""
        return await self._run(self._calls.push_many(pushes))

    async def add_member(self, group: str, client: str) -> bool:
        """As ``Publisher.add_member``."""
        return await self._run(self._calls.add_member(group, client))

    async def remove_member(self, group: str, client: str) -> bool:
        """As ``Publisher.remove_member``."""
        return await self._run(self._calls.remove_member(group, client))

    async def disconnect(self, client: str, connection: str | None = None) -> list[str]:
        """As ``Publisher.disconnect``."""
        return await self._run(self._calls.disconnect(client, connection))

    async def presence(self, group: str) -> Presence:
        """As ``Publisher.presence``."""
        return await self._run(self._calls.presence(group))

    async def history(
        self,
        *,
        client: str | None = None,
        group: str | None = None,
        all: bool = False,
        position: Position | None = None,
        limit: int = 100,
    ) -> History:
        """As ``Publisher.history``."""
        return await self._run(self._calls.history(client, group, all, position, limit))

    async def close(self) -> None:
        """Closes this loop's connections. The next call opens new ones."""
        await self._sender.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        try:
            step = next(call)
            while True:
                if isinstance(step, Send):
                    step = call.send(await self._sender.send(step.request, step.timeout_s))
                else:
                    await asyncio.sleep(step.seconds)
                    step = next(call)
        except StopIteration as end:
            value: T = end.value
            return value
