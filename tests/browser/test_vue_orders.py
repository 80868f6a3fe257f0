"""The Vue example on the library (examples/vue), built and in a real browser, with its own server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests import npm
from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.support import ROOT, Process, free_port

EXAMPLE = ROOT / "examples/vue"

pytestmark = pytest.mark.timeout(seconds=180)  # the first run installs packages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    npm.install(EXAMPLE)
    folder = tmp_path_factory.mktemp("vue") / "dist"
    command = [npm.program("npm"), "run", "--silent", "build", "--", "--outDir", str(folder), "--logLevel", "error"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Orders:
    def __init__(self, context: BrowserContext, url: str, server: str, service: Service) -> None:
        self.context = context
        self.url = url
        self.server = server
        self.service = service
        self.errors: list[str] = []

    async def open(self) -> Page:
        page = await self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        await page.goto(self.url)
        await expect(page.get_by_role("status")).to_have_text("live")
        return page

    async def advance(self, order: int) -> None:
        """Another page does it, or a colleague."""
        request = urllib.request.Request(f"{self.server}/orders/{order}/next", method="POST")
        with contextlib.suppress(urllib.error.HTTPError):
            await asyncio.to_thread(urllib.request.urlopen, request)


async def shows(page: Page, *states: str) -> None:
    await expect(page.locator("td:nth-child(2)")).to_have_text(list(states), timeout=15_000)


@pytest.fixture
def example(built: Path, start_process: Callable[..., Process]) -> Callable[[], Any]:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Orders]:
        service = Service(start_process, {})
        port = free_port()
        env = {"PORT": "0", "TIDEGATE_API": service.url.rstrip("/")}
        server = start_process(npm.program("node"), "server.js", env=env, cwd=EXAMPLE)
        line, _ = await asyncio.gather(server.line("^listening on "), service.start())
        server_url = line.removeprefix("listening on ")
        vite = EXAMPLE / "node_modules/vite/bin/vite.js"
        options = ["--host", "127.0.0.1", "--port", str(port), "--strictPort", "--outDir", built]
        env = {"TIDEGATE_URL": f"http://127.0.0.1:{service.public}", "SERVER_URL": server_url}
        preview = start_process(npm.program("node"), vite, "preview", *options, env=env, cwd=EXAMPLE)
        await preview.port(port)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                orders = Orders(await browser.new_context(), f"http://127.0.0.1:{port}/", server_url, service)
                yield orders
            finally:
                await browser.close()
        assert orders.errors == []

    return opened


async def test_what_one_page_changes_the_others_show(example) -> None:
    async with example() as orders:
        first = await orders.open()
        await shows(first, "new", "new", "new")
        await orders.advance(1018)
        await shows(first, "new", "packed", "new")
        second = await orders.open()
        await shows(second, "new", "packed", "new")
        await second.get_by_role("button", name="Next").first.click()
        for page in (first, second):
            await shows(page, "packed", "packed", "new")
        await orders.service.push("clients/alice", "for alice alone")
        await expect(first.locator(".note")).to_have_text("for alice alone")


@pytest.mark.slow
async def test_after_an_absence_of_the_gateway_the_page_equals_the_data(example) -> None:
    async with example() as orders:
        page = await orders.open()
        await shows(page, "new", "new", "new")
        await orders.service.stop()
        await expect(page.get_by_role("status")).to_have_text("connecting …")
        await orders.advance(1017)  # is changed, and cannot be pushed
        await orders.service.start()
        await shows(page, "packed", "new", "new")
        await orders.advance(1017)
        await shows(page, "shipped", "new", "new")
