"""A node in this process, for tests that speak to it over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tidegate.app import App
from tidegate.config.load import load
from tidegate.core.errors import BrokerDown

PATIENT_S = 60  # no test but those of it is to fail because the machine is busy


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[App]:
    """``async with running(LIMITS__CONNECTIONS=3, GROUPS={"chat": {"publish": "members"}}) as app``: started on free
    ports, stopped at the end. The names are those of the environment without ``TIDEGATE_``; what is no text goes in as
    JSON."""
    settings = {"SERVER__PORT": 0, "INTERNAL__PORT": 0, "SERVER__NODE": "n1", "LIMITS__LAG_S": PATIENT_S} | settings
    environ = {
        f"TIDEGATE_{name}": value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()
    }
    app = App(load(None, environ))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()
    unforeseen = app.metrics.unforeseen()
    assert not unforeseen, unforeseen  # it should have been there from the start, at 0


class Down:
    """Takes the place of a broker's method until it is ``up``."""

    def __init__(self, app: App, name: str) -> None:
        self._app, self._name, self._real = app, name, getattr(app.broker, name)
        setattr(app.broker, name, self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise BrokerDown("no answer")

    def up(self) -> None:
        setattr(self._app.broker, self._name, self._real)


class Held:
    """Takes the place of a broker's method, and lets nothing through until it is told to; or, with ``fails``, then
    neither."""

    def __init__(self, app: App, name: str) -> None:
        self._real = getattr(app.broker, name)
        self.open = asyncio.Event()
        self.fails = False
        self.waiting = 0
        setattr(app.broker, name, self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.waiting += 1
        await self.open.wait()
        if self.fails:
            raise BrokerDown("no answer")
        return await self._real(*args, **kwargs)
