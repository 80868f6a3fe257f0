"""Many nodes, one Redis: what a push costs and how long it takes.

Nodes are real processes on one core; Redis, and this process with all members and pushers, are on the other. What Redis
does anyhow (beats, canaries, looks at tops) is measured first and taken off. A run in which a message was lost,
repeated or out of order has no figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import shlex
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

import redis as redis_py
import uvloop

from bench.load import system
from bench.load.processes import LOAD_CORE, SERVER_CORE, BenchError, Program, cpu_s, free_ports, raise_limits
from bench.load.publisher import LoadError
from bench.peers import systems
from bench.peers.redis_load import EVERYBODY, GROUPS, PUSHERS, Members, Pushers
from bench.report.machine import machine, results_folder
from bench.report.run import number

TOPOLOGIES = (1, 3)
ENTRIES = 1000  # of the journal that is weighed


@dataclass(frozen=True)
class Size:
    members: int
    pushes: int
    rate: int  # pushes per second to everybody, for the times
    seconds: float
    idle_s: float


FULL = Size(members=1000, pushes=10_000, rate=10, seconds=20, idle_s=5)
QUICK = Size(members=200, pushes=1000, rate=10, seconds=2, idle_s=2)

Figures = dict[str, str]  # what was measured -> the figure


def add_command(commands: Any) -> None:
    parser = commands.add_parser("redis", help="pushes per second, times and cost with one and with three nodes")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works")
    parser.add_argument("--out", type=Path, help="folder for redis.md (default: bench/results/<date>-<machine>)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0, or 1 where something was lost or could not be measured."""
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for the nodes, one for the load", file=sys.stderr)
        return 1
    size = QUICK if args.quick else FULL
    out = args.out or results_folder(quick=args.quick)
    raise_limits()
    os.sched_setaffinity(0, {LOAD_CORE})
    made_on = machine(system.python)
    columns: dict[int, Figures] = {}
    try:
        for count in TOPOLOGIES:
            print(f"{count} node{'s' * (count > 1)}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-") as name, _nodes(Path(name), count) as nodes:
                columns[count] = uvloop.run(_Measurement(nodes, size).run())
    except (BenchError, LoadError) as exc:
        print(f"no figures: {exc}", file=sys.stderr)
        return 1
    text = _markdown(columns, size, made_on)
    out.mkdir(parents=True, exist_ok=True)
    (out / "redis.md").write_text(text)
    print(text)
    print(f"Written to {out / 'redis.md'}")
    return 0


@dataclass(frozen=True)
class Nodes:
    redis: Program
    url: str
    programs: Sequence[Program]
    public: Sequence[int]
    internal: Sequence[int]


@contextlib.contextmanager
def _nodes(folder: Path, count: int) -> Iterator[Nodes]:
    """The service as it is shipped, with Redis."""
    ports = free_ports(2 * count)
    with contextlib.ExitStack() as stack:
        redis, url = stack.enter_context(systems.redis(folder, LOAD_CORE))
        programs = []
        for public, internal in zip(ports[:count], ports[count:], strict=True):
            env = {
                "TIDEGATE_SERVER__PORT": str(public),
                "TIDEGATE_INTERNAL__PORT": str(internal),
                "TIDEGATE_LIMITS__CONNECTIONS": "15000",
                "TIDEGATE_LOG__LEVEL": "warning",
                "TIDEGATE_BROKER__KIND": "redis",
                "TIDEGATE_BROKER__URL": url,
            }
            args = [system.python, "-m", "tidegate", "serve"]
            programs.append(stack.enter_context(Program(f"node-{public}", args, folder, env=env)))
        for program, public, internal in zip(programs, ports[:count], ports[count:], strict=True):
            program.listens(public)
            program.listens(internal)
        yield Nodes(redis, url, programs, ports[:count], ports[count:])


@dataclass(frozen=True)
class Books:
    """What has been used and done so far."""

    at_s: float
    redis_s: float
    nodes_s: float
    scripts: int  # called by nodes
    reads: int  # of sockets, by Redis: round trips
    wakeups: list[int]  # heard, for each node


class _Measurement:
    def __init__(self, nodes: Nodes, size: Size) -> None:
        self._nodes = nodes
        self._size = size
        self._asked: Any = redis_py.Redis.from_url(nodes.url, protocol=2, decode_responses=True)
        self._members = Members()
        self._figures: Figures = {}
        self._idle: dict[str, float] = {}  # per second

    async def run(self) -> Figures:
        members, nodes = self._members, self._nodes
        pushers = await Pushers.open(nodes.internal, nodes.url)
        try:
            await self._rest()
            await self._one_by_one(pushers)
            await members.connect(nodes.public, self._size.members)
            gc.collect()
            gc.freeze()
            await self._rest()
            self._figures[f"at rest, {self._size.members + GROUPS + 3} streams followed: Redis, % of a core"] = number(
                100 * self._idle["redis_s"]
            )
            await self._timed("HTTP", pushers.push)
            await self._timed("Redis", pushers.add)
            await self._many(f"HTTP, {PUSHERS} requests at a time", pushers.push_many)
            await self._many("HTTP, 100 in a request", pushers.push_batches)
            await self._many("Redis, 100 in a write", pushers.add_many)
            await self._one_node_only(pushers)
            await self._weigh(pushers)
        finally:
            members.disconnect()
            await pushers.close()
            self._asked.close()
        return self._figures

    def _books(self) -> Books:
        calls = self._asked.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        nodes_s = cpu_s([pid for program in self._nodes.programs for pid in program.pids])
        reads = self._asked.info("stats")["total_reads_processed"]
        wakeups = [_counted(port, "tidegate_wakeups_total") for port in self._nodes.internal]
        return Books(time.monotonic(), cpu_s(self._nodes.redis.pids), nodes_s, calls, reads, wakeups)

    async def _rest(self) -> None:
        before = self._books()
        await asyncio.sleep(self._size.idle_s)
        after = self._books()
        seconds = after.at_s - before.at_s
        self._idle = {
            name: (getattr(after, name) - getattr(before, name)) / seconds
            for name in ("redis_s", "nodes_s", "scripts", "reads")
        }
        heard = [b - a for a, b in zip(before.wakeups, after.wakeups, strict=True)]
        self._idle["wakeups"] = sum(heard) / len(heard) / seconds

    async def _timed(self, way: str, push: Callable[[str], Awaitable[None]]) -> None:
        """Pushes to everybody, at times that do not depend on answers."""
        count, members = int(self._size.rate * self._size.seconds), self._members
        target = members.received + count * len(members.all)
        members.took_ms = members.took_ms[:0]
        due_s = time.monotonic()
        running = []
        for _ in range(count):
            await asyncio.sleep(due_s - time.monotonic())
            running.append(asyncio.ensure_future(push(EVERYBODY)))
            due_s += 1 / self._size.rate
        await asyncio.gather(*running)
        await members.have(target)
        cuts = quantiles(members.took_ms, n=100)
        name = f"push to receive, {len(members.all)} members, {self._size.rate} pushes/s through {way}: p50 / p99, ms"
        self._figures[name] = f"{number(cuts[49])} / {number(cuts[98])}"

    async def _many(self, way: str, push: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        """To one group after the other, as fast as they are taken, until the last member has the last."""
        members, pushes = self._members, self._size.pushes
        each = len(members.all) // GROUPS
        groups = [f"g{number % GROUPS}" for number in range(pushes)]
        target = members.received + pushes * each
        before = self._books()
        client_s = time.process_time()
        await push(groups)
        await members.have(target)
        client_s = time.process_time() - client_s
        after = self._books()
        seconds = after.at_s - before.at_s
        redis_s = after.redis_s - before.redis_s - self._idle["redis_s"] * seconds
        nodes_s = after.nodes_s - before.nodes_s
        self._figures[f"pushes/s through {way}, each to {each} members"] = f"{pushes / seconds:.0f}"
        self._figures[f"… its Redis CPU per push, µs ({way})"] = number(redis_s * 1e6 / pushes)
        self._figures[f"… nodes, Redis, load: busy, % of a core ({way})"] = " / ".join(
            f"{100 * used_s / seconds:.0f}" for used_s in (nodes_s, after.redis_s - before.redis_s, client_s)
        )

    async def _one_by_one(self, pushers: Pushers) -> None:
        """One push at a time: nothing can be shared. Before anybody has come, because looks at tops are in bursts."""
        pushes = 500
        before = self._books()
        for index in range(pushes):
            await pushers.push(f"g{index % GROUPS}")
        after = self._books()
        seconds = after.at_s - before.at_s
        scripts = after.scripts - before.scripts - self._idle["scripts"] * seconds
        reads = after.reads - before.reads - self._idle["reads"] * seconds
        self._figures["one push at a time through HTTP: commands / round trips to Redis per push"] = (
            f"{scripts / pushes:.2f} / {reads / pushes:.2f}"
        )

    async def _one_node_only(self, pushers: Pushers) -> None:
        """Member 0, on the first node, is alone in the group."""
        pushes = 500
        target = self._members.received + pushes
        before = self._books()
        await pushers.push_many(["only"] * pushes)
        await self._members.have(target)
        after = self._books()
        seconds = after.at_s - before.at_s
        heard = [
            (b - a - self._idle["wakeups"] * seconds) / pushes
            for a, b in zip(before.wakeups, after.wakeups, strict=True)
        ]
        self._figures["wake-ups per push: node with a member / without"] = " / ".join(
            [f"{heard[0]:.2f}", *(f"{max(heard[1:]):.2f}" for _ in heard[1:2])]
        )

    async def _weigh(self, pushers: Pushers) -> None:
        await pushers.push_batches(["nobody"] * ENTRIES)
        journal = "tidegate:{group:nobody}:journal"
        size = self._asked.memory_usage(journal, samples=0)
        entries = self._asked.xlen(journal)
        meta = self._asked.memory_usage("tidegate:{group:nobody}:meta")
        if entries != ENTRIES:
            raise LoadError(f"the journal has {entries} entries, not {ENTRIES}")
        ((_, fields),) = self._asked.xrange(journal, count=1)
        name = f"bytes per journal entry of {len(fields['d'])} bytes (and per stream, once)"
        self._figures[name] = f"{size / ENTRIES:.0f} ({meta})"


def _counted(port: int, name: str) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return int(float(line.split()[1]))
    raise BenchError(f"{name} is not among the metrics")


def _markdown(columns: dict[int, Figures], size: Size, machine: dict[str, Any]) -> str:
    heads = [f"{count} node{'s' * (count > 1)}" for count in columns]
    lines = ["# Nodes with Redis", "", f"`{shlex.join(['python', '-m', 'bench', *sys.argv[1:]])}`", ""]
    lines += [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in next(iter(columns.values())):
        lines.append(f"| {name} | {' | '.join(figures[name] for figures in columns.values())} |")
    lines += ["", f"Nodes on core {SERVER_CORE}; Redis, members and pushers on core {LOAD_CORE}. {size}", ""]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    lines.append(f"- load average at the end: {os.getloadavg()[0]:.1f}")
    return "\n".join(lines) + "\n"
