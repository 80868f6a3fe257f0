"""Many idle connections and some busy ones, long enough for a leak or a wrong close to show."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import picows
import pytest

from tests.support import Process, eventually, free_port

IDLE, ACTIVE, SECONDS = 5000, 200, 120
PER_SECOND = 20  # messages to the active ones' group


class Listener(picows.WSListener):
    """Counts what comes; answers pings as picows does by itself."""

    def __init__(self) -> None:
        self.messages = 0
        self.closed = False
        self.transport: picows.WSTransport | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == picows.WSMsgType.TEXT and frame.get_payload_as_bytes().startswith(b'{"type":"message"'):
            self.messages += 1

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.closed = True


def memory_kib(pid: int) -> int:
    """Proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError


@pytest.mark.slow
async def test_5000_idle_and_200_active_connections_for_two_minutes(start_process: Callable[..., Process]) -> None:
    port, internal = free_port(), free_port()
    service = start_process(
        ".venv/bin/python",
        "-m",
        "tidegate",
        "serve",
        env={
            "TIDEGATE_SERVER__PORT": str(port),
            "TIDEGATE_INTERNAL__PORT": str(internal),
            "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_INTERVAL": "10",
            "TIDEGATE_HEARTBEAT__WEBSOCKET_PING_TIMEOUT": "20",
            "TIDEGATE_LOG__LEVEL": "warning",
            "TIDEGATE_SERVER__DRAIN_S": "1",
        },
    )
    await service.port(internal)
    url = f"ws://127.0.0.1:{port}/ws-notifications/?client="
    idle = await _connect(url + "idle{n}", IDLE)
    active = await _connect(url + "active{n}&groups=busy", ACTIVE)
    async with aiohttp.ClientSession() as http:
        sent, early_kib, begun_s = 0, 0, time.monotonic()
        while (passed_s := time.monotonic() - begun_s) < SECONDS:
            answer = await http.post(f"http://127.0.0.1:{internal}/api/groups/busy/push", json={"data": {"n": sent}})
            assert answer.status == 202
            sent += 1
            if not early_kib and passed_s > 30:
                early_kib = memory_kib(service.pid)  # journals and pools have their size
            await asyncio.sleep(max(0.0, begun_s + sent / PER_SECOND - time.monotonic()))
        await eventually(lambda: all(listener.messages == sent for listener in active))
        grown_kib = memory_kib(service.pid) - early_kib
        metrics = await (await http.get(f"http://127.0.0.1:{internal}/metrics")).text()
    print(f"{sent} messages to {ACTIVE}, {IDLE} idle: {early_kib} KiB, grown by {grown_kib} KiB")
    assert not any(listener.closed for listener in idle + active)
    assert not re.search(r"^tidegate_closes_total{.*} [^0]", metrics, re.MULTILINE)
    assert f"tidegate_connections {IDLE + ACTIVE}" in metrics
    assert grown_kib < 4096  # the journal keeps a thousand messages; nothing else may grow
    for listener in idle + active:
        assert listener.transport is not None
        listener.transport.disconnect()
    assert await service.stop() == 0
    assert not [line for line in service.lines() if '"level":"error"' in line or '"level":"warning"' in line]


async def _connect(url: str, count: int) -> list[Listener]:
    listeners: list[Listener] = []
    for start in range(0, count, 50):
        pairs = await asyncio.gather(
            *(picows.ws_connect(Listener, url.format(n=n)) for n in range(start, min(start + 50, count)))
        )
        listeners += [listener for _, listener in pairs if isinstance(listener, Listener)]
    return listeners
