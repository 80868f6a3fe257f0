"""A console in the middle of its work, for tests that look at all of it, and for pictures of it.

``python -m tests.browser.scene FOLDER`` makes the pictures: each view, dark and light, wide and narrow.
docs/console.png is ``try-wide-light.png``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Page, ViewportSize, expect

from tests.brokers.server import RedisServer
from tests.browser.chromium import Chromium, Console, Service, chromium
from tests.support import Process

VIEWS = ("Try", "Watch", "Find", "Trace", "Compare")
WIDE: ViewportSize = {"width": 1440, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}


async def refuse(page: Page, service: Service, query: str) -> None:
    """A handshake that is refused."""
    await page.evaluate(
        "(url) => new Promise((done) => { new WebSocket(url).onerror = done })",
        f"ws://127.0.0.1:{service.public}/ws-notifications/?{query}",
    )


async def furnish(service: Service, redis: RedisServer, console: Console) -> None:
    """Messages, missed ones, a gap of a lasting kind, refusals and rejected pushes: something to see in each view."""
    page = console.page
    await console.connect()
    await service.push("clients/alice", {"order": 1017, "state": "packed"})
    await service.push("groups/news", {"title": "Tide turns at 14:05"})
    await expect(console.rows).to_have_count(2)
    await console.cut()
    await service.push("clients/alice", {"order": 1017, "state": "shipped"})
    await service.push("groups/news", {"title": "High water 2.3 m"})
    await console.connect("Resume")
    await service.push("all", {"maintenance": "tonight"})
    await expect(console.rows).to_have_count(5)
    for fields in (["group", "news"], ["data", "1"], ["client", "alice", "data", "{"]):
        redis.command("XADD", "tidegate:push", "*", *fields)
    for query in ("client=no/id", "client=bob&cursor=!"):
        await refuse(page, service, query)
    await console.look("Find")
    await page.locator("#lookup-form").get_by_role("button", name="Show").click()
    await expect(page.locator("#journal > li")).to_have_count(2)
    await expect(page.locator("#rejected > tr")).to_have_count(3)
    await page.locator("#journal a").first.click()
    await expect(page.locator("#trace-steps > li").first).to_be_visible()
    await console.look("Compare")
    await page.locator("#lane-name").fill("by name")
    await page.locator("#lane-address").fill(f"ws://localhost:{service.public}/ws-notifications/")
    await page.get_by_role("button", name="Add").click()
    await page.get_by_role("button", name="Connect all").click()
    for name in ("direct", "by name"):
        await expect(page.get_by_role("region", name=name).locator(".pill")).to_have_text("Online")
    await page.get_by_role("button", name="Push to the group").click()
    await expect(page.locator("#compare-rows > tr").first).to_contain_text("ms")


@asynccontextmanager
async def furnished() -> AsyncIterator[tuple[Chromium, Console]]:
    """A browser with a console that has something to show."""
    with tempfile.TemporaryDirectory() as folder, RedisServer() as redis:
        started: list[Process] = []

        def start(*args: str | Path, **options: object) -> Process:
            started.append(Process(*args, folder=Path(folder), **options))  # type: ignore[arg-type]
            return started[-1]

        service = Service(start, {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis.url})
        try:
            await service.start()
            async with chromium() as browser:
                browser.allowed = ["WebSocket connection to"]  # refusals that are meant, and no edge
                console = await browser.open(service)
                await furnish(service, redis, console)
                yield browser, console
        finally:
            for process in started:
                await process.stop()


async def _pictures(folder: Path) -> None:
    async with furnished() as (_, console):
        page = console.page
        await asyncio.sleep(6)  # for the charts
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            for name, size in (("wide", WIDE), ("narrow", NARROW)):
                await page.set_viewport_size(size)
                for view in VIEWS:
                    await console.look(view)
                    await asyncio.sleep(2.5 if view == "Watch" else 0.3)
                    full = name == "narrow" or view != "Try"
                    await page.screenshot(path=folder / f"{view.lower()}-{name}-{scheme}.png", full_page=full)


if __name__ == "__main__":
    asyncio.run(_pictures(Path(sys.argv[1])))
