"""The OpenResty edge keeps the contract."""

from __future__ import annotations

import re
from functools import partial

import pytest

from tests.edges.edge import Stand, ask
from tests.edges.edge_only import EdgeContract
from tests.peer import TEXT, frame
from tests.support import eventually


class Openresty(EdgeContract):
    close_code_at_stop = 1001

    def websockets(self, metrics: str) -> int:
        (live,) = re.findall(r"^tidegate_edge_websockets (\d+)$", metrics, re.M)
        return int(live)

    async def check_limited(self, s: Stand, refused: int) -> None:
        await eventually(partial(counts, s, f'responses_total{{status="429"}} {refused}'))
        for series in ('responses_total{status="502"}', 'moves_total{outcome="failed"}', "call_seconds_count"):
            assert await counts(s, f"{series} 0")

    async def check_passed_over(self, s: Stand) -> None:
        draining, dead, lives = (node.upstream for node in s.nodes)
        for name in (draining, dead):
            await eventually(partial(counts, s, f'passed_over_total{{node="{name}"}} [1-9]'))
        assert await counts(s, f'passed_over_total{{node="{lives}"}} 0')
        assert await counts(s, f'node_down{{node="{lives}"}} 0')

    async def test_a_client_that_goes_on_sending_hears_why_it_is_closed(self, s: Stand, name: str) -> None:
        s.provoked("reset by peer|Broken pipe")
        more = frame(TEXT, b"x" * 1000) * 100
        for _ in range(20):
            async with s.peer(name) as peer:
                await peer.event()
                peer.send_raw(frame(TEXT, b"\xff") + more)
                for _ in range(10):
                    peer.send_raw(more)
                assert await peer.ended() == 1007


async def counts(s: Stand, line: str) -> bool:
    text = (await ask(s.edge.internal, "GET", "/metrics")).body.decode()
    return re.search(f"^tidegate_edge_{line}", text, re.MULTILINE) is not None


class TestOpenresty(Openresty):
    variant = "openresty-trunk"
    closes_at_drain = False


@pytest.mark.slow  # as it is for nodes that have no trunk
class TestOpenrestyRelay(Openresty):
    variant = "openresty-tcp"
