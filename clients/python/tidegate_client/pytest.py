"""Fixtures for tests of applications that push or listen.

- ``tidegate_publisher``, ``tidegate_async_publisher``: fakes that remember what was pushed and check it as the real
  ones do.
- ``tidegate_gateway``: a real gateway in this process, in a thread with an event loop of its own, on ports that the
  system chose, with the embedded broker. It needs ``tidegate`` installed. A new one takes some milliseconds.

``gateway(**settings)`` is the same as a context manager, for fixtures of one's own with another scope or other
settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tidegate_client.publisher.fake import AsyncFakePublisher, FakePublisher

_START_S = 30.0
_LAG_S = 60.0  # tests in the same process hold the gateway's loop up, which says nothing of the gateway


@pytest.fixture
def tidegate_publisher() -> FakePublisher:
    """A Publisher without a network: ``tidegate_publisher.gateway.pushed`` is what was pushed."""
    from tidegate_client.publisher.fake import FakePublisher

    return FakePublisher()


@pytest.fixture
def tidegate_async_publisher(tidegate_publisher: FakePublisher) -> AsyncFakePublisher:
    """An AsyncPublisher without a network; its ``gateway`` is that of ``tidegate_publisher``."""
    from tidegate_client.publisher.fake import AsyncFakePublisher

    return AsyncFakePublisher(tidegate_publisher.gateway)


@pytest.fixture
def tidegate_gateway() -> Iterator[Gateway]:
    """A real gateway, new for each test: ``api_url`` is for publishers, ``url`` for clients, who may be anybody."""
    with gateway() as running:
        yield running


class Gateway:
    """A running gateway. ``api_url``: of the HTTP API; ``url``: of the WebSocket."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="tidegate-gateway", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._started.wait(_START_S):
            raise RuntimeError(f"the gateway has not started within {_START_S:g} s")
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            self._error = exc
        self._started.set()

    async def _serve(self) -> None:
        from tidegate.app import App
        from tidegate.config.load import load

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "tidegate.yaml"
            file.write_text(json.dumps(self._settings))  # JSON is YAML
            app = App(load(str(file), {}))  # this process's environment is the application's, not the gateway's
        await app.start()
        try:
            self.api_url = f"http://127.0.0.1:{app.internal_port}"
            self.url = f"ws://127.0.0.1:{app.public_port}{app.config.server.path}"
            self._started.set()
            await self._stop.wait()
        finally:
            await app.stop()


@contextlib.contextmanager
def gateway(**settings: Any) -> Iterator[Gateway]:
    """``with gateway(auth={"mode": "jwt", "key": …}) as running``: sections and keys are those of config.yaml. Raises
    what keeps the gateway from starting."""
    ports = {name: {"port": 0} | settings.get(name, {}) for name in ("server", "internal")}
    limits = {"lag_s": _LAG_S} | settings.get("limits", {})
    running = Gateway({**settings, **ports, "limits": limits})
    running.start()
    try:
        yield running
    finally:
        running.stop()
