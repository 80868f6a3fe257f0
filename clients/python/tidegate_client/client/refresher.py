"""New tokens for a connection that lasts. Source: clients/README.md, The machine, 13."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tidegate_client.client.back_off import BackOff
from tidegate_client.client.errors import ClientError, CommandRefused, NotAllowed
from tidegate_client.client.tokens import Tokens

_FINAL = ("unauthorized", "not_allowed", "bad_request")


class Refresher:
    """``send`` gives a token to the gateway, ``forbidden`` is told when the function says that the user may not."""

    def __init__(
        self,
        tokens: Tokens,
        backoff_s: tuple[float, float],
        send: Callable[[str], Awaitable[object]],
        forbidden: Callable[[str], None],
        failed: Callable[[Exception], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._tokens, self._backoff_s = tokens, backoff_s
        self._send, self._forbidden, self._failed, self._spawn = send, forbidden, failed, spawn
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The token ends soon. There is one chain at a time; a fixed token can't be another one."""
        if self._tokens.can_be_new and (self._task is None or self._task.done()):
            self._task = self._spawn(self._run())

    def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _run(self) -> None:
        """Until the gateway has a new token, or has said no: then its 4009 decides."""
        back_off = BackOff(*self._backoff_s)
        while True:
            try:
                token = await self._tokens.ask()
                if token is not None:
                    await self._send(token)
                return
            except NotAllowed as exc:
                self._forbidden(str(exc))
                return
            except CommandRefused as exc:
                if exc.code in _FINAL:
                    return
            except ClientError:
                return  # the connection broke: the next attempt asks for a token by itself
            except Exception as exc:
                self._failed(exc)
            await asyncio.sleep(back_off.delay_s("growing"))
