"""The JavaScript library's driver in a page of a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.async_api import Browser, CDPSession, Page, async_playwright

from tests.browser.chromium import ARGUMENTS, CHROMIUM
from tests.clients.driver import Line
from tests.clients.libraries import Library
from tests.support import ROOT, eventually

_PAGE = "/tests/clients/driver.html"

CHROMIUM_PAGE = Library("chromium", ROOT / _PAGE[1:], frozenset({"process", "wake"}))


_THROTTLED = """
const [every, later, again] = [%d, window.setTimeout, window.setInterval];
const whole = (ms) => Math.ceil((Date.now() + (ms || 0)) / every) * every - Date.now();
window.setTimeout = (work, ms, ...more) => later(work, whole(ms), ...more);
window.setInterval = (work, ms, ...more) => again(work, Math.ceil(ms / every) * every, ...more);
"""


class PageDriver:
    """``await begin(url)``; orders are carried out one by one. To freeze it is what a browser does to a page that
    was hidden for long: nothing of it runs, and its sockets stay."""

    def __init__(self, page: Page, devtools: CDPSession) -> None:
        self.lines: list[Line] = []
        self._page = page
        self._devtools = devtools
        self._orders: asyncio.Queue[Mapping[str, Any] | str] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    async def begin(self, url: str) -> None:
        await self._page.expose_function("say", self._said)
        await self._page.goto(url)
        await eventually(lambda: self.lines, 15)
        assert self.lines.pop(0).said == {"ready": True}
        self._worker = asyncio.create_task(self._work())  # noqa: TID251

    def order(self, order: Mapping[str, Any]) -> None:
        self._orders.put_nowait(order)

    def freeze(self) -> None:
        self._orders.put_nowait("frozen")

    def thaw(self) -> None:
        self._orders.put_nowait("active")

    async def stop(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._page.close()

    def _said(self, text: str) -> None:
        self.lines.append(Line(time.monotonic(), json.loads(text)))

    async def _work(self) -> None:
        while True:
            order = await self._orders.get()
            if isinstance(order, str):
                await self._devtools.send("Page.setWebLifecycleState", {"state": order})
            else:
                await self._page.evaluate("order => { window.order(order); }", order)


@contextlib.contextmanager
def files() -> Iterator[str]:
    """The project's files over HTTP; the address of the driver's page."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    Quiet.extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(ROOT)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{_PAGE}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Pages:
    """Each has a profile of its own."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.origin = url.removesuffix(_PAGE)
        self._browser = browser
        self._url = url

    @contextlib.asynccontextmanager
    async def driver(self, *, slowed: float = 1, timers_s: float = 0) -> AsyncIterator[PageDriver]:
        """``slowed``: so many times slower than this machine is. ``timers_s``: timers come only at each whole so many
        seconds, as in a page that has been hidden for long (there once a minute)."""
        context = await self._browser.new_context()
        page = await context.new_page()
        if timers_s:
            await page.add_init_script(_THROTTLED % (timers_s * 1000))
        devtools = await context.new_cdp_session(page)
        await devtools.send("Emulation.setCPUThrottlingRate", {"rate": slowed})
        driver = PageDriver(page, devtools)
        try:
            await driver.begin(self._url)
            yield driver
        finally:
            await driver.stop()
            await context.close()


@contextlib.asynccontextmanager
async def pages() -> AsyncIterator[Pages]:
    with files() as url:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                yield Pages(browser, url)
            finally:
                await browser.close()
