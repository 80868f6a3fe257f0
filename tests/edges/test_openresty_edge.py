"""The OpenResty edge keeps the contract."""

from __future__ import annotations

import re

import pytest

from tests.edges.edge import Stand
from tests.edges.edge_only import EdgeContract
from tests.peer import TEXT, frame


class Openresty(EdgeContract):
    close_code_at_stop = 1001

    def websockets(self, metrics: str) -> int:
        (live,) = re.findall(r"^tidegate_edge_websockets (\d+)$", metrics, re.M)
        return int(live)

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


class TestOpenresty(Openresty):
    variant = "openresty-trunk"
    closes_at_drain = False


@pytest.mark.slow  # as it is for nodes that have no trunk
class TestOpenrestyRelay(Openresty):
    variant = "openresty-tcp"
