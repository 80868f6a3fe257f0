"""Pages of a browser that use the JavaScript library, served from its sources; several are tabs of one profile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, WebSocket, async_playwright
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler, StaticFileHandler

from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.support import ROOT, Process, eventually

SOURCES = ROOT / "clients/js/src"


class Gateway(Service):
    """A service that pages of the port ``pages`` may connect to."""

    def __init__(self, start: Callable[..., Process], pages: int, groups: dict[str, Any]) -> None:
        origins = [f"http://127.0.0.1:{pages}"]
        super().__init__(start, {"TIDEGATE_ORIGINS": json.dumps(origins), "TIDEGATE_GROUPS": json.dumps(groups)})
        self.pages = pages
        self.address = f"ws://127.0.0.1:{self.public}/ws-notifications/"

    async def connections(self) -> int:
        answer = await AsyncHTTPClient().fetch(f"{self.url}api/clients/alice")
        return len(json.loads(answer.body)["connections"])


class Tab:
    """One page with a client. ``sockets``: the real WebSockets that it has opened."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.sockets: list[WebSocket] = []
        page.on("websocket", lambda socket: self.sockets.append(socket))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @property
    def leads(self) -> bool:
        return any(not socket.is_closed() for socket in self.sockets)

    async def heard(self, stream: str = "group:news") -> list[Any]:
        found: list[Any] = await self.page.evaluate("(stream) => window.heard[stream] ?? []", stream)
        return found

    async def hears(self, expected: list[Any], stream: str = "group:news", timeout_s: float = 10) -> None:
        async def is_so() -> bool:
            return bool(await self.heard(stream) == expected)

        try:
            await eventually(is_so, timeout_s)
        except AssertionError:
            raise AssertionError(f"{await self.heard(stream)} instead of {expected}") from None

    async def states(self) -> list[str]:
        found: list[str] = await self.page.evaluate("window.states")
        return found


class Tabs:
    def __init__(self, context: BrowserContext, url: str, page: str) -> None:
        self.context = context
        self.url = url
        self.page = page
        self.tabs: list[Tab] = []

    async def open(self, groups: str = "news", **options: Any) -> Tab:
        """A new page, with a client that is ready."""
        tab = Tab(await self.context.new_page())
        self.tabs.append(tab)
        await tab.page.goto(self.page)
        await self.connect(tab, groups, **options)
        return tab

    async def connect(self, tab: Tab, groups: str = "news", **options: Any) -> None:
        await tab.page.wait_for_function("Boolean(window.begin)")
        await tab.page.evaluate("(given) => window.begin(given)", [self.url, groups, options])

    def leader(self) -> Tab:
        (tab,) = [tab for tab in self.tabs if not tab.page.is_closed() and tab.leads]
        return tab


class _Start(RequestHandler):
    def get(self) -> None:
        self.finish(
            '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
            '<script type="module" src="/tab.js"></script>'
        )


@contextlib.asynccontextmanager
async def pages(port: int, app: Path | None = None) -> AsyncIterator[BrowserContext]:
    """A profile of a browser. At ``http://127.0.0.1:<port>/`` is what its pages are made of, ``app`` at ``/app/``."""
    files: list[Any] = [
        ("/", _Start),
        ("/src/(.*)", StaticFileHandler, {"path": SOURCES}),
        ("/(tab.js)", StaticFileHandler, {"path": Path(__file__).parent}),
    ]
    if app:
        files.append(("/app/(.*)", StaticFileHandler, {"path": app}))
    server = Application(files).listen(port, "127.0.0.1")
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                context = await browser.new_context()
                context.set_default_timeout(15_000)
                yield context
            finally:
                await browser.close()
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def tabs(gateway: Gateway) -> AsyncIterator[Tabs]:
    async with pages(gateway.pages) as context:
        opened = Tabs(context, gateway.address, f"http://127.0.0.1:{gateway.pages}/")
        yield opened
    assert [error for tab in opened.tabs for error in tab.errors] == []
