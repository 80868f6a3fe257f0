"""What the OpenResty edge makes of a node that hangs, and of its own being held up."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from tests.edges.edge import Stand, ask, stand
from tests.edges.lua import session
from tests.peer import TEXT, Peer
from tests.support import eventually
from tidegate.config.settings import Config, HeartbeatSettings
from tidegate.nginx import render

CALL = b'{"type":"call","id":1,"method":"echo","data":1}'
HEARTBEAT = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 0.2, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 1}


async def test_nothing_is_answered_for_a_node_that_may_hang() -> None:
    async with session(lua={"node_lives_s": 0.5}) as (service, peer, _):
        peer.send_text("ping")
        assert await peer.raw() == b"pong"

        def is_relayed() -> bool:
            peer.send_text("Pong")
            return (TEXT, True, b"Pong") in service.received

        await eventually(is_relayed)
        peer.send_text("ping")
        peer.send_text(CALL)
        await eventually(lambda: service.received[-2:] == [(TEXT, True, b"ping"), (TEXT, True, CALL)])
        assert peer.pending() == 0
        service.say(TEXT, b"alive")
        assert await peer.raw() == b"alive"
        peer.send_text("ping")
        assert await peer.raw() == b"pong"
        assert service.received[-1] == (TEXT, True, CALL)


async def test_a_node_that_hangs_is_given_up_and_its_clients_go_to_another() -> None:
    async with stand("openresty", nodes=2, **HEARTBEAT) as s, s.peer("a") as one, s.peer("b") as other:
        nodes = [(await peer.event())["node"] for peer in (one, other)]
        hung = next(node for node in s.nodes if nodes[0].startswith(node.name))
        begun_s = asyncio.get_running_loop().time()
        hung.process.signal(signal.SIGSTOP)
        assert await one.ended() == 1012
        assert asyncio.get_running_loop().time() - begun_s > 0.7
        assert one.close_reason == "service restart"
        assert (await other.ask(type="ping", id=1))["type"] == "pong"
        await one.cut()
        assert (await s.edge.logged(client="a"))["close_code"] == 1012
        await eventually(lambda: _given_up(s))
        assert f"no sign of life from 127.0.0.1:{hung.public}" in s.edge.process.stderr
        hung.process.signal(signal.SIGCONT)


@pytest.mark.parametrize(("interval_s", "timeout_s", "given_up_after_s"), [(30, 60, 60), (60, 60, 90), (50, 60, 75)])
def test_a_quiet_node_is_not_given_up_between_two_of_its_pings(
    interval_s: float, timeout_s: float, given_up_after_s: float
) -> None:
    heartbeat = HeartbeatSettings(websocket_ping_interval=interval_s, websocket_ping_timeout=timeout_s)
    text = render.includes(Config(heartbeat=heartbeat))["openresty_settings.inc"]
    (found,) = re.findall(r'\["node_timeout_s"\]=([0-9.]+)', text)
    assert float(found) == given_up_after_s


async def _given_up(s: Stand) -> bool:
    metrics = (await ask(s.edge.internal, "GET", "/metrics")).body.decode()
    return "\ntidegate_edge_given_up_total 1\n" in metrics


async def test_a_worker_that_was_stopped_judges_nobody_by_that_time() -> None:
    """Nothing comes from the node meanwhile: both were stopped, as when a machine sleeps."""
    async with session(lua={"node_timeout_s": 1.5}) as (service, peer, edge):
        (worker,) = edge.workers()
        os.kill(worker, signal.SIGSTOP)
        await asyncio.sleep(1.8)
        os.kill(worker, signal.SIGCONT)
        await asyncio.sleep(0.1)
        service.say(TEXT, b"alive")
        assert await peer.raw() == b"alive"
        assert peer.close_code is None


@pytest.mark.slow
async def test_a_hung_node_answers_nothing_at_all() -> None:
    """With the real times: the last sign of the node is an interval and 5 s old when the edge falls silent too."""
    heartbeat = {"HEARTBEAT__WEBSOCKET_PING_INTERVAL": 0.5, "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 10}
    async with stand("openresty", rest=True, **heartbeat) as s, s.peer("a") as peer:
        await peer.event()
        s.node.process.signal(signal.SIGSTOP)
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        while await _answers(peer):
            assert loop.time() - begun_s < 7
            await asyncio.sleep(0.1)
        assert loop.time() - begun_s > 4
        assert await peer.ended(10) == 1012
        assert 8 < loop.time() - begun_s < 13
        s.node.process.signal(signal.SIGCONT)


async def _answers(peer: Peer) -> bool:
    peer.send_text("ping")
    try:
        return await peer.raw(0.5) == b"pong"
    except AssertionError:
        return False
