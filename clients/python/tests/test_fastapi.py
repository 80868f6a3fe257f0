"""A FastAPI application that pushes: one publisher for all requests, closed with the application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from tests.publishers import Between
from tidegate_client import AsyncPublisher, Publisher
from tidegate_client.fastapi import PublisherDependency
from tidegate_client.publisher.fake import AsyncFakePublisher
from tidegate_client.pytest import gateway


def application(tidegate: PublisherDependency, **options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.post("/orders/{number}")
    async def order(number: int, publisher: Annotated[AsyncPublisher, Depends(tidegate)]) -> dict[str, int | None]:
        position = await publisher.push(group="orders", data={"order": number})
        return {"offset": position.offset if position else None}

    return app


async def post(app: FastAPI, number: int) -> Any:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        return (await client.post(f"/orders/{number}")).raise_for_status().json()


@pytest.mark.parametrize("how", ["its own", "inside another", "none"])
def test_routes_push_and_the_connection_is_closed_with_the_application(how: str) -> None:
    with gateway() as running, Between(int(running.api_url.rpartition(":")[2])) as between:
        tidegate = PublisherDependency(f"http://127.0.0.1:{between.port}")

        @contextlib.asynccontextmanager
        async def another(app: FastAPI) -> AsyncIterator[None]:
            async with tidegate.lifespan(app):
                yield

        lifespan = {"its own": tidegate.lifespan, "inside another": another, "none": None}[how]
        app = application(tidegate, lifespan=lifespan)
        assert asyncio.run(post(app, 1)) == {"offset": 1}
        assert asyncio.run(post(app, 2)) == {"offset": 2}
        with Publisher(running.api_url) as asking:
            assert [found.data["order"] for found in asking.history(group="orders").messages] == [1, 2]


async def test_tests_put_a_fake_in_its_place() -> None:
    tidegate, fake = PublisherDependency("http://127.0.0.1:9"), AsyncFakePublisher()
    app = application(tidegate)
    app.dependency_overrides[tidegate] = lambda: fake
    assert await post(app, 7) == {"offset": 1}
    assert fake.gateway.to("group:orders") == [{"order": 7}]
