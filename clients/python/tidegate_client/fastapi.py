"""Tidegate in a FastAPI application: one AsyncPublisher, opened and closed with it.

    tidegate = PublisherDependency("http://127.0.0.1:8001", api_key=...)
    app = FastAPI(lifespan=tidegate.lifespan)

    @app.post("/orders")
    async def order(publisher: Annotated[AsyncPublisher, Depends(tidegate)]) -> None:
        await publisher.push(client="alice", data={"order": 1017})

Tests put another one in its place: ``app.dependency_overrides[tidegate] = lambda: AsyncFakePublisher()``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tidegate_client.publisher import AsyncPublisher


class PublisherDependency:
    """Takes the options of ``AsyncPublisher``. Without ``lifespan`` it works too; connections are closed with the
    loop."""

    def __init__(self, url: str, **options: Any) -> None:
        self.publisher = AsyncPublisher(url, **options)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """For ``FastAPI(lifespan=…)``; inside one of your own: ``async with tidegate.lifespan(app)``."""
        async with self.publisher:
            yield

    async def __call__(self) -> AsyncPublisher:
        return self.publisher
