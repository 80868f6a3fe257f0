"""The library in real Chromium: a worker, a page that was frozen, one that was in the back/forward cache, one that was
offline. The shared scenarios in a page are in tests/clients/test_chromium.py."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.clients.page import files
from tests.support import Process, eventually


@contextlib.asynccontextmanager
async def page_of(start_process: Callable[..., Process], name: str = "page") -> AsyncIterator[tuple[Page, Service]]:
    """One of ./browser, once it is connected, and its gateway."""
    with files() as url:
        origin = url.partition("/tests/")[0]
        service = Service(start_process, {"TIDEGATE_ORIGINS": json.dumps([origin])})
        await service.start()
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
            )
            page = await browser.new_page()
            page.set_default_timeout(15_000)
            wrong: list[str] = []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            gateway = f"ws://127.0.0.1:{service.public}/ws-notifications/"
            await page.goto(f"{origin}/clients/js/tests/browser/{name}.html?gateway={gateway}")
            await page.wait_for_function("window.started")
            try:
                yield page, service
                assert not wrong
            finally:
                await browser.close()


async def heard(page: Page, *data: Any) -> None:
    try:
        await eventually(lambda: _heard(page, list(data)), 10)
    except AssertionError:
        raise AssertionError(
            await page.evaluate("JSON.stringify([heard, tidegate.state, tidegate.reason, pings])")
        ) from None


async def _heard(page: Page, data: list[Any]) -> bool:
    return bool(await page.evaluate("JSON.stringify(window.heard)") == json.dumps(data).replace(" ", ""))


@pytest.mark.slow
async def test_in_a_worker(start_process: Callable[..., Process]) -> None:
    async with page_of(start_process, "worker") as (page, service):
        await service.push("groups/news", 1, 2)
        await heard(page, 1, 2)


async def test_a_page_that_went_back_in_its_history_goes_on_where_it_was(start_process: Callable[..., Process]) -> None:
    async with page_of(start_process) as (page, service):
        await service.push("groups/news", 1)
        await heard(page, 1)
        await page.goto("data:text/html,elsewhere")
        await service.push("groups/news", 2, 3)
        await page.go_back(wait_until="commit")
        await page.wait_for_function("window.started")
        assert await page.evaluate("window.shown") == [False, True], "it was loaded anew"
        await heard(page, 1, 2, 3)


@pytest.mark.slow
async def test_a_page_that_is_loaded_again_goes_on_where_it_was(start_process: Callable[..., Process]) -> None:
    async with page_of(start_process) as (page, service):
        await service.push("groups/news", 1)
        await heard(page, 1)
        await eventually(lambda: page.evaluate("sessionStorage.tidegate?.includes(',1]') ?? false"), 10)
        await page.reload()
        await service.push("groups/news", 2, 3)
        await heard(page, 2, 3)


@pytest.mark.slow
async def test_a_tab_and_its_copy_have_each_a_cursor_of_its_own(start_process: Callable[..., Process]) -> None:
    """What a page opens begins with a copy of its sessionStorage."""
    async with page_of(start_process) as (page, service):
        await service.push("groups/news", 1)
        await heard(page, 1)
        await eventually(lambda: page.evaluate("sessionStorage.tidegate?.includes(',1]') ?? false"), 10)
        async with page.expect_popup() as opened:
            await page.evaluate("void open(location)")
        copy = await opened.value
        await copy.wait_for_function("window.started")
        address = page.url
        await page.goto("data:text/html,elsewhere")
        await service.push("groups/news", 2, 3)
        await heard(copy, 2, 3)  # which moves the cursor of the copy alone
        await page.goto(address)
        await heard(page, 2, 3)


@pytest.mark.slow
async def test_what_says_that_a_page_is_back_asks_the_gateway_at_once(start_process: Callable[..., Process]) -> None:
    async with page_of(start_process) as (page, _):

        async def asked() -> bool:
            return bool(await page.evaluate("window.pings > window.before"))

        for event in (
            "document.dispatchEvent(new Event('visibilitychange'))",  # it is visible
            "document.dispatchEvent(new Event('resume'))",
            "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))",
        ):
            await page.evaluate("window.before = window.pings")
            await page.evaluate(event)
            assert await asked(), event
        await page.evaluate("window.before = window.pings")
        await page.context.set_offline(True)
        await page.context.set_offline(False)
        await eventually(asked, 10)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["disconnect", "close"])
async def test_a_page_that_ends_it_listens_to_nothing_any_more(
    start_process: Callable[..., Process], order: str
) -> None:
    async with page_of(start_process) as (page, _):
        await page.evaluate(f"window.tidegate.{order}()")
        before = await page.evaluate("window.pings")
        await page.evaluate("dispatchEvent(new Event('online')); document.dispatchEvent(new Event('resume'))")
        assert await page.evaluate("window.pings") == before
        assert await page.evaluate("window.tidegate.state") != "connected"
