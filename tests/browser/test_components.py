"""React hooks and Vue composables (clients/js/src/react.js, vue.js): real components in a real browser, a real gateway.

Both pages are the same: two lists of one group, one of which can be taken away, two sums, and data with its changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests import npm
from tests.browser.pages import Gateway, pages
from tests.support import ROOT, Process, eventually, free_port

FOLDER = Path(__file__).parent / "components"
LIBRARY = ROOT / "clients/js/src"

pytestmark = pytest.mark.timeout(seconds=180)  # the first run installs packages


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``react.html`` and ``vue.html``."""
    modules = npm.install(FOLDER)
    folder = tmp_path_factory.mktemp("components")
    aliases = [f"--alias:tidegate-client/{name}={LIBRARY}/{name}.js" for name in ("react", "vue")]
    flags = {"process.env.NODE_ENV": '"development"', "__VUE_OPTIONS_API__": "false", "__VUE_PROD_DEVTOOLS__": "false"}
    flags["__VUE_PROD_HYDRATION_MISMATCH_DETAILS__"] = "false"
    for entry in ("react.jsx", "vue.js"):
        name = Path(entry).stem
        options = ["--bundle", "--format=esm", "--jsx=automatic", *(f"--define:{key}={flags[key]}" for key in flags)]
        command = [str(modules / ".bin/esbuild"), entry, *options, f"--outfile={folder / name}.js"]
        command += [*aliases, f"--alias:tidegate-client={LIBRARY}/index.js", "--log-level=warning"]
        # The library's modules find react and vue, which its users have, here.
        done = subprocess.run(
            command, cwd=FOLDER, env=os.environ | {"NODE_PATH": str(modules)}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        script = f'<script type="module" src="{name}.js"></script>'
        (folder / f"{name}.html").write_text(f'<!doctype html><link rel="icon" href="data:,">{script}<body></body>')
    return folder


class Rows:
    """The data of a server, which changes it and then pushes."""

    def __init__(self, gateway: Gateway) -> None:
        self.rows: dict[str, Any] = {}
        self.loads = 0
        self.fails = 0
        self._gateway = gateway

    async def change(self, key: str, value: Any) -> None:
        self.rows[key] = value
        await self._gateway.push("groups/rows", {"key": key, "value": value})

    async def load(self) -> Any:
        self.loads += 1
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the server is away")
        return {"data": dict(self.rows)}


class App:
    def __init__(self, page: Page, gateway: Gateway, rows: Rows) -> None:
        self.page = page
        self.gateway = gateway
        self.rows = rows
        self.sockets = 0
        self.state = page.locator("#state")
        self.sums = page.locator("#sum")
        page.on("websocket", self._opened)

    def _opened(self, _: Any) -> None:
        self.sockets += 1

    async def lists(self, *data: Any, of: str = "#first") -> None:
        await expect(self.page.locator(f"{of} li")).to_have_text([json.dumps(each) for each in data])

    async def shows(self, **rows: Any) -> None:
        await expect(self.page.locator("#rows")).to_have_text(json.dumps(rows, separators=(",", ":")))


@pytest.fixture(params=["react", "vue"])
def app(request: pytest.FixtureRequest, built: Path, start_process: Callable[..., Process]) -> Callable[[], Any]:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[App]:
        gateway = Gateway(start_process, free_port(), {"secret": {"join": "nobody"}})
        await gateway.start()
        async with pages(gateway.pages, built) as context:
            page = await context.new_page()
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda line: errors.append(line.text) if line.type in ("error", "warning") else None)
            rows = Rows(gateway)
            await page.expose_function("load", rows.load)
            await page.goto(f"http://127.0.0.1:{gateway.pages}/app/{request.param}.html?url={gateway.address}")
            app = App(page, gateway, rows)
            await page.evaluate("window.up()")
            yield app
        assert [error for error in errors if "WebSocket connection to" not in error] == []

    return opened


async def test_a_page_has_one_connection_however_often_its_components_are_put_up(app) -> None:
    async with app() as page:
        await expect(page.state).to_have_text("connected")
        await expect(page.sums.nth(1)).to_have_text("0 true null")
        await expect(page.sums.nth(0)).to_have_text("0 false not_allowed")
        assert page.sockets == 1, "StrictMode's first client was never used"
        for number, sum in ((1, 1), (2, 3), (3, 6), (4, 10)):  # its handler knows the sum that was last rendered
            await page.gateway.push("groups/news", number)
            await expect(page.sums.nth(1)).to_have_text(f"{sum} true null")
        await page.lists(2, 3, 4)
        await page.lists(2, 3, 4, of="#second")

        await page.page.evaluate("window.down()")
        await eventually(lambda: is_gone(page.gateway), 5)
        await page.gateway.push("groups/news", 5)
        await page.page.evaluate("window.up()")
        await expect(page.sums.nth(1)).to_have_text("0 true null")
        await page.gateway.push("groups/news", 6)
        await page.lists(6)
        assert (page.sockets, await page.gateway.connections()) == (2, 1)


async def is_gone(gateway: Gateway) -> bool:
    return await gateway.connections() == 0


@pytest.mark.slow
async def test_a_group_is_left_with_its_last_component_and_another_one_joined(app) -> None:
    async with app() as page:
        await expect(page.sums.nth(1)).to_have_text("0 true null")
        await page.page.locator("#less").click()
        await page.gateway.push("groups/news", 1)
        await page.lists(1)
        await page.page.locator("#chat").click()
        await expect(page.sums.nth(1)).to_have_text(r"1 true null")
        await page.lists()
        await page.gateway.push("groups/news", 2)
        await page.gateway.push("groups/chat", 3)
        await page.lists(3)
        await expect(page.sums.nth(1)).to_have_text("4 true null")
        assert page.sockets == 1


@pytest.mark.slow
async def test_data_is_loaded_then_changed_and_loaded_again_after_a_gap(app) -> None:
    async with app() as page:
        await expect(page.state).to_have_text("connected")
        await page.shows()
        await page.rows.change("a", 1)
        await page.shows(a=1)
        before = page.rows.loads
        await page.gateway.stop()
        await expect(page.state).to_have_text("connecting")
        page.rows.rows["b"] = 2  # nobody pushes this
        page.rows.fails = 2
        await page.gateway.start()
        await expect(page.state).to_have_text("connected", timeout=15_000)
        await page.shows(a=1, b=2)
        assert page.rows.loads >= before + 3
        await page.rows.change("a", 3)
        await page.shows(a=3, b=2)


@pytest.mark.slow
def test_the_types_are_those_that_an_application_needs() -> None:
    npm.install(FOLDER)
    done = subprocess.run([str(FOLDER / "node_modules/.bin/tsc")], cwd=FOLDER, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
