"""A browser logs in at a Django site, whose pages connect by that. A page of another origin, to which the browser gives
the same cookie, does not (cross-site WebSocket hijacking)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.async_api import Page, async_playwright, expect
from tornado.web import Application, RequestHandler

from tests.browser.chromium import ARGUMENTS, CHROMIUM, Service
from tests.django_site import DjangoSite
from tests.support import Process, free_ports

OPEN = """(url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onmessage = ({ data }) => resolve(JSON.parse(data).client);
  socket.onclose = ({ code }) => resolve(code);
})"""


class Foreign(RequestHandler):
    def get(self) -> None:
        self.finish('<!doctype html><link rel="icon" href="data:,"><p>nothing to see')


async def log_in(page: Page) -> None:
    await page.locator("input[name=username]").fill("alice")
    await page.locator("input[name=password]").fill("wonderland")
    await page.get_by_role("button", name="Log in").click()


@pytest.mark.slow
async def test_a_session_connects_the_sites_pages_and_no_others(start_process: Callable[..., Process]) -> None:
    site = DjangoSite(start_process)
    port, friend = free_ports(2)
    settings = {**site.settings, "AUTH__RECHECK_S": 1, "ORIGINS": [site.origin, f"http://127.0.0.1:{friend}"]}
    env = {f"TIDEGATE_{key}": value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    service = Service(start_process, env)
    url = f"ws://127.0.0.1:{service.public}/ws-notifications/?groups=news"
    site.gateway = url
    await site.start()
    await service.start()
    servers = [Application([("/", Foreign)]).listen(each, "127.0.0.1") for each in (port, friend)]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(f"{site.origin}/")
        await log_in(page)
        await expect(page.locator("#state")).to_have_text("connected as alice")
        await service.push("clients/alice", {"order": 7})
        await expect(page.locator("#events li")).to_contain_text('"order": 7')

        # The same site to a browser, which sends it the cookie: only the port is another one.
        foreign = await context.new_page()
        await foreign.goto(f"http://127.0.0.1:{port}/")
        session = next(cookie for cookie in await context.cookies(url) if cookie["name"] == "sessionid")
        assert session["domain"] == "127.0.0.1"
        assert await foreign.evaluate(OPEN, url) == 1006
        # Refused for its origin, and not for want of the cookie: with the port allowed it would be in.
        allowed = await context.new_page()
        await allowed.goto(f"http://127.0.0.1:{friend}/")
        assert await allowed.evaluate(OPEN, url) == "alice"

        # And who logs out is out.
        other = await context.new_page()
        await other.goto(f"{site.origin}/")
        await other.get_by_role("button", name="Log out").click()
        await expect(page.locator("#state")).to_have_text("closed 4009", timeout=10_000)
        await browser.close()
    for server in servers:
        server.stop()
