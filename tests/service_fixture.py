"""A node in this process, for tests that speak to it over real sockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from service.app import App
from service.config import load


@contextlib.asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[App]:
    """``async with running(LIMITS__CONNECTIONS=3, GROUPS={"chat": {"publish": "members"}}) as app``: started on free
    ports, stopped at the end. The names are those of the environment without ``TIDEGATE_``; what is no text goes in as
    JSON."""
    settings = {"SERVER__PORT": 0, "INTERNAL__PORT": 0, "SERVER__NODE": "n1"} | settings
    environ = {
        f"TIDEGATE_{name}": value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()
    }
    app = App(load(None, environ))
    await app.start()
    try:
        yield app
    finally:
        await app.stop()
