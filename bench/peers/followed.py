"""What streams cost Redis that somebody follows and nobody pushes to, and what one push to each of them does.

For the arithmetic of docs/scaling.md: each client that is connected has a stream of its own, which its node follows.
One node's broker runs in this process, on the core beside Redis'; there are no clients. Redis' CPU is measured over
whole checks of the tops (5 s each), and its memory when they are over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as redis_py
import uvloop

from bench.load import system
from bench.load.processes import LOAD_CORE, SERVER_CORE, Program, cpu_s, pss_kib, raise_limits
from bench.peers import systems
from bench.report.machine import machine
from tidegate.brokers import registry
from tidegate.brokers.contract import Broker
from tidegate.config.settings import BrokerSettings, Config
from tidegate.core.model import Gap, Message, NodeInfo, Position, Publication
from tidegate.metrics import Metrics

CHECK_S = 5.0  # Timing.check_s of the broker
AT_ONCE = 500


def add_command(commands: Any) -> None:
    parser = commands.add_parser("followed", help="what Redis spends on streams that are followed")
    parser.add_argument("--streams", type=int, nargs="+", default=[0, 10_000, 50_000], metavar="COUNT")
    parser.add_argument("--checks", type=int, default=4, help="looks at the tops that are measured (5 s each)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for the node, one for Redis", file=sys.stderr)
        return 1
    raise_limits()
    os.sched_setaffinity(0, {SERVER_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as name, systems.redis(Path(name), LOAD_CORE) as (redis, url):
        rows = uvloop.run(_measured(redis, url, sorted(args.streams), args.checks))
    print(
        "| streams followed | Redis, % of a core | Redis, MiB | node, % of a core | node, MiB |\n|---|---|---|---|---|"
    )
    for row in rows:
        print(f"| {row.streams} | {row.redis:.2f} | {row.redis_mib:.1f} | {row.node:.2f} | {row.node_mib:.0f} |")
    _say_each(rows[0], rows[-1])
    print("\n".join(f"- {key}: {value}" for key, value in machine(system.python).items()))
    return 0


@dataclass(frozen=True)
class Row:
    """At rest with so many streams; what a push to each takes of Redis, and what that holds after it."""

    streams: int
    redis: float
    redis_mib: float
    node: float
    node_mib: float
    push_us: float
    push_mib: float


class Nobody:
    """Hears the broker and does nothing."""

    def on_message(self, message: Message) -> None: ...
    def on_gap(self, gap: Gap, position: Position) -> None: ...
    def on_moved(self, stream: str, position: Position) -> None: ...
    def on_order(self, order: Any) -> None: ...


async def _measured(redis: Program, url: str, counts: list[int], checks: int) -> list[Row]:
    broker = registry.make(Config(broker=BrokerSettings(kind="redis", url=url)), "bench.0", Metrics())
    asked: Any = redis_py.Redis.from_url(url, protocol=2)
    await broker.start(Nobody(), NodeInfo("bench.0", "0", 0, 0, False, None))
    rows: list[Row] = []
    followed = 0
    for count in counts:
        for first in range(followed, count, AT_ONCE):
            await asyncio.gather(*(broker.subscribe(_stream(i)) for i in range(first, min(first + AT_ONCE, count))))
        followed = max(followed, count)
        await asyncio.sleep(CHECK_S)
        begun_s, redis_s, node_s = time.monotonic(), cpu_s(redis.pids), time.process_time()
        await asyncio.sleep(checks * CHECK_S)
        spent_s = time.monotonic() - begun_s
        redis_share, node_share = cpu_s(redis.pids) - redis_s, time.process_time() - node_s
        held, node_mib = _mib(asked), pss_kib([os.getpid()]) / 1024
        pushed_s = await _push_to_each(broker, redis, count) if count == counts[-1] else 0.0
        rows.append(
            Row(
                count,
                redis=100 * redis_share / spent_s,
                redis_mib=held,
                node=100 * node_share / spent_s,
                node_mib=node_mib,
                push_us=pushed_s * 1e6 / (count or 1),
                push_mib=_mib(asked),
            )
        )
    await broker.stop()
    return rows


async def _push_to_each(broker: Broker, redis: Program, count: int) -> float:
    """Seconds of Redis' CPU for a message of 100 bytes to each stream."""
    data = b'"' + b"x" * 98 + b'"'
    before_s = cpu_s(redis.pids)
    for first in range(0, count, AT_ONCE):
        await broker.publish([Publication(_stream(i), data) for i in range(first, min(first + AT_ONCE, count))])
    return cpu_s(redis.pids) - before_s


def _stream(number: int) -> str:
    return f"client:user-{number:07d}"


def _mib(asked: Any) -> float:
    return float(asked.info("memory")["used_memory"]) / 2**20


def _say_each(first: Row, last: Row) -> None:
    """What one stream more costs."""
    more = last.streams - first.streams
    if more <= 0:
        return

    def each(name: str, unit: float) -> str:
        return f"{(getattr(last, name) - getattr(first, name)) * unit / more:.2f}"

    look = CHECK_S * 1e6 / 100  # from % of a core to µs between two looks
    after = f"{(last.push_mib - last.redis_mib) * 1024 / last.streams:.2f}"
    print(f"""
- a look at a stream more: {each("redis", look)} µs of Redis, {each("node", look)} µs of its node
- a stream more: {each("redis_mib", 1024)} KiB of Redis, {each("node_mib", 1024)} KiB of its node
- a push to each: {last.push_us:.1f} µs of Redis, which then holds {after} KiB more for each""")
