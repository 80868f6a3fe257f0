"""The JavaScript library's driver in a page of a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

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
    """``await begin(url)``; orders are carried out one by one. To freeze it stops the processes that pages run in; the
    one that has their sockets goes on, as where a page was hidden for long."""

    def __init__(self, page: Page, renderers: Sequence[int]) -> None:
        self.lines: list[Line] = []
        self._page = page
        self._renderers = renderers
        self._orders: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
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
        for pid in self._renderers:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._renderers:
            os.kill(pid, signal.SIGCONT)

    async def stop(self) -> None:
        self.thaw()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._page.close()

    def _said(self, text: str) -> None:
        self.lines.append(Line(time.monotonic(), json.loads(text)))

    async def _work(self) -> None:
        while True:
            await self._page.evaluate("order => { window.order(order); }", await self._orders.get())


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
        driver = PageDriver(page, await self._renderers())
        try:
            await driver.begin(self._url)
            yield driver
        finally:
            await driver.stop()
            await context.close()

    async def _renderers(self) -> list[int]:
        devtools = await self._browser.new_browser_cdp_session()
        found = await devtools.send("SystemInfo.getProcessInfo")
        return [process["id"] for process in found["processInfo"] if process["type"] == "renderer"]


@contextlib.asynccontextmanager
async def pages() -> AsyncIterator[Pages]:
    with files() as url:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                yield Pages(browser, url)
            finally:
                await browser.close()
