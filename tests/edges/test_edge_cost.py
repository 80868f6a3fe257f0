"""What a probe costs a handshake: runs with and without it, in turn. ``pytest tests/edges/test_edge_cost.py -rP``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from pathlib import Path
from statistics import median

import pytest

from tests.edges.edge import Stand, stand
from tests.handshakes import handshake
from tests.support import eventually

PAIRS = 5
HANDSHAKES = 600
AT_ONCE = 20


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["plain", "njs"])
async def test_a_probe_costs_less_than_a_handshake(variant: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stands = {}
        for how in ("without", "with"):
            stands[how] = await stack.enter_async_context(stand(variant, nodes=2))
        _probe_no_more(stands["without"])
        await stands["without"].edge.reload()
        await eventually(lambda: len(stands["without"].edge.workers()) == 1)  # the old one has no CPU time when it ends
        found: dict[str, list[tuple[float, float]]] = {how: [] for how in stands}
        for s in stands.values():
            await _measure(s, AT_ONCE)
        for _, (how, s) in itertools.product(range(PAIRS), stands.items()):
            found[how].append(await _measure(s, AT_ONCE))
        cpu_us = {how: median(cpu for cpu, _ in figures) for how, figures in found.items()}
        for how, figures in found.items():
            waited_ms = median(waited for _, waited in figures)
            print(
                f"{variant} {how}: {cpu_us[how]:.0f} us of nginx and nodes, {waited_ms:.1f} ms with {AT_ONCE} at once"
            )
        assert cpu_us["with"] < 2 * cpu_us["without"]


def _probe_no_more(s: Stand) -> None:
    text = s.edge.file.read_text()
    assert "auth_request" in text
    s.edge.file.write_text(text.replace("auth_request /.probe;", ""))


async def _measure(s: Stand, at_once: int) -> tuple[float, float]:
    """Microseconds of CPU for a handshake, of nginx and all nodes, and the median of the milliseconds that one took."""
    pids = [*s.edge.workers(), *(node.process.pid for node in s.nodes)]
    waited_ms: list[float] = []
    numbers = iter(range(HANDSHAKES))

    async def client() -> None:
        for number in numbers:
            begun_s = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", s.port)
            writer.write(handshake(target=f"/ws-notifications/?client=c{number}"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
            waited_ms.append((time.perf_counter() - begun_s) * 1000)
            writer.transport.abort()

    before_s = sum(map(_cpu_s, pids))
    await asyncio.gather(*(client() for _ in range(at_once)))
    return (sum(map(_cpu_s, pids)) - before_s) / HANDSHAKES * 1e6, median(waited_ms)


def _cpu_s(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
