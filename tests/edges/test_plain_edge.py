"""The plain edge keeps the contract."""

from __future__ import annotations

import re
import signal

import pytest

from tests.edges.edge import stand
from tests.edges.edge_only import EdgeContract
from tests.peer import Refusal


class TestPlain(EdgeContract):
    variant = "plain"

    def websockets(self, metrics: str) -> int:
        (writing,) = re.findall(r'^tidegate_edge_connections{variant="plain",state="writing"} (\d+)$', metrics, re.M)
        return int(writing) - 1

    async def test_a_service_that_hangs_is_given_up_after_the_read_timeout(self) -> None:
        settings = {
            "HEARTBEAT__WEBSOCKET_PING_INTERVAL": 0.1,
            "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 0.5,
            "HEARTBEAT__WRITE_TIMEOUT_S": 1,
            "EDGE__READ_TIMEOUT_S": 1,
            "LIMITS__HANDSHAKE_WAIT_S": 0.5,
        }
        async with stand(self.variant, **settings) as s, s.peer("alice") as alice:
            await alice.event()
            s.provoked("upstream timed out")
            s.node.process.signal(signal.SIGSTOP)
            assert await alice.ended() is None
            with pytest.raises(Refusal) as info:
                await s.peer("late").connect()
            assert (info.value.status, info.value.code) == (502, "unavailable")


@pytest.mark.slow  # one node is reached over a Unix socket, where nothing else is said
class TestPlainOverTcp(TestPlain):
    variant = "plain-tcp"
