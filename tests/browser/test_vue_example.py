"""The Vue example, built and in a real browser: what is pushed appears, and after a cut what was missed.

A page that logs an error, or leaves an exception or a rejection unhandled, fails its test."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Page, WebSocket, async_playwright, expect
from tornado.httpclient import AsyncHTTPClient

from tests import npm
from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.support import ROOT, Process, eventually, free_port

EXAMPLE = ROOT / "examples" / "vue-heartbeat"

pytestmark = pytest.mark.timeout(seconds=180)  # the first run installs packages

StartProcess = Callable[..., Process]


class Wire:
    """A TCP relay to the service that can be cut without a close frame, like a network."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Ends all connections, and refuses new ones until ``mend``."""
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


class Example:
    """The page, in front of a service that it reaches through a wire."""

    def __init__(self, page: Page, url: str, service: Service, wire: Wire) -> None:
        self.page = page
        self.url = url
        self.service = service
        self.wire = wire
        self.sockets: list[WebSocket] = []
        self.pinged_at: list[float] = []
        self.errors: list[str] = []
        self.status = page.get_by_role("status")
        self.banner = page.get_by_role("alert")
        self.messages = page.locator("li.message")
        page.on("websocket", self._opened)
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _opened(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framesent", lambda frame: self.pinged_at.append(time.monotonic()) if frame == "ping" else None)

    def _logged(self, message: ConsoleMessage) -> None:
        # Chromium says so itself, whatever the page does, when a WebSocket can't be opened or is cut.
        if message.type == "error" and not message.text.startswith("WebSocket connection to"):
            self.errors.append(message.text)

    async def connect(self) -> None:
        await self.page.get_by_role("button", name="Connect", exact=True).click()
        await self.connected()

    async def connected(self) -> None:
        await expect(self.status).to_have_text("connected", timeout=15_000)

    async def shows(self, *data: Any, missed: int = 0) -> None:
        """Returns once exactly these messages are shown, in this order, the last ``missed`` of them marked."""
        texts = [json.dumps(each, separators=(",", ":")) for each in data]
        await expect(self.messages.locator("code")).to_have_text(texts, timeout=15_000)
        marks = [await row.locator(".badge").count() for row in await self.messages.all()]
        assert marks == [0] * (len(data) - missed) + [1] * missed

    def last_cursor(self) -> dict[str, Any]:
        """What the newest connection asked to continue from."""
        (token,) = parse_qs(urlsplit(self.sockets[-1].url).query)["cursor"]
        positions: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return positions


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built example; ``npm ci`` and a build from what is checked in."""
    npm.install(EXAMPLE)
    folder = tmp_path_factory.mktemp("vue") / "dist"
    options = ["--outDir", str(folder), "--logLevel", "error"]
    command = [npm.program("npm"), "run", "--silent", "build", "--", *options]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def open_example(built: Path, start_process: StartProcess) -> Callable[[], Any]:
    @contextlib.asynccontextmanager
    async def example() -> AsyncIterator[Example]:
        assert CHROMIUM.exists(), f"{CHROMIUM} is missing: install Debian's chromium (tools/system.sh)"
        service = Service(start_process, {})
        wire = Wire(service.public)
        vite = EXAMPLE / "node_modules" / "vite" / "bin" / "vite.js"
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--strictPort", "--outDir", built]
        env = {"TIDEGATE_URL": f"http://127.0.0.1:{wire.port}"}
        preview = start_process(npm.program("node"), vite, "preview", *options, env=env, cwd=EXAMPLE)
        await asyncio.gather(service.start(), wire.mend(), preview.port(port))
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                page = await browser.new_page(viewport={"width": 860, "height": 620})
                example = Example(page, f"http://127.0.0.1:{port}/", service, wire)
                await page.goto(example.url)
                yield example
            finally:
                await browser.close()
                wire.cut()
        assert example.errors == []

    return example


async def test_pushes_appear_and_the_delay_is_measured_every_5_s_on_a_busy_stream(open_example) -> None:
    async with open_example() as example:
        await example.connect()
        await expect(example.page.locator(".delay")).to_have_text(re.compile(r"^\d{1,3} ms$"))

        await example.service.push("clients/alice", {"n": 1})
        await example.service.push("groups/news", {"n": 2})
        await example.service.push("all", "to all")
        await example.shows({"n": 1}, {"n": 2}, "to all")

        async def pinged_again() -> bool:
            await example.service.push("groups/news", {"busy": True})
            return len(example.pinged_at) >= 2

        await eventually(pinged_again, 10)
        assert 4.5 < example.pinged_at[1] - example.pinged_at[0] < 7


async def test_what_was_missed_during_a_cut_appears_once_in_order_and_marked(open_example) -> None:
    async with open_example() as example:
        await example.connect()
        await example.service.push("clients/alice", 1, 2)
        await example.shows(1, 2)

        example.wire.cut()
        await expect(example.banner).to_contain_text("The connection was lost")
        await expect(example.status).to_have_text("reconnecting")
        await example.service.push("clients/alice", 3, 4, 5)
        await example.wire.mend()
        await example.connected()
        await expect(example.banner).to_have_count(0)
        await example.shows(1, 2, 3, 4, 5, missed=3)
        assert example.last_cursor()["client:alice"][1] == 2

        # A second time: the address has the cursor of now, not that of the first time.
        example.wire.cut()
        await expect(example.status).to_have_text("reconnecting")
        await example.service.push("clients/alice", 6)
        await example.wire.mend()
        await example.shows(1, 2, 3, 4, 5, 6, missed=4)
        assert example.last_cursor()["client:alice"][1] == 5


async def test_after_4501_it_stays_away_and_a_page_opened_anew_gets_what_was_missed(open_example) -> None:
    async with open_example() as example:
        await example.page.clock.install()
        await example.connect()
        await example.service.push("groups/news", "seen")
        await example.shows("seen")

        await AsyncHTTPClient().fetch(f"{example.service.url}api/clients/alice", method="DELETE")
        await expect(example.banner).to_have_text(
            "The gateway ended the connection: disconnected by the application (4501)."
        )
        await expect(example.status).to_have_text("ended")
        await example.service.push("groups/news", "missed", "missed too")
        await example.page.clock.run_for(120_000)

        await example.page.goto(example.url)
        await example.connect()
        await example.shows("missed", "missed too", missed=2)
        assert len(example.sockets) == 2


async def test_a_restarted_service_is_found_again_and_what_its_memory_lost_is_announced(open_example) -> None:
    async with open_example() as example:
        await example.connect()
        await example.service.push("clients/alice", "before")
        await example.shows("before")

        await example.service.stop()
        await expect(example.status).to_have_text("reconnecting")
        await example.service.start()
        await example.connected()
        await expect(example.page.locator("li.gap").first).to_contain_text("The history began anew")
        await example.service.push("clients/alice", "after")
        await example.shows("before", "after")
