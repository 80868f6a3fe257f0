"""One connection for many tabs (clients/js/src/tabs.js): real pages of one browser, a real gateway."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from playwright.async_api import Error, Page
from tornado.httpclient import AsyncHTTPClient

from tests.browser.pages import Gateway, Tabs, tabs
from tests.support import Process, eventually, free_port


@pytest.fixture
def gateway(start_process: Callable[..., Process]) -> Gateway:
    groups = {"news": {"publish": "members", "presence": "members"}, "secret": {"join": "nobody"}}
    return Gateway(start_process, free_port(), groups)


async def three(opened: Tabs) -> None:
    for _ in range(3):
        await opened.open()


async def test_tabs_share_one_connection_and_each_hears_everything_once(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        await three(opened)
        assert await gateway.connections() == 1
        await gateway.push("groups/news", *range(20))
        await gateway.push("clients/alice", "own")
        for tab in opened.tabs:
            await tab.hears(list(range(20)))
            await tab.hears(["own"], "client:alice")
            assert await tab.states() == ["connecting", "connected"]


async def crash(page: Page) -> None:
    with contextlib.suppress(Error):
        await page.goto("chrome://crash")


async def keep_busy(page: Page) -> None:
    """It stands still, as if frozen or stopped. (Chromium freezes no page that holds a lock.)"""
    await page.evaluate("setTimeout(() => { const end = Date.now() + 9000; while (Date.now() < end); })")


ENDS = {"closed": lambda page: page.close(), "crashed": crash, "busy": keep_busy}


@pytest.mark.parametrize("end", ["closed", *(pytest.param(end, marks=pytest.mark.slow) for end in ("crashed", "busy"))])
async def test_when_the_leader_goes_the_others_lose_and_repeat_nothing(gateway: Gateway, end: str) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        for _ in range(3):
            await opened.open(pingInterval_s=1, pongTimeout_s=1)
        leader = opened.leader()
        others = [tab for tab in opened.tabs if tab is not leader]
        pushed: list[int] = []

        async def push(count: int) -> None:
            for _ in range(count):
                await gateway.push("groups/news", len(pushed))
                pushed.append(len(pushed))

        await push(10)
        async with asyncio.TaskGroup() as meanwhile:
            meanwhile.create_task(push(100))
            await ENDS[end](leader.page)
        await eventually(lambda: any(tab.leads for tab in others), 15)
        await push(10)
        for tab in others:
            await tab.hears(pushed, timeout_s=15)
        if end == "busy":
            await leader.hears(pushed, timeout_s=20)
            await eventually(lambda: sum(tab.leads for tab in opened.tabs) == 1, 5)
        else:
            for tab in others:
                assert await tab.states() == ["connecting", "connected"], "a change of leader is nothing to see"


@pytest.mark.slow
async def test_a_tab_that_is_opened_again_gets_what_it_missed(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        await opened.open(storage=True)
        away = await opened.open(storage=True)
        await gateway.push("groups/news", 1)
        await away.hears([1])
        await away.page.evaluate("window.client.disconnect()")
        await away.page.goto("about:blank")
        await gateway.push("groups/news", 2, 3)
        await away.page.goto(opened.page)
        await opened.connect(away, storage=True)
        await away.hears([2, 3])
        await opened.tabs[0].hears([1, 2, 3])


@pytest.mark.slow
async def test_who_was_away_for_longer_than_the_leader_remembers_is_served_all_the_same(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        away = await opened.open(storage=True)
        await gateway.push("groups/news", 1)
        await away.hears([1])
        await away.page.evaluate("window.client.disconnect()")
        await away.page.goto("about:blank")
        await gateway.push("groups/news", 2)
        other = await opened.open()  # begins here, and leads
        await gateway.push("groups/news", 3)
        await other.hears([3])
        await away.page.goto(opened.page)
        await opened.connect(away, storage=True)
        await away.hears([2, 3])
        await gateway.push("groups/news", 4)
        await away.hears([2, 3, 4])
        await other.hears([3, 4])
        assert await other.states() == ["connecting", "connected"]
        assert await gateway.connections() == 1


@pytest.mark.slow
async def test_groups_are_each_tabs_own_and_a_refusal_is_told(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        first = await opened.open("news")
        second = await opened.open("chat")
        await first.page.evaluate("window.follow('secret')")
        await first.hears(["not_allowed"], "left")
        await gateway.push("groups/news", "n")
        await gateway.push("groups/chat", "c")
        await first.hears(["n"])
        await second.hears(["c"], "group:chat")
        assert await first.heard("group:chat") == []
        assert await second.heard("group:news") == []
        await second.page.evaluate("window.subscriptions.chat.leave()")
        await gateway.push("groups/chat", "nobody hears this")
        await second.page.evaluate("(async () => { window.follow('chat'); await window.client.ready(); })()")
        await gateway.push("groups/chat", "d")
        await second.hears(["c", "d"], "group:chat")


async def test_a_tab_that_does_not_lead_sends_and_asks(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        await three(opened)
        tab = next(tab for tab in opened.tabs if not tab.leads)
        published = await tab.page.evaluate("window.client.publish('news', {n: 1})")
        assert published["offset"] == 1
        for each in opened.tabs:
            await each.hears([{"n": 1}])
        assert (await tab.page.evaluate("window.client.presence('news')"))["connections"] == 1
        refused = "window.client.publish('secret', 1).catch((error) => error.code)"
        assert await tab.page.evaluate(refused) == "not_allowed"


@pytest.mark.slow
async def test_all_tabs_come_back_when_the_service_does_and_end_when_it_says_so(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        await three(opened)
        await gateway.push("groups/news", 1)
        await gateway.stop()
        for tab in opened.tabs:
            await eventually(lambda tab=tab: is_in(tab, "connecting"), 10)  # type: ignore[misc]
        await gateway.start()
        for tab in opened.tabs:
            await eventually(lambda tab=tab: is_in(tab, "connected"), 20)  # type: ignore[misc]
        await gateway.push("groups/news", 2)
        for tab in opened.tabs:
            await tab.hears([1, {"gap": "reset"}, 2])
        await AsyncHTTPClient().fetch(f"{gateway.url}api/clients/alice", method="DELETE")
        for tab in opened.tabs:
            await eventually(lambda tab=tab: is_in(tab, "closed"), 10)  # type: ignore[misc]
        assert await opened.tabs[0].page.evaluate("window.client.reason.word") == "disconnected"


async def is_in(tab, state: str) -> bool:
    return bool((await tab.states())[-1] == state)


@pytest.mark.slow
async def test_without_web_locks_each_tab_has_its_own_connection(gateway: Gateway) -> None:
    await gateway.start()
    async with tabs(gateway) as opened:
        await opened.context.add_init_script("Object.defineProperty(navigator, 'locks', {value: undefined})")
        await three(opened)
        assert await gateway.connections() == 3
        await gateway.push("groups/news", 1)
        for tab in opened.tabs:
            await tab.hears([1])
