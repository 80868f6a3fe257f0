"""The console's views beside the first one: what they show is what is so. One page is asked many things.

A page that logs an error, or leaves an exception or a rejection unhandled, fails its test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests import npm
from tests.brokers.server import RedisServer
from tests.browser.chromium import Service, chromium
from tests.browser.scene import NARROW, VIEWS, WIDE, furnished, refuse
from tests.edges.edge import Node, stand
from tests.support import Process, eventually

AXE = Path(__file__).parent / "axe"
BIG = '{"big": 12345678901234567890}'


async def test_each_view_shows_what_is_so(start_process: Callable[..., Process]) -> None:
    with RedisServer() as redis:
        service = Service(start_process, {"TIDEGATE_BROKER__KIND": "redis", "TIDEGATE_BROKER__URL": redis.url})
        await service.start()
        async with chromium() as browser:
            browser.allowed = ["status of 413", "WebSocket connection to"]
            console = await browser.open(service)
            page = console.page
            await console.connect()
            node = await page.locator("#fact-node").inner_text()
            assert await page.locator("#node").inner_text() == node

            # What is counted in the head is what its words say: a refused push is not taken.
            await service.post("api/push", {"pushes": [{"group": "news", "data": n} for n in range(150)]})
            await console.push("client", "alice", BIG)
            await expect(console.rows).to_have_count(151)
            await console.push("client", "alice", json.dumps("x" * 65536))
            await expect(page.locator("#push-words")).to_contain_text("too_large")
            redis.command("XADD", "tidegate:push", "*", "group", "news", "data", "{")
            redis.command("XADD", "tidegate:push", "*", "data", "1")

            await refuse(page, service, "client=bob&cursor=!")

            # Search in what has arrived.
            await page.locator("#feed-search").fill("123456789")
            await expect(console.rows.filter(visible=True)).to_have_count(1)

            # An epoch is shown whole to whoever points at it or goes there by keyboard; focus outlives a redraw.
            cell = page.locator("#streams .epoch").first
            await cell.focus()
            whole = await cell.get_attribute("data-whole")
            assert await cell.evaluate("cell => getComputedStyle(cell, '::after').content") == f'"{whole}"'
            await service.push("all", 1)
            await expect(page.locator("#streams tr[data-stream=all]")).to_contain_text("1")
            assert await page.evaluate("document.activeElement.className") == "epoch"

            await _find(page, whole or "")
            for view in VIEWS:  # on a phone nothing is beside the page
                await page.set_viewport_size(NARROW)
                await console.look(view)
                assert await page.evaluate("document.documentElement.scrollWidth") == NARROW["width"], view
            await _watch(page, node)  # last: the numbers are two seconds old at most


async def _watch(page: Page, node: str) -> None:
    await page.get_by_role("link", name="Watch").click()
    await expect(page.locator("#nodes > li")).to_contain_text(node)
    chart = page.get_by_role("img", name="Connections,")
    await expect(chart).to_have_accessible_name("Connections, now: open 1")
    await chart.focus()
    await page.keyboard.press("Home")
    assert (await chart.get_attribute("aria-label") or "").startswith("Connections, ")
    await expect(chart.locator(".pointed")).to_have_count(1)
    counts = page.locator("#counts")
    await expect(counts.locator("tr", has_text="too_large").first).to_be_visible()
    await expect(counts.locator("tr", has_text="rejected")).to_contain_text("2")
    refused = page.locator("#refusals > tr")
    await expect(refused).to_have_count(1)
    await expect(refused).to_contain_text("400 bad_request")
    await expect(refused.get_by_role("link")).to_have_text("“bob”")  # as it calls itself
    pushes = page.get_by_role("img", name="Pushes per second")
    values = await eventually(lambda: _rates(pushes))
    assert values


async def _rates(chart: Locator) -> str | None:
    """The label of the chart once it knows both rates."""
    label: str = await chart.get_attribute("aria-label") or ""
    return None if "\N{EN DASH}" in label else label


async def _find(page: Page, epoch: str) -> None:
    await page.get_by_role("link", name="Find").click()
    await expect(page.locator("#rejected > tr")).to_have_count(2)
    await expect(page.locator("#rejected > tr").first).to_contain_text("no address")
    await page.locator("#rejected-search").fill("bad JSON")
    await expect(page.locator("#rejected > tr")).to_have_count(1)

    form, journal = page.locator("#lookup-form"), page.locator("#journal > li")
    await form.get_by_role("button", name="Show").click()
    await expect(page.locator("#lookup-answer")).to_contain_text("alice has 1 connection")
    position = page.locator("#lookup-answer tr", has_text="client:alice")
    await expect(position.locator(".number").first).to_have_text("1")
    await expect(journal).to_have_count(1)
    assert await journal.locator(".data").inner_text() == BIG

    await form.locator("input[value=group]").check(force=True)
    await form.get_by_role("button", name="Show").click()
    await expect(journal).to_have_count(100)
    await expect(journal.first).to_contain_text("#150")
    await page.locator("#journal-older").click()
    await expect(journal).to_have_count(150)
    await expect(page.locator("#journal-older")).to_be_hidden()
    await page.locator("#journal-search").fill("149")
    await page.get_by_role("button", name="Read", exact=True).click()
    await expect(journal).to_have_count(1)
    await expect(page.locator("#journal-words")).to_have_text("1 of 150 messages that are kept")

    await journal.locator("a").click()  # the address says what is traced, and a reload shows it again
    assert page.url.endswith(f"#trace/message/group%3Anews/{epoch}/150")
    await expect(page.locator("#trace-journal")).to_contain_text("kept")
    await expect(page.locator("#trace-connections > tr")).to_contain_text("alice")
    await expect(page.locator("#trace-steps > li").first).to_contain_text("journalled")


@pytest.mark.slow
async def test_each_view_is_accessible_dark_and_light_wide_and_narrow() -> None:
    source = (npm.install(AXE) / "axe-core" / "axe.min.js").read_text()
    async with furnished() as (_, console):
        page = console.page
        await page.evaluate(source)
        for scheme, size in (("light", WIDE), ("dark", NARROW)):
            await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            await page.set_viewport_size(size)
            for view in VIEWS:
                await console.look(view)
                found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
                serious = [
                    (each["id"], [node["html"] for node in each["nodes"]])
                    for each in found["violations"]
                    if each["impact"] in ("serious", "critical")
                ]
                assert serious == [], (scheme, view)


@pytest.mark.slow
async def test_one_client_through_each_edge_and_a_slow_reader_on_one_way_is_closed_alone() -> None:
    async with (
        stand("plain", HEARTBEAT__WRITE_TIMEOUT_S=2) as plain,
        stand("njs", behind=plain) as njs,
        stand("openresty", behind=plain) as openresty,
        chromium() as browser,
    ):
        console = await browser.open_at(f"http://127.0.0.1:{plain.node.internal}/")
        page = console.page
        await console.look("Compare")
        await page.get_by_role("region", name="edge").get_by_role("button", name="Remove").click()
        for way in (plain, njs, openresty):
            await page.locator("#lane-name").fill(way.variant)
            await page.locator("#lane-address").fill(f"ws://127.0.0.1:{way.port}/ws-notifications/")
            await page.get_by_role("button", name="Add").click()
        direct, *edges = (
            page.get_by_role("region", name=name, exact=True) for name in ("direct", "plain", "njs", "openresty")
        )
        await direct.locator("select").select_option("nothing")
        await page.get_by_role("button", name="Connect all").click()
        for lane in (direct, *edges):
            await expect(lane.locator(".pill")).to_have_text("Online")
        count = 0

        async def is_given_up() -> bool:
            """By the gateway; who reads nothing does not know it yet. Who reads is never behind."""
            nonlocal count
            count += 10
            pushes = [{"group": "news", "data": "x" * 60_000}] * 10
            await plain.node.call("POST", "/api/push", {"pushes": pushes})
            for lane in edges:
                await expect(_messages(lane)).to_have_text(re.compile(rf"^{count}\b"))
            return await _slow_closes(plain.node) > 0

        await eventually(is_given_up, 30)
        newest = page.locator("#compare-rows > tr").first
        await expect(newest).to_have_text(re.compile(f"#{count}\N{EN DASH}" r"([\d,]+ ms){3}$"))
        await direct.locator("select").select_option("at once")  # it misses nothing
        await expect(_messages(direct)).to_have_text(re.compile(rf"^{count} · \d+ missed$"), timeout=30_000)
        for lane in (direct, *edges):
            await expect(lane.locator(".pill")).to_have_text("Online")

        # A socket that is to read slowly is changed for one that can; that misses nothing either.
        connection = edges[2].locator("dd").first
        before = re.escape(await connection.inner_text())
        await edges[2].locator("select").select_option("slow")
        await expect(connection).to_have_text(re.compile(rf"^(?!{before}).{{2}}"))
        await plain.node.push("groups/news", 1)
        await expect(_messages(edges[2])).to_have_text(re.compile(rf"^{count + 1}\b"))

        # Told to go by the application: on this way alone.
        await edges[0].get_by_role("button", name="Disconnect").click()
        await expect(edges[0].locator(".words")).to_contain_text("4501")
        await expect(edges[1].locator(".pill")).to_have_text("Online")


def _messages(lane: Locator) -> Locator:
    return lane.locator("dd").nth(2)


async def _slow_closes(node: Node) -> float:
    """How many connections it has closed because they read too slowly."""
    answer = await node.call("GET", "/metrics")
    found = re.search(rb'^tidegate_closes_total\{code="4008"\} (\S+)$', answer.body, re.MULTILINE)
    return float(found[1]) if found else 0
