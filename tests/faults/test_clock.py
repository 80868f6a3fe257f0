"""What a clock that is set does to a node by itself. Its work with Redis is in test_faults.py."""

from __future__ import annotations

import sys
import time

import pytest

from tests.edges.edge import environ
from tests.faults.clock import Clock
from tests.peer import Peer
from tests.support import free_ports
from tests.tokens import SECRET, make_token


@pytest.mark.parametrize(("off_s", "lasts_s"), [(7200, 3600), (-7200, -3600)])
async def test_a_token_ends_by_the_clock_of_its_node(tmp_path, start_process, off_s, lasts_s):
    """Set forward it ends who is there; one that has ended is taken again while the clock is behind."""
    clock = Clock(tmp_path / "clock")
    public, internal = free_ports(2)
    settings = {
        "AUTH__MODE": "jwt",
        "AUTH__KEY": SECRET,
        "SERVER__PORT": public,
        "INTERNAL__PORT": internal,
        "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 1,
        "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 2,
    }
    node = start_process(sys.executable, "-m", "tidegate", "serve", env=environ(settings) | clock.environ)
    await node.line("service.started")
    clock.set(min(off_s, 0))
    token = make_token(exp=time.time() + lasts_s)
    async with Peer(public, headers={"Authorization": f"Bearer {token}"}) as alice:
        await alice.event()
        clock.set(max(off_s, 0))
        assert await alice.ended(10) == 4009
