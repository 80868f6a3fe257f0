"""The console in a real browser, against a real service. See service/tidegate/http/console/.

A page that logs an error, or leaves an exception or a rejection unhandled, fails its test."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable

import jwt
import pytest
from playwright.async_api import expect

from tests.browser.chromium import Service, chromium
from tests.support import Process, eventually

TOKEN_KEY = "a key for tokens, made for this test"
API_KEY = "a-key-for-the-api-made-for-this-test"


StartService = Callable[..., Service]


def token_for(client: str) -> str:
    return jwt.encode({"sub": client, "exp": int(time.time()) + 600, "groups": ["*"]}, TOKEN_KEY, "HS256")


@pytest.fixture
def new_service(start_process: Callable[..., Process]) -> StartService:
    """A service with these settings, not started yet: ``new_service(TIDEGATE_HISTORY__MESSAGES="5")``."""
    return lambda **env: Service(start_process, env)


# The acceptance story


async def test_closing_the_page_and_opening_it_again_shows_exactly_what_was_missed(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("clients/alice", {"n": 1})
        await service.push("groups/news", {"n": 2})
        await console.shows({"n": 1}, {"n": 2})
        assert await console.missed.count() == 0
        assert re.fullmatch(r"-?\d+ ms", await console.rows.first.locator(".latency").inner_text())
        await console.page.close()

        await service.push("clients/alice", {"n": 3}, {"n": 4}, {"n": 5})
        await service.push("groups/news", {"n": 6})
        await service.push("all", {"n": 7})

        again = await browser.open(service)
        await again.online()
        await expect(again.missed).to_have_count(5)
        assert sorted(data["n"] for data in await again.shown()) == [3, 4, 5, 6, 7]
        assert await again.rows.count() == 5
        own = again.page.locator("#rows > li.missed[data-stream='client:alice']")
        assert await again.shown(own) == [{"n": 3}, {"n": 4}, {"n": 5}]
        assert await own.locator(".offset").all_inner_texts() == ["#2", "#3", "#4"]

        await service.push("clients/alice", {"n": 8})
        await expect(again.rows).to_have_count(6)
        await expect(again.missed).to_have_count(5)


async def test_a_cut_connection_resumes_behind_the_last_message_shown(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("clients/alice", 1)
        await console.shows(1)
        await console.cut()
        await service.push("clients/alice", 2, 3)
        await console.connect("Resume")
        await console.shows(1, 2, 3)
        assert await console.shown(console.missed) == [2, 3]
        await expect(console.notes.last).to_contain_text("2 missed")


async def test_a_console_that_was_cut_waits_for_resume_after_a_reload(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.cut()
        await service.push("clients/alice", 1)
        await console.page.reload()
        await expect(console.page.locator("#connect")).to_have_text("Resume")
        await expect(console.pill).to_have_text("Not connected")
        await console.connect("Resume")
        await console.shows(1)


async def test_a_forgotten_client_starts_with_what_comes_next(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.page.get_by_role("button", name="Disconnect & forget").click()
        await service.push("clients/alice", "not for me")
        await console.connect()
        await service.push("clients/alice", "for me")
        await console.shows("for me")


async def test_it_comes_back_by_itself_when_the_service_restarts(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        browser.allowed = ["Failed to load resource", "WebSocket connection"]
        console = await browser.open(service)
        await console.connect()
        await service.push("clients/alice", "before")
        await console.shows("before")
        await service.stop()
        await expect(console.notes.filter(has_text="Connection lost")).to_contain_text("1012")
        await service.start()
        await console.online()
        await expect(console.gaps.first).to_contain_text("reset")  # journals in memory ended with the service
        await service.push("clients/alice", "after")
        await console.shows("before", "after")
        await expect(console.notes.filter(has_text="Promise broken")).to_have_count(0)


# What is shown


async def test_lost_offsets_stand_in_a_gap_row_before_what_is_left(new_service: StartService) -> None:
    service = new_service(TIDEGATE_HISTORY__MESSAGES="5")
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("groups/news", 1, 2)
        await console.shows(1, 2)
        await console.cut()
        await service.push("groups/news", *range(3, 12))
        await console.connect("Resume")
        await console.shows(1, 2, 7, 8, 9, 10, 11)
        await expect(console.gaps).to_have_count(1)
        await expect(console.gaps).to_contain_text("Gap: offsets 3 to 6 lost")
        await expect(console.gaps).to_contain_text("expired")
        await expect(console.notes.filter(has_text="Promise broken")).to_have_count(0)
        kinds = await console.page.locator("#rows > li").evaluate_all("rows => rows.map(row => row.className)")
        assert kinds.index("row gap") < kinds.index("row message missed")


async def test_data_is_shown_as_text_with_its_numbers_as_they_came(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.push("client", "alice", '{"big": 12345678901234567890, "html": "<img src=x onerror=alert(1)>"}')
        await expect(console.rows).to_have_count(1)
        shown = await console.rows.locator(".data").inner_text()
        assert shown == '{"big": 12345678901234567890, "html": "<img src=x onerror=alert(1)>"}'
        assert await console.rows.locator("img").count() == 0


async def test_long_data_opens_on_a_click(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        data = {"lines": [{"sku": f"x-{n}", "count": n} for n in range(20)], "none": [], "nothing": {}}
        await service.push("clients/alice", data)
        await console.rows.locator("summary").click()
        assert await eventually(console.rows.locator("pre").inner_text) == json.dumps(data, indent=2)


async def test_the_filter_shows_one_stream_and_pause_holds_rows_back(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("clients/alice", "own")
        await service.push("all", "everybody's")
        await console.shows("own", "everybody's")
        await console.page.locator("#filter").select_option("all")
        await expect(console.rows.filter(visible=True)).to_have_count(1)
        await console.page.locator("#filter").select_option("")
        await expect(console.rows.filter(visible=True)).to_have_count(2)

        await console.page.locator("#pause").click()
        await service.push("clients/alice", "held")
        await expect(console.page.locator("#pause")).to_contain_text("1 waiting")
        await expect(console.rows).to_have_count(2)
        await console.page.locator("#pause").click()
        await console.shows("own", "everybody's", "held")
        await console.page.locator("#clear").click()
        await expect(console.rows).to_have_count(0)


async def test_no_more_than_a_thousand_rows_are_kept(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        for start in (0, 600):
            pushes = [{"client": "alice", "data": n} for n in range(start, start + 600)]
            await service.post("api/push", {"pushes": pushes})
        await expect(console.rows.last).to_have_attribute("data-offset", "1200")
        assert await console.page.locator("#rows > li").count() == 1000
        await expect(console.page.locator("#feed-count")).to_contain_text("1,200 messages")


# Streams and commands


async def test_a_group_is_joined_and_left_on_the_live_connection(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.push("group", "chat", '"too early"')
        await expect(console.page.locator("#push-words")).to_contain_text("group:chat at 1")
        await console.page.locator("#join-group").fill("chat")
        await console.page.get_by_role("button", name="Join", exact=True).click()
        stream = console.page.locator("#streams tr[data-stream='group:chat']")
        await expect(stream).to_contain_text("live")
        await console.push("group", "chat", '"in time"')
        await console.shows("in time")
        await stream.get_by_role("button", name="Leave chat").click()
        await expect(stream).to_have_count(0)
        await console.push("group", "chat", '"too late"')
        await expect(console.page.locator("#push-words")).to_contain_text("group:chat at 3")
        await console.push("client", "alice", '"last"')
        await console.shows("in time", "last")


async def test_the_cursor_kept_here_is_the_one_the_gateway_knows(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("clients/alice", 1, 2)
        await service.push("all", 3)
        await console.shows(1, 2, 3)
        await console.page.locator("#tab-command").click()
        await console.page.locator("#command-form .primary").click()
        await expect(console.page.locator("#command-answer")).to_contain_text('"type": "pong"')
        await expect(console.page.locator("#fact-cursor")).to_have_text("agrees")


async def test_a_join_with_a_position_brings_what_came_before(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await service.push("groups/chat", 1, 2, 3)
        answer = await service.push_one("groups/chat", 4)
        await console.page.locator("#tab-command").click()
        join = {"type": "join", "group": "chat", "epoch": answer["epoch"], "offset": 2}
        await console.page.locator("#command-json").fill(json.dumps(join))
        await console.page.locator("#command-form .primary").click()
        await expect(console.page.locator("#command-answer")).to_contain_text('"recovered": true')
        await console.shows(3, 4)
        await service.push("groups/chat", 5)
        await console.shows(3, 4, 5)
        await expect(console.notes.filter(has_text="Promise broken")).to_have_count(0)


async def test_a_refused_command_is_answered_in_words(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.page.locator("#tab-command").click()
        await console.page.locator("#command-type").select_option("publish")
        await console.page.locator("#command-form .primary").click()
        await expect(console.page.locator("#command-words")).to_contain_text("not_allowed: ")


async def test_a_cursor_too_long_for_a_handshake_is_resumed_in_parts(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    groups = [f"{n:02}-{'long' * 25}" for n in range(60)]
    async with chromium() as browser:
        console = await browser.open(service)
        await console.page.locator("#groups").fill(",".join(groups))
        await console.connect()
        await expect(console.page.locator("#streams tr")).to_have_count(62)
        await console.cut()
        await service.push(f"groups/{groups[0]}", "first")
        await service.push(f"groups/{groups[-1]}", "last")
        await console.connect("Resume")
        await expect(console.missed).to_have_count(2)
        assert sorted(await console.shown()) == ["first", "last"]


async def test_groups_that_do_not_fit_miss_nothing_though_a_lasting_membership_has_them_already(
    new_service: StartService,
) -> None:
    """``welcome`` names all of them, from now on; those that follow by ``join`` bring their positions."""
    service = new_service()
    await service.start()
    groups = [f"{n:02}-{'long' * 20}" for n in range(90)]
    for group in groups:
        await service.put(f"api/groups/{group}/members/alice", {})

    async def push(n: int) -> None:
        answer = await service.post("api/push", {"pushes": [{"group": group, "data": n} for group in groups]})
        assert ["offset" in result for result in answer["results"]] == [True] * len(groups)

    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await push(1)
        await expect(console.rows).to_have_count(90)
        await console.cut()
        await push(2)
        await push(3)
        await console.connect("Resume")
        await expect(console.missed).to_have_count(180)
        assert sorted(await console.shown()) == [1] * 90 + [2] * 90 + [3] * 90
        await push(4)
        await expect(console.rows).to_have_count(360)
        assert await console.page.locator("#rows > li.fault").count() == 0


# Pushing


async def test_bad_json_is_refused_in_words_and_not_sent(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        requests: list[str] = []
        console.page.on("request", lambda request: requests.append(request.method))
        await console.push("client", "alice", '{"text": oops}')
        await expect(console.page.locator("#push-fault")).to_contain_text("not valid JSON")
        await expect(console.page.locator("#push-data")).to_be_focused()
        await console.page.locator("#push-data").fill('{"text": "fine"}')
        await expect(console.page.locator("#push-fault")).to_be_empty()
        await console.page.locator("#push").click()
        await expect(console.page.locator("#push-words")).to_contain_text("Accepted: client:alice at 1")
        assert requests.count("POST") == 1


async def test_a_repeated_key_gives_the_first_position(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        browser.allowed = ["status of 409"]
        await console.connect()
        await console.page.locator("#push-key").fill("once")
        await console.page.locator("#push-times").fill("3")
        await console.push("client", "alice", "1")
        await expect(console.page.locator("#push-words")).to_contain_text("client:alice at 1, ")
        await expect(console.page.locator("#push-words")).to_contain_text("3 of 3")
        await console.shows(1)
        await console.push("client", "alice", "2")
        await expect(console.page.locator("#push-words")).to_contain_text("key_reused: ")


async def test_the_curl_line_does_the_same(new_service: StartService) -> None:
    service = new_service(key=API_KEY)
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.page.locator("#key").fill(API_KEY)
        await console.page.get_by_role("button", name="Use it").click()
        await console.connect()
        await console.page.locator("#push-data").fill('{"says": "it\'s $HOME"}')
        line = await console.page.locator("#curl").inner_text()
        assert API_KEY not in line
        curl = await asyncio.create_subprocess_shell(
            line.replace("curl", "curl -sS", 1), stdout=asyncio.subprocess.PIPE, env={"TIDEGATE_API_KEY": API_KEY}
        )
        output, _ = await curl.communicate()
        assert json.loads(output)["offset"] == 1
        await console.shows({"says": "it's $HOME"})
        xadd = await console.page.locator("#xadd").inner_text()
        assert xadd.startswith("redis-cli XADD tidegate:push '*' client alice")


# Who is there


async def test_a_client_told_to_go_learns_why_and_stays_away(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        connection = await console.page.locator("#fact-connection").inner_text()
        await console.look("Find")
        await console.page.get_by_role("button", name="Show").click()
        found = console.page.locator("#lookup-answer")
        await expect(found).to_contain_text(connection)
        await found.get_by_role("button", name="Disconnect").click()
        await expect(console.pill).to_have_text("Not connected")
        await expect(console.page.locator("#connect-words")).to_contain_text("4501: disconnected by the application")


async def test_a_lasting_membership_made_here_joins_the_live_connection(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await console.look("Find")
        await console.page.locator("#lookup-form input[value=group]").check(force=True)
        await console.page.locator("#lookup-name").fill("staff")
        await console.page.get_by_role("button", name="Show").click()
        answer = console.page.locator("#lookup-answer")
        await answer.get_by_label("Client").fill("alice")
        await answer.get_by_role("button", name="Add").click()
        await expect(console.notes.filter(has_text="Joined")).to_contain_text("by the application")
        await service.push("groups/staff", "for staff")
        await console.shows("for staff")
        await answer.get_by_label("Client").fill("alice")
        await answer.get_by_role("button", name="Remove").click()
        await expect(console.notes.filter(has_text="Left")).to_contain_text("group:staff removed")


async def test_the_overview_counts_connections_and_names_the_node(new_service: StartService) -> None:
    service = new_service()
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.connect()
        await expect(console.page.locator("#connections")).to_have_text("1")
        await console.look("Watch")
        node = await console.page.locator("#fact-node").inner_text()
        await expect(console.page.locator("#nodes > li")).to_contain_text(node)


# Keys and tokens


async def test_the_key_is_asked_for_and_ends_with_the_tab(new_service: StartService) -> None:
    service = new_service(key=API_KEY)
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        browser.allowed = ["status of 401"]
        dialog = console.page.locator("#key-dialog")
        await expect(dialog).to_be_visible()
        await console.page.locator("#key").fill("wrong")
        await console.page.get_by_role("button", name="Use it").click()
        await expect(console.page.locator("#key-words")).to_have_text("The key was not accepted.")
        await console.page.locator("#key").fill(API_KEY)
        await console.page.get_by_role("button", name="Use it").click()
        await expect(dialog).to_be_hidden()
        await console.push("client", "alice", "1")
        await expect(console.page.locator("#push-words")).to_contain_text("Accepted")
        assert API_KEY not in await console.page.evaluate("JSON.stringify(localStorage)")

        another_tab = await browser.open(service)
        await expect(another_tab.page.locator("#key-dialog")).to_be_visible()
        await another_tab.page.get_by_role("button", name="Not now").click()
        await another_tab.connect()  # needs no key


async def test_a_token_names_the_client_and_stays_out_of_the_address(new_service: StartService) -> None:
    service = new_service(TIDEGATE_AUTH__MODE="jwt", TIDEGATE_AUTH__ALGORITHM="HS256", TIDEGATE_AUTH__KEY=TOKEN_KEY)
    await service.start()
    token = token_for("bob")
    async with chromium() as browser:
        console = await browser.open(service)
        addresses: list[str] = []
        console.page.on("websocket", lambda socket: addresses.append(socket.url))
        await expect(console.page.locator("#client")).to_be_hidden()
        await console.page.locator("#token").fill(token)
        await console.connect()
        await service.push("clients/bob", "for bob")
        await console.shows("for bob")
        assert addresses
        assert token not in "".join(addresses)
        assert token not in await console.page.evaluate("JSON.stringify(localStorage)")
        await console.cut()
        await service.push("clients/bob", "missed")
        await console.connect("Resume")
        await console.shows("for bob", "missed")


async def test_a_token_is_replaced_on_the_live_connection(new_service: StartService) -> None:
    service = new_service(TIDEGATE_AUTH__MODE="jwt", TIDEGATE_AUTH__ALGORITHM="HS256", TIDEGATE_AUTH__KEY=TOKEN_KEY)
    await service.start()
    async with chromium() as browser:
        console = await browser.open(service)
        await console.page.locator("#token").fill("no token")
        await console.page.locator("#connect").click()
        await expect(console.page.locator("#connect-words")).to_contain_text("not a JWT")
        await console.page.locator("#token").fill(token_for("bob"))
        await console.connect()
        await console.page.locator("#token").fill(token_for("carol"))
        await console.page.locator("#refresh").click()
        await expect(console.notes.last).to_contain_text("Error")
        await console.page.locator("#token").fill(token_for("bob"))
        await console.page.locator("#refresh").click()
        await expect(console.notes.last).to_contain_text("Token refreshed")
        await expect(console.pill).to_have_text("Online")
