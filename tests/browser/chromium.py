"""A browser with the console in it, and a service for it."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect
from tornado.httpclient import AsyncHTTPClient

from tests.support import Process, eventually, free_port

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Service:
    """A service on ports of its own; its console is at ``url``."""

    def __init__(self, start: Callable[..., Process], env: dict[str, str]) -> None:
        self.public, self.internal = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.internal}/"
        self._key = env.pop("key", None)
        self._start = start
        self._env = {
            "TIDEGATE_SERVER__PORT": str(self.public),
            "TIDEGATE_INTERNAL__PORT": str(self.internal),
            "TIDEGATE_SERVER__DRAIN_S": "0",
            **env,
        }
        if self._key:
            self._env["TIDEGATE_INTERNAL__API_KEYS"] = json.dumps([self._key])
        self.process: Process | None = None

    async def start(self) -> None:
        self.process = self._start(sys.executable, "-m", "tidegate", "serve", env=self._env)
        await self.process.port(self.internal)
        await self.process.port(self.public)

    async def stop(self) -> None:
        assert self.process is not None
        await self.process.stop()

    async def post(self, path: str, body: Any) -> Any:
        return await self._call("POST", path, body)

    async def put(self, path: str, body: Any) -> Any:
        return await self._call("PUT", path, body)

    async def _call(self, method: str, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        answer = await AsyncHTTPClient().fetch(self.url + path, method=method, headers=headers, body=json.dumps(body))
        return json.loads(answer.body)

    async def push(self, address: str, *data: Any) -> None:
        """Pushes each of ``data`` to ``clients/alice``, ``groups/news`` or ``all``, in order."""
        for each in data:
            await self.push_one(address, each)

    async def push_one(self, address: str, data: Any) -> Any:
        """Its position."""
        return await self.post(f"api/{address}/push", {"data": data})


class Console:
    """One page that shows the console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.rows = page.locator("#rows > li.message")
        self.missed = page.locator("#rows > li.missed")
        self.gaps = page.locator("#rows > li.gap")
        self.notes = page.locator("#rows > li.note")
        self.pill = page.locator("#pill")

    async def connect(self, button: str = "Connect") -> None:
        await self.page.get_by_role("button", name=button, exact=True).click()
        await self.online()

    async def online(self) -> None:
        await expect(self.pill).to_have_text("Online", timeout=15_000)

    async def cut(self) -> None:
        await self.page.get_by_role("button", name="Cut", exact=True).click()
        await expect(self.pill).to_have_text("Not connected")

    async def look(self, view: str) -> None:
        """Goes to a view, as its link is called: Try, Watch, Find, Trace, Compare."""
        await self.page.get_by_role("navigation").get_by_role("link", name=view).click()
        await expect(self.page.locator(f"#view-{view.lower()}")).to_be_visible()

    async def push(self, kind: str, name: str, data: str) -> None:
        """Through the push panel, as far as the click; the panel says what came of it."""
        await self.page.locator(f"#push-form input[value={kind}]").check(force=True)
        await self.page.locator("#push-name").fill(name)
        await self.page.locator("#push-data").fill(data)
        await self.page.locator("#push").click()

    async def shown(self, rows: Any = None) -> list[Any]:
        """The data of the rows, as JSON."""
        return [json.loads(text) for text in await (rows or self.rows).locator(".data").all_inner_texts()]

    async def shows(self, *data: Any) -> None:
        """Returns once exactly these messages are shown."""
        await eventually(lambda: self._is_shown(list(data)), 10)

    async def _is_shown(self, data: list[Any]) -> bool:
        return await self.shown() == data


class Chromium:
    """A browser with one profile, which outlives its pages. ``allow`` names the console errors that are meant."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._context: BrowserContext | None = None
        self._errors: list[str] = []
        self.allowed: list[str] = []

    async def open(self, service: Service) -> Console:
        return await self.open_at(service.url)

    async def open_at(self, url: str) -> Console:
        if self._context is None:
            self._context = await self._browser.new_context(viewport={"width": 1440, "height": 900})
            self._context.set_default_timeout(15_000)
        page = await self._context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        await page.goto(url)
        await expect(page.locator("#version")).not_to_be_empty()
        return Console(page)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._errors.append(message.text)

    def complaints(self) -> list[str]:
        return [error for error in self._errors if not any(re.search(allowed, error) for allowed in self.allowed)]


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Chromium]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        chromium = Chromium(browser)
        try:
            yield chromium
        finally:
            await browser.close()
    assert not (found := chromium.complaints()), found
