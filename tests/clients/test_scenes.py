"""The libraries with the real thing: nodes, Redis, edges, a cutter, and processes that are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.application import Application
from tests.clients.cutter import Cutter
from tests.clients.page import PageDriver, pages
from tests.clients.scene import Scene
from tests.edges.edge import DIRECT, Node, Stand, stand
from tests.faults.ledger import Ledger
from tests.support import eventually

EDGES = ("plain", "njs", "openresty")
STEADY = ["connecting", "connected"]


def scene(variant: str, folder: Path, seconds: float = 0, **options: object) -> Scene:
    """The seed is in the output and in what fails."""
    seed = secrets.randbelow(1_000_000)
    print(f"{variant}, seed {seed}")
    return Scene(variant, seed, seconds, folder, **options)  # type: ignore[arg-type]


def states(application: Application) -> list[str]:
    return [state.split()[0] for _, state in application.states]


async def test_each_message_is_told_once_and_in_order_through_an_edge_that_reloads(tmp_path: Path) -> None:
    it = scene(
        "plain", tmp_path, 1.5, javascript=1, python=1, faults={"reset": 2, "end": 1, "reload_edge": 1}, every_s=0.3
    )
    await it.run()
    assert it.deliveries() > 50


@pytest.mark.slow
@pytest.mark.parametrize("variant", [DIRECT, *EDGES])
async def test_each_message_is_told_once_and_in_order_whatever_happens(variant: str, tmp_path: Path) -> None:
    it = scene(variant, tmp_path, 40)
    await it.run()
    print(f"{it.deliveries()} deliveries, faults {it.done}")
    assert it.deliveries() > 5000


@pytest.mark.soak
async def test_each_message_is_told_once_and_in_order_for_hours(tmp_path: Path) -> None:
    for round, variant in enumerate(itertools.cycle([DIRECT, *EDGES])):
        folder = tmp_path / str(round)
        folder.mkdir()
        await scene(variant, folder, 120).run()


@pytest.mark.slow
@pytest.mark.parametrize("variant", EDGES)
async def test_a_node_that_drains_is_left_before_it_goes_and_nobody_sees_it(variant: str, tmp_path: Path) -> None:
    async with scene(variant, tmp_path, settings={"SERVER__DRAIN_S": 6}) as it:
        first = it.stand.nodes[0]
        await _know_each_other(it.stand.nodes)
        before = await _connections_of(it, "n1")
        first.process.signal(signal.SIGTERM)
        await first.process.ended(20)
        await asyncio.sleep(1)
        await it.settle_pushes()
        assert 0 < before < len(it.applications)
        assert await _connections_of(it, "n2") == len(it.applications)
        assert {tuple(states(application)) for application in it.applications} == {tuple(STEADY)}
        assert it.slowest_s() < 1


async def _know_each_other(nodes: list[Node]) -> None:
    """Nobody is told to move where no other node is known."""

    async def known() -> bool:
        found = [(await node.call("GET", "/api/nodes")).json["nodes"] for node in nodes]
        return all(sum(info["lag_ms"] is not None for info in infos) == len(nodes) for infos in found)

    await eventually(known, 10)


async def _connections_of(it: Scene, node: str) -> int:
    found = [await it.stand.nodes[1].connections(application.name) for application in it.applications]
    return sum(line["node"].startswith(f"{node}.") for lines in found for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.5, 6])
async def test_a_client_that_did_not_run_for_a_while_misses_nothing(seconds: float, tmp_path: Path) -> None:
    async with scene(DIRECT, tmp_path, javascript=1, python=1) as it:
        await asyncio.gather(*(application.sleep(seconds) for application in it.applications))
        await asyncio.sleep(1)
        await it.settle()
        for application in it.applications:
            # For less than the gateway's patience it is as if nothing had been.
            assert (states(application) == STEADY) == (seconds < 3), states(application)


@pytest.mark.soak
async def test_a_client_that_did_not_run_for_minutes_misses_nothing(tmp_path: Path) -> None:
    patience = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 30, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 60}
    async with scene(DIRECT, tmp_path, javascript=1, python=1, rate=1, settings=patience) as it:
        await asyncio.gather(*(application.sleep(200) for application in it.applications))
        await asyncio.sleep(10)
        await it.settle()


# In a page


@contextlib.asynccontextmanager
async def page_scene(**options: float) -> AsyncIterator[tuple[Stand, Cutter, Application, PageDriver]]:
    """A page that follows ``news`` on a real node, behind a cutter."""
    heartbeat = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 3}
    async with (
        pages() as chromium,
        stand(DIRECT, ORIGINS=[chromium.origin], **heartbeat) as s,
        Cutter([s.port], random.Random(1)) as cutter,
        chromium.driver(**options) as driver,
    ):
        application = Application("alice", ["news"], Ledger())
        application.begin(driver, f"ws://127.0.0.1:{cutter.port}/ws-notifications/")
        await eventually(lambda: _is_joined(application), 15)
        yield s, cutter, application, driver


def _is_joined(application: Application) -> bool:
    application.look()
    return application.is_joined()


async def _push(s: Stand, application: Application, count: int) -> None:
    ledger = application.record._ledger
    for _ in range(count):
        push = ledger.push("w", "news")
        ledger.asked(push)
        position = await s.node.push("groups/news", push.data)
        ledger.accepted(push, (position["epoch"], position["offset"]))


async def _has_all(application: Application, count: int) -> None:
    def has() -> bool:
        application.look()
        told = application.record.told.get("group:news")
        return told is not None and len(told.heard) == count

    await eventually(has, 10)
    assert application.record._ledger.wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.5, 6])
async def test_a_page_that_was_frozen_misses_nothing_and_sees_nothing(seconds: float) -> None:
    async with page_scene() as (s, _, application, driver):
        await _push(s, application, 5)
        await _has_all(application, 5)
        driver.freeze()
        await _push(s, application, 20)
        await asyncio.sleep(seconds)
        await _has_all(application, 5)  # it is frozen indeed
        driver.thaw()
        await _has_all(application, 25)
        await asyncio.sleep(3)
        await _push(s, application, 1)
        await _has_all(application, 26)
        assert states(application) == STEADY


@pytest.mark.slow
async def test_a_page_whose_connection_broke_while_it_was_frozen_comes_back_at_once() -> None:
    async with page_scene() as (s, cutter, application, driver):
        driver.freeze()
        await asyncio.sleep(0.5)
        for link in list(cutter.links):
            link.mute = True
        await _push(s, application, 20)
        await asyncio.sleep(5)  # the node gives it up, and nobody can tell the page
        driver.thaw()
        await _has_all(application, 20)
        assert states(application) == [*STEADY, *STEADY]


@pytest.mark.slow
async def test_a_page_whose_timers_are_throttled_keeps_its_connection() -> None:
    async with page_scene(timers_s=4, slowed=4) as (s, _, application, _driver):
        for count in range(1, 13):
            await _push(s, application, 1)
            await _has_all(application, count)
            await asyncio.sleep(1)
        assert states(application) == STEADY
