"""What docs/clients.md and the libraries' READMEs show: each block with a file's name is run, against a real gateway.
The ports are the test's own, all else is what the reader is given."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, async_playwright, expect
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

from tests import npm
from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.clients.documents import GUIDE, blocks, lay
from tests.clients.libraries import node
from tests.support import ROOT, Logs, Process, eventually, free_port

PYTHON = {"PYTHONPATH": os.pathsep.join([str(ROOT / "clients/python"), str(ROOT / "service")])}
LIBRARY = ROOT / "clients/js"
COMPONENTS = ROOT / "tests/browser/components"

RUN = {
    "node": {"first.mjs", "closing.mjs", "asking.mjs"},
    "python": {"first.py", "resume.py", "push.py", "pushing.py"},
    "tests": {"test_shop.py", "news.test.mjs"},
    "pages": {"first.html", "tab.js", "shop.py", "orders.html", "orders.js"},
    "components": {"Orders.jsx"},
    "django": {"views.py"},
}

Start = Callable[..., Process]


def test_every_block_is_run() -> None:
    named = [name for _, name, _ in blocks(GUIDE) if name]
    assert sorted(named) == sorted(set.union(*RUN.values()))
    assert {language for language, name, _ in blocks(GUIDE) if not name} == {"", "dart"}


@pytest.mark.parametrize("library", ["js", "python"])
def test_readmes_show_what_can_be_read(library: str) -> None:
    """Blocks with a file's name are the guide's; what Python ones import is there."""
    import tidegate_client

    guide = {name: text for _, name, text in blocks(GUIDE) if name}
    shown = blocks(ROOT / f"clients/{library}/README.md")
    assert any(name for _, name, _ in shown)
    for language, name, text in shown:
        if name:
            assert text == guide[name]
        if language == "python":
            tree = ast.parse(text.replace("…", "..."))
            for statement in ast.walk(tree):
                if isinstance(statement, ast.ImportFrom) and statement.module == "tidegate_client":
                    for alias in statement.names:
                        assert hasattr(tidegate_client, alias.name), alias.name


async def started(start_process: Start, **env: str) -> Service:
    service = Service(start_process, {f"TIDEGATE_{name}": value for name, value in env.items()})
    await service.start()
    return service


def with_library(folder: Path) -> Path:
    """As ``npm install`` leaves it; that the packed file brings the same, clients/js/tests/test_library.py tells."""
    (folder / "node_modules").mkdir()
    (folder / "node_modules/tidegate-client").symlink_to(LIBRARY)
    return folder


# Node


async def test_node(start_process: Start, tmp_path: Path) -> None:
    gateway = await started(start_process, GROUPS=json.dumps({"chat": {"publish": "members", "presence": "members"}}))
    folder = with_library(lay(tmp_path, gateway, *RUN["node"]))
    first, closing, asking = (
        start_process(node(), "--preserve-symlinks", folder / name, cwd=folder)
        for name in ("first.mjs", "closing.mjs", "asking.mjs")
    )
    await first.line("^listening$")
    await gateway.push("groups/news", {"title": "Tide turns at 14:05"})
    await first.line("^1 { title: 'Tide turns at 14:05' }$")

    await closing.line("^connected")
    async with httpx.AsyncClient() as http:
        assert (await http.delete(f"{gateway.url}api/clients/carol")).is_success
    await closing.line("^the shop is closed$")
    assert closing.lines()[-2] == "closed disconnected 4501"

    assert await asking.ended() == 0, asking
    assert asking.lines()[0] == "dave hello"
    assert asking.lines()[1] == "1 [ 'dave' ]"
    assert len(asking.lines()) == 3, "the code of a call that nobody answers"


# Python


async def test_python(start_process: Start, tmp_path: Path) -> None:
    gateway = await started(start_process)
    folder = lay(tmp_path, gateway, *RUN["python"])

    def start(name: str) -> Process:
        return start_process(sys.executable, folder / name, cwd=folder, env=PYTHON)

    first, resume = start("first.py"), start("resume.py")
    await resume.line("^ready$")
    await eventually(lambda: is_joined(gateway, "news"))
    push = start("push.py")
    assert await push.ended() == 0, push
    assert push.lines()[0].startswith("Position(stream='group:news', epoch=")
    await first.line("^1 {'title': 'Tide turns at 14:05'}$")

    await gateway.push("groups/jobs", "a")
    await gateway.push("clients/bob", "b")
    await resume.line("^1 a live$")
    await resume.line("^for me alone b$")
    await eventually(lambda: stored_offset(folder / "positions", "group:jobs") == 1)
    resume.kill()
    await gateway.push("groups/jobs", "c")
    again = start("resume.py")
    await again.line("^2 c missed$")
    async with httpx.AsyncClient() as http:
        assert (await http.delete(f"{gateway.url}api/clients/bob")).is_success
    await again.line("^disconnected 4501$")
    assert await again.ended() == 0

    pushing = start("pushing.py")
    assert await pushing.ended() == 0, pushing
    [line] = pushing.lines()
    assert line.endswith("{'title': 'Tide turns at 14:05'}")


def stored_offset(folder: Path, stream: str) -> int | None:
    """None before anything was stored."""
    file = folder / "tidegate.json"
    positions = json.loads(file.read_text())["positions"] if file.exists() else {}
    return positions[stream][1] if stream in positions else None


async def is_joined(gateway: Service, group: str) -> bool:
    async with httpx.AsyncClient() as http:
        return bool((await http.get(f"{gateway.url}api/groups/{group}")).json()["clients"])


# Tests of applications


@pytest.mark.slow
async def test_tests(start_process: Start, tmp_path: Path) -> None:
    gateway = await started(start_process)
    folder = with_library(lay(tmp_path, gateway, *RUN["tests"]))
    plugin = ["-p", "tidegate_client.pytest", "-p", "no:cacheprovider"]
    environment = PYTHON | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    pytest_ = start_process(sys.executable, "-m", "pytest", "-q", *plugin, "test_shop.py", cwd=folder, env=environment)
    node_ = start_process(node(), "--preserve-symlinks", "--test", "news.test.mjs", cwd=folder)
    assert await pytest_.ended(30) == 0, pytest_
    assert await node_.ended(30) == 0, node_
    assert "2 passed" in pytest_.stdout
    assert "pass 2" in node_.stdout


# Pages


class Through(RequestHandler):
    """Passes a request to an ASGI application."""

    def initialize(self, app: Any) -> None:
        self._app = app

    async def prepare(self) -> None:
        request: HTTPServerRequest = self.request
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            headers = {key: value for key, value in request.headers.get_all() if key in ("Cookie", "Content-Type")}
            answer = await http.request(request.method or "", request.uri or "", headers=headers, content=request.body)
        self.set_status(answer.status_code)
        for key in ("content-type", "set-cookie", "cache-control"):
            if key in answer.headers:
                self.set_header(key, answer.headers[key])
        self.finish(answer.content)


def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's application; it works in the folder that it is started in."""
    monkeypatch.chdir(folder)
    spec = importlib.util.spec_from_file_location("guide_shop", folder / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.asynccontextmanager
async def browser(app: Any, port: int) -> AsyncIterator[Page]:
    """A page of a browser, and the application at ``http://127.0.0.1:<port>/``."""
    server: HTTPServer = Application([(".*", Through, {"app": app})]).listen(port, "127.0.0.1")
    try:
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            try:
                yield await (await chromium.new_context(base_url=f"http://127.0.0.1:{port}")).new_page()
            finally:
                await chromium.close()
    finally:
        server.stop()


@pytest.mark.slow
async def test_pages(
    expected_logs: Logs, start_process: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_logs.expect("401 GET /token")
    expected_logs.allow("404 GET /favicon.ico")
    port = free_port()
    origins = json.dumps([f"http://127.0.0.1:{port}"])
    secret = "auth.key of the gateway, 32 bytes at least"
    open_ = await started(start_process, ORIGINS=origins)
    closed = await started(start_process, ORIGINS=origins, AUTH__MODE="jwt", AUTH__KEY=secret)
    lay(tmp_path, open_, "first.html", "tab.js")
    lay(tmp_path, closed, "shop.py", "orders.html", "orders.js")
    (tmp_path / "tab.html").write_text('<!doctype html><script type="module" src="tab.js"></script>')
    shutil.copytree(LIBRARY / "src", tmp_path / "tidegate-client")
    async with browser(shop(tmp_path, monkeypatch).app, port) as page:
        await page.goto("/first.html")
        await expect(page).to_have_title("connected")
        await eventually(lambda: is_joined(open_, "news"))
        await open_.push("groups/news", {"title": "Tide turns"})
        await expect(page.locator("li")).to_have_text(["Tide turns"])

        await page.goto("/tab.html")
        await eventually(lambda: is_joined(open_, "news"))
        await open_.push("groups/news", {"title": "Tide has turned"})
        await expect(page).to_have_title("Tide has turned")

        await logs_in_and_sees_orders(page, closed)


async def logs_in_and_sees_orders(page: Page, gateway: Service) -> None:
    connection, orders = page.locator("#connection"), page.locator("#orders li")
    await page.goto("/orders.html")
    await expect(connection).to_have_text("please log in")
    assert (await page.request.post("/login?name=alice")).ok
    assert (await page.request.put("/orders/1?state=paid")).ok
    await page.reload()
    await expect(connection).to_have_text("connected")
    await expect(orders).to_have_text(["1: paid"])
    await page.request.put("/orders/1?state=shipped")
    await page.request.put("/orders/2?state=paid")
    await expect(orders).to_have_text(["1: shipped", "2: paid"])
    assert gateway.process is not None
    await gateway.stop()  # and all that its journal held
    await expect(connection).to_have_text("connecting")
    await gateway.start()
    await expect(connection).to_have_text("connected", timeout=15_000)
    await page.request.put("/orders/2?state=shipped")
    await expect(orders).to_have_text(["1: shipped", "2: shipped"])


# React


@pytest.mark.slow
@pytest.mark.timeout(seconds=180)  # the first run installs packages
async def test_components(start_process: Start, tmp_path: Path) -> None:
    port = free_port()
    gateway = await started(start_process, ORIGINS=json.dumps([f"http://127.0.0.1:{port}"]))
    lay(tmp_path, gateway, "Orders.jsx")
    (tmp_path / "index.html").write_text(_START)
    (tmp_path / "orders-and-position").write_text('{"data": {"1": {"id": 1, "state": "paid"}}}')
    (tmp_path / "page.jsx").write_text(_PAGE % gateway.public)
    bundle(tmp_path)
    files = StaticFiles(directory=tmp_path, html=True)
    async with browser(Starlette(routes=[Mount("/", files)]), port) as page:
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        await page.goto("/")
        await expect(page.locator("li")).to_have_text(["1: paid"])
        await gateway.push("groups/orders", {"id": 2, "state": "paid"}, {"id": 1, "state": "shipped"})
        await expect(page.locator("li")).to_have_text(["1: shipped", "2: paid"])
        await gateway.push("groups/news", {"title": "Tide turns"})
        await expect(page.locator("#root > p")).to_have_text(["Tide turns"])


_START = """<!doctype html>
<link rel="icon" href="data:,">
<div id="root"></div>
<script type="module" src="page.js"></script>
"""

_PAGE = """
import { createRoot } from 'react-dom/client';
import { App } from './Orders.jsx';
createRoot(document.querySelector('#root')).render(<App url="ws://127.0.0.1:%d/ws-notifications/?client=alice" />);
"""


def bundle(folder: Path) -> None:
    """``page.js`` of ``page.jsx``."""
    modules = npm.install(COMPONENTS)
    aliases = [
        f"--alias:tidegate-client/react={LIBRARY}/src/react.js",
        f"--alias:tidegate-client={LIBRARY}/src/index.js",
    ]
    command = [modules / ".bin/esbuild", "page.jsx", "--bundle", "--format=esm", "--jsx=automatic", "--outfile=page.js"]
    done = subprocess.run(
        [str(part) for part in [*command, *aliases]],
        cwd=folder,
        env=os.environ | {"NODE_PATH": str(modules)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


# Django


@pytest.mark.slow
async def test_django(start_process: Start, tmp_path: Path) -> None:
    gateway = await started(start_process)
    lay(tmp_path, gateway, "views.py")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/models.py").write_text(_MODELS)
    (tmp_path / "project.py").write_text(_PROJECT % gateway.url)
    request = start_process(sys.executable, "project.py", cwd=tmp_path, env=PYTHON)
    assert await request.ended(30) == 0, request
    async with httpx.AsyncClient() as http:
        kept = (await http.get(f"{gateway.url}api/clients/alice/history")).json()["messages"]
    assert [message["data"] for message in kept] == [{"order": 1017, "state": "shipped"}]


_MODELS = """
from django.db import models

class Order(models.Model):
    client = models.TextField()
    state = models.TextField()

    class Meta:
        app_label = "shop"
"""

_PROJECT = """
import django
from django.conf import settings
from django.db import connection

databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
settings.configure(DATABASES=databases, TIDEGATE={"URL": %r})
django.setup()
import views

with connection.schema_editor() as schema:
    schema.create_model(views.Order)
views.Order.objects.create(pk=1017, client="alice", state="paid")
assert views.ship(None, 1017).status_code == 204
"""
