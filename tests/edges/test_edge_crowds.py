"""Behind each edge: clients that come all at once wait for their turn, and a node that has too many is not a node that
failed."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.edges.contract import PATH, UPGRADE
from tests.edges.edge import Stand, ask
from tests.edges.test_edge_nodes import crowd
from tests.support import eventually, scaled

VARIANTS = ("plain", "njs", "openresty", "openresty-trunk")
# Those that choose a node as another does take their time.
SOME = pytest.mark.parametrize(
    "variant",
    ["plain", "openresty-trunk", *(pytest.param(each, marks=pytest.mark.slow) for each in ("njs", "openresty"))],
)
AT_ONCE = 2  # whom a node lets in without a pause, where its rate is 10 or more


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_crowd_waits_at_the_edge_for_its_turn(variant: str) -> None:
    rate, count = 80, 110
    # Longer than openresty waits before it asks whether the node lives.
    async with crowd(variant, LIMITS__HANDSHAKES_PER_SECOND=rate, EDGE__PROBE_TIMEOUT_S=1) as (s, them):
        begun_s = time.monotonic()
        await them.come(count, within_s=count / rate + 2)
        assert them.refused == []
        assert time.monotonic() - begun_s > (count - AT_ONCE) / rate - 0.1
        assert not s.node.process.logged("handshakes.refused")


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
async def test_clients_that_go_while_they_wait_leave_their_places(variant: str) -> None:
    """In their turn, one each second, they would take half a minute."""
    async with crowd(variant, LIMITS__HANDSHAKES_PER_SECOND=1, LIMITS__HANDSHAKE_WAIT_S=40) as (s, them):
        await them.come(1)
        async with asyncio.timeout(scaled(10)), asyncio.TaskGroup() as group:
            trying = [group.create_task(s.peer(f"g{number}").connect()) for number in range(30)]
            await eventually(lambda: _count(s, "tidegate_handshakes_waiting", 28))
            for one in trying:
                one.cancel()  # which closes its socket
        await eventually(lambda: _count(s, 'tidegate_handshakes_total{result="bad_request"}', 24), 4)
        assert await _count(s, "tidegate_handshakes_waiting", 0)
        assert not await _count(s, "tidegate_handshakes_waiting", 1)
        await them.come(1)
        assert them.refused == []


async def _count(s: Stand, name: str, least: float) -> bool:
    """Whether the node's metric of this name is so much at least."""
    text = (await ask(s.node.internal, "GET", "/metrics")).body.decode()
    (line,) = (line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.rpartition(" ")[2]) >= least


@SOME
async def test_a_node_that_is_busy_passes_a_handshake_on_and_is_forgiven_at_once(variant: str) -> None:
    busy = {"LIMITS__HANDSHAKES_PER_SECOND": 1, "LIMITS__HANDSHAKE_WAIT_S": 0}
    async with crowd(f"{variant.partition('-')[0]}-{hop(variant)}", nodes=2, first=busy) as (s, them):
        names = await them.come(12)
        assert them.refused == []
        assert set(names) <= {"n1", "n2"}
        assert 9 <= names.count("n2") <= 11
        await eventually(lambda: s.node.process.logged("handshakes.refused"))
        await them.reach(s.nodes[0], within_s=3)
        assert them.refused == []


@SOME
async def test_where_all_nodes_are_busy_clients_hear_when_to_come_and_are_let_in_then(variant: str) -> None:
    busy = {"LIMITS__HANDSHAKES_PER_SECOND": 1, "LIMITS__HANDSHAKE_WAIT_S": 0}
    async with crowd(f"{variant.partition('-')[0]}-{hop(variant)}", nodes=2, **busy) as (s, them):
        answers = await asyncio.gather(*(ask(s.port, "GET", f"{PATH}?client=a{n}", UPGRADE) for n in range(20)))
        refused = [answer for answer in answers if answer.status != 101]
        assert len(refused) >= 16
        assert {(answer.status, answer.code) for answer in refused} == {(503, "busy")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        await asyncio.sleep(1.1)  # as they are told
        names = [await them.come(1), await them.come(1)]
        assert sorted(names) == [["n1"], ["n2"]]
        assert them.refused == []


def hop(variant: str) -> str:
    """With several nodes trunks are over TCP, as they are shipped."""
    return "trunk" if variant.endswith("-trunk") else "tcp"


@SOME
async def test_a_node_that_was_busy_a_moment_ago_is_asked_again_by_the_next(variant: str) -> None:
    """Of two nodes the one that has least is busy for a second, the other for a tenth of one."""
    slow, quick = ({"LIMITS__HANDSHAKES_PER_SECOND": rate, "LIMITS__HANDSHAKE_WAIT_S": 0} for rate in (1, 20))
    async with crowd(f"{variant.partition('-')[0]}-{hop(variant)}", nodes=2, first=slow, **quick) as (s, _):
        answers = await asyncio.gather(*(ask(s.port, "GET", f"{PATH}?client=a{n}", UPGRADE) for n in range(12)))
        assert 503 in [answer.status for answer in answers], "both are busy"
        await asyncio.sleep(0.15)
        answers = [await ask(s.port, "GET", f"{PATH}?client=b{n}", UPGRADE) for n in range(2)]
        assert [answer.status for answer in answers] == [101, 101]
