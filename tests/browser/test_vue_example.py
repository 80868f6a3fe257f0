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
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import ConsoleMessage, Page, Route, WebSocket, WebSocketRoute, async_playwright, expect
from tornado.httpclient import AsyncHTTPClient

from tests import npm
from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.support import ROOT, Process, eventually, free_port
from tests.tokens import SECRET, make_token

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
def open_example(built: Path, start_process: StartProcess) -> Callable[..., Any]:
    @contextlib.asynccontextmanager
    async def example(
        *, before: Callable[[Page], Awaitable[None]] | None = None, query: str = "", **settings: str
    ) -> AsyncIterator[Example]:
        """``before`` the page is loaded something may be put into its way."""
        assert CHROMIUM.exists(), f"{CHROMIUM} is missing: install Debian's chromium (tools/system.sh)"
        service = Service(start_process, settings)
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
                if before is not None:
                    await before(page)
                await page.goto(example.url + query)
                yield example
            finally:
                await browser.close()
                wire.cut()
        assert example.errors == []

    return example


@pytest.mark.slow
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


async def test_after_its_token_has_ended_it_comes_back_with_a_new_one(open_example) -> None:
    settings = {"TIDEGATE_AUTH__MODE": "jwt", "TIDEGATE_AUTH__KEY": SECRET, "TIDEGATE_AUTH__LEEWAY_S": "0"}
    asked = 0

    async def routed(page: Page) -> None:
        async def give(route: Route) -> None:
            nonlocal asked
            asked += 1
            if asked == 2:
                await route.fulfill(status=503)  # the application is away for a moment
                return
            exp = int(time.time()) + (2 if asked == 1 else 3600)
            await route.fulfill(body=make_token(exp=exp, groups=["news"]) + "\n")

        await page.route(lambda url: urlsplit(url).path == "/token", give)

    async with open_example(before=routed, query="?tokens=/token", **settings) as example:
        await example.connect()
        await example.service.push("clients/alice", 1)
        await example.shows(1)
        await eventually(lambda: asked == 3, 15)
        await example.connected()
        await example.service.push("groups/news", 2)
        await expect(example.messages.locator("code").last).to_have_text("2")
        assert (asked, len(example.sockets)) == (3, 2)
        assert "client=" not in example.sockets[-1].url
        example.errors = [error for error in example.errors if "503" not in error]


# With a gateway that says what the test says


class Gateway:
    """What comes instead of the service; the last WebSocket of the page."""

    def __init__(self) -> None:
        self.opened = 0
        self.socket: WebSocketRoute

    async def stand_in(self, page: Page) -> None:
        await page.route_web_socket("**/ws-notifications/**", self.take)

    def take(self, socket: WebSocketRoute) -> None:
        self.opened += 1
        self.socket = socket
        socket.on_message(lambda text: socket.send("pong") if text == "ping" else None)
        self.say(type="welcome", connection="n-1", streams={"client:alice": {**at("a", 10), "top": 12, "missed": 2}})

    def say(self, **event: Any) -> None:
        self.socket.send(json.dumps(event))

    def message(self, epoch: str, offset: int) -> None:
        self.say(type="message", stream="client:alice", **at(epoch, offset), time=0, data=offset)


def at(epoch: str, offset: int) -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


async def test_what_comes_in_another_epoch_is_not_missed_and_is_where_it_goes_on(open_example) -> None:
    gateway = Gateway()
    async with open_example(before=gateway.stand_in) as example:
        await example.connect()
        gateway.message("a", 11)
        await example.shows(11, missed=1)
        gateway.say(type="gap", stream="client:alice", epoch="b", **{"from": None}, to=None, reason="reset")
        stored = "JSON.parse(localStorage.getItem('tidegate.cursor.alice.news'))"
        await expect(example.page.locator("li.gap")).to_have_count(1)
        assert await example.page.evaluate(stored) == {"client:alice": ["b", 0]}
        gateway.message("b", 1)
        await expect(example.messages.locator(".badge")).to_have_count(1)
        await expect(example.messages.locator("code")).to_have_text(["11", "1"])
        assert await example.page.evaluate(stored) == {"client:alice": ["b", 1]}


async def test_an_overloaded_gateway_is_left_alone_for_half_a_minute(open_example) -> None:
    gateway = Gateway()
    async with open_example(before=gateway.stand_in) as example:
        await example.page.clock.install()
        await example.connect()
        await gateway.socket.close(code=1013, reason="try again later")
        await expect(example.status).to_have_text("reconnecting")
        await example.page.clock.run_for(29_000)
        assert gateway.opened == 1
        await example.page.clock.run_for(32_000)
        for _ in range(32):
            if gateway.opened == 1:
                await example.page.clock.run_for(1_000)
        await example.connected()
