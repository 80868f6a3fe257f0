"""The njs edge keeps the contract."""

from __future__ import annotations

import re

import pytest

from tests.edges.edge import ask, stand
from tests.edges.edge_only import EdgeContract
from tests.support import eventually


class TestNjs(EdgeContract):
    variant = "njs"

    def websockets(self, metrics: str) -> int:
        (live,) = re.findall(r"^tidegate_edge_websockets (\d+)$", metrics, re.M)
        return int(live)

    async def test_clients_that_leave_amid_answers_cost_no_worker(self) -> None:
        async with stand(self.variant, rest=True) as s:
            s.provoked("pending events")  # calls under way, which njs cannot cancel
            s.provoked(r"send\(\) returned zero")  # and whose request njs 0.7.9 may go on sending when it has been sent
            workers = await eventually(s.edge.workers)
            for _ in range(10):
                peers = [s.peer(f"p{n}", groups="news") for n in range(8)]
                for peer in peers:
                    await peer.connect()
                    await peer.event()
                await s.node.push("groups/news", "x" * 60_000)
                for peer in peers:
                    peer.send(type="call", id=1, method="echo", data=1)
                    for _ in range(5):
                        peer.send_text("ping")
                    await peer.cut()
            async with s.peer("last") as last:
                assert (await last.event())["type"] == "welcome"
            assert s.edge.workers() == workers

    @pytest.mark.timeout(seconds=90)
    async def test_answers_that_did_not_fit_arrive_as_soon_as_the_client_reads(self) -> None:
        calls = 80
        # All may be under way at once.
        room = {"EDGE__SESSION_BYTES": 100_000_000, "EDGE__SESSION_CALLS": 2000, "LIMITS__CALLS_IN_FLIGHT": calls}
        async with stand(self.variant, rest=True, **room) as s, s.peer("alice") as alice:
            await alice.event()
            alice.reading.clear()
            for number in range(calls):
                alice.send(type="call", id=number, method="echo", data="x" * 60_000)

            async def all_answered() -> bool:
                return bool((await ask(s.rest_port, "GET", "/stats")).json["requests"]["njs"] == calls)

            await eventually(all_answered, 15)
            alice.reading.set()
            assert {(await alice.event())["status"] for _ in range(calls)} == {200}
            assert alice.pongs == []


@pytest.mark.slow  # one node is reached over a Unix socket, where nothing else is said
class TestNjsOverTcp(TestNjs):
    variant = "njs-tcp"
