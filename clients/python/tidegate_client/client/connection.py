"""One attempt to get a connection, and the connection that came of it: a socket, who reads it and who writes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tidegate_client.client import back_off
from tidegate_client.client.back_off import Plan
from tidegate_client.client.model import Reason
from tidegate_client.client.streams import Asked

_LOG = logging.getLogger("tidegate_client")

_CLOSE_TIMEOUT_S = 2.0
# Events have 256 KiB at most.
_MAX_BYTES = 2**20


class Owner(Protocol):
    async def _prepare(self, connection: Connection) -> Request: ...

    def _came(self, connection: Connection, event: dict[str, Any]) -> None: ...

    def _over(self, connection: Connection, plan: Plan) -> None: ...


@dataclass(frozen=True, slots=True)
class Request:
    url: str
    headers: Mapping[str, str]
    asked: Asked


class GiveUp(Exception):
    """Raised by ``_prepare``: the attempt ends with this plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan


class _Connect(connect):
    """Follows no redirects: the gateway makes none, and a token is for it alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class Connection:
    """``run`` it in a task. Whatever happens, ``owner._over`` is called once at the end, unless the task is
    cancelled by ``drop``. ``cut`` ends it at once, with a plan; ``close`` with a close frame."""

    def __init__(self, owner: Owner, number: int, options: Mapping[str, Any]) -> None:
        self.number = number
        self.asked = Asked("")
        self.welcomed = False
        self._owner, self._options = owner, options
        self._socket: ClientConnection | None = None
        self._out: deque[str] = deque()
        self._to_write = asyncio.Event()
        self._plan: Plan | None = None
        self._closes = False
        self.task: asyncio.Task[None] | None = None

    def send(self, text: str) -> None:
        """Queues it; what cannot be written any more is lost with the connection."""
        self._out.append(text)
        self._to_write.set()

    def cut(self, plan: Plan) -> None:
        """Ends it without a word to the other side, which is not there or not to be waited for."""
        self._plan = self._plan or plan
        if self.task is not None:
            self.task.cancel()

    def close(self) -> None:
        """Ends it with 1000. The owner is told nothing more."""
        self._closes = True
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        try:
            plan = await self._run()
        except asyncio.CancelledError:
            if self._closes:
                await self._say_goodbye()
                return
            if self._plan is None:
                if self._socket is not None:
                    self._socket.transport.abort()
                raise
            plan = self._plan
        except Exception as exc:
            _LOG.error("a connection failed", exc_info=exc)
            plan = Plan(Reason("fault", None, type(exc).__name__, again=True))
        if self._socket is not None:
            self._socket.transport.abort()
        if not self._closes:
            self._owner._over(self, plan)

    async def _run(self) -> Plan:
        try:
            request = await self._owner._prepare(self)
            self.asked = request.asked
            self._socket = await _Connect(
                request.url,
                **{
                    "additional_headers": request.headers,
                    "subprotocols": [Subprotocol("tidegate.v1")],
                    "compression": None,
                    "open_timeout": None,
                    "ping_interval": None,
                    "close_timeout": _CLOSE_TIMEOUT_S,
                    "max_size": _MAX_BYTES,
                }
                | dict(self._options),
            )
        except GiveUp as exc:
            return exc.plan
        except InvalidStatus as exc:
            return _refused(exc)
        except TypeError:
            raise  # an option that ``websockets`` does not know
        except Exception as exc:
            # The network, TLS, a proxy, an answer that is none: all of them may be better next time.
            return Plan(Reason("unreachable", None, f"{type(exc).__name__}: {exc}", again=True))
        return await self._talk(self._socket)

    async def _talk(self, socket: ClientConnection) -> Plan:
        writing = asyncio.get_running_loop().create_task(self._write(socket))
        try:
            while True:
                text = await socket.recv()
                if isinstance(text, str) and (event := parsed(text)) is not None:
                    self._owner._came(self, event)
        except ConnectionClosed as exc:
            if exc.rcvd is None or exc.rcvd_then_sent is False:
                return back_off.after_close(1006, "the connection broke" if exc.sent is None else exc.sent.reason)
            return back_off.after_close(exc.rcvd.code, exc.rcvd.reason)
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing

    async def _write(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                while self._out:
                    await socket.send(self._out.popleft())
                self._to_write.clear()
                await self._to_write.wait()

    async def _say_goodbye(self) -> None:
        if self._socket is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                while self._out:
                    await self._socket.send(self._out.popleft())
                await self._socket.close(1000)
        except (TimeoutError, ConnectionClosed):
            pass
        finally:
            self._socket.transport.abort()


def parsed(text: str) -> dict[str, Any] | None:
    """An event; None for what is none, as the bare text ``pong``."""
    try:
        event = json.loads(text)
    except ValueError:
        try:
            # Python gives up on integers of thousands of digits, which are data like any other.
            event = json.loads(text, parse_int=lambda digits: int(Decimal(digits)))
        except ValueError:
            return None
    except RecursionError:
        return None
    return event if isinstance(event, dict) else None


def _refused(exc: InvalidStatus) -> Plan:
    response = exc.response
    message = ""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        error = json.loads(response.body or b"")["error"]
        message = f"{error['code']}: {error['message']}"
    wait = response.headers.get("Retry-After", "")
    seconds = float(wait) if wait.isascii() and wait.isdecimal() else None
    return back_off.after_status(response.status_code, message, seconds)
