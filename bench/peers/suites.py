"""What ``python -m bench peers`` measures.

A suite starts its servers and gives, for each series, what makes one sample; the runner calls them in turn, round after
round, so that what the machine does meanwhile meets all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

from bench.load.loader import Loader
from bench.load.processes import LOAD_CORE, BenchError
from bench.load.publisher import LoadError
from bench.load.system import System
from bench.peers import systems
from bench.report.stats import Sample, Target

Measure: TypeAlias = Callable[[], Sample]


@dataclass(frozen=True)
class Size:
    """How much is done. ``rounds`` are counted without the one to warm up; the rest is per round and server."""

    rounds: int
    fan_out_rounds: int  # the kernel's `send` is nearly all of it, and varies by a tenth from one round to the next
    connections: int
    messages: int
    batched: int  # messages, 20 in each batch
    echoes: int
    echo_connections: int
    handshakes: int
    pushes: int
    batch_pushes: int
    idle_connections: int
    idle_s: float
    idle_rounds: int  # long ones, which vary little
    redis_group: int  # of three nodes
    redis_messages: int


FULL = Size(
    rounds=7,
    fan_out_rounds=15,
    connections=2000,
    messages=50,
    batched=200,
    echoes=30_000,
    echo_connections=100,
    handshakes=2000,
    pushes=4000,
    batch_pushes=20_000,
    idle_connections=15_000,
    idle_s=32,  # each connection is pinged once in 30 s
    idle_rounds=5,
    redis_group=3000,
    redis_messages=50,
)
QUICK = Size(
    rounds=1,
    fan_out_rounds=1,
    connections=200,
    messages=20,
    batched=60,
    echoes=1000,
    echo_connections=50,
    handshakes=100,
    pushes=200,
    batch_pushes=1000,
    idle_connections=500,
    idle_s=1,
    idle_rounds=1,
    redis_group=300,
    redis_messages=10,
)


@dataclass(frozen=True)
class Context:
    size: Any  # of the command
    folder: Path  # of this suite's own, for configurations and logs
    stack: ExitStack  # ends what the suite started
    problems: list[str]

    def start(self, *contexts: AbstractContextManager[System]) -> list[System]:
        """Those that could be started; of the others it is a problem of the run."""
        found = []
        for each in contexts:
            try:
                found.append(self.stack.enter_context(each))
            except BenchError as exc:
                self.problems.append(str(exc))
        return found


@dataclass(frozen=True)
class Suite:
    """``prepare`` starts the servers; its keys are the series. ``rounds``: how many of a size it makes."""

    name: str
    title: str
    unit: str
    prepare: Callable[[Context], dict[str, Measure]]
    how: str
    rounds: Callable[[Any], int] = attrgetter("rounds")


def _crowd(context: Context, started: list[System], connect: str = "gather") -> list[tuple[System, Loader]]:
    """Each server with a load client of its own, and all its clients connected."""
    found = []
    for system in started:
        loader = context.stack.enter_context(Loader(context.folder, system.name))
        loader.ask(connect, **system.connect(context.size.connections))
        found.append((system, loader))
    return found


def _fan_out(context: Context) -> dict[str, Measure]:
    size = context.size
    started = context.start(
        systems.peer(context.folder, "floor"),
        systems.tidegate(context.folder),
        systems.peer(context.folder, "gorilla"),
        systems.nchan(context.folder),
        systems.peer(context.folder, "websockets"),
        systems.peer(context.folder, "tornado"),
    )
    measures: dict[str, Measure] = {}
    for system, loader in _crowd(context, started):
        fan_out = partial(loader.sample, system, "fan_out", "deliveries", publish=system.publish)
        measures[system.name] = partial(fan_out, messages=size.messages, batch=1)
        if system.tidegate:
            measures["tidegate, batches of 20"] = partial(fan_out, messages=size.batched, batch=20)
    return measures


def _round_trip(context: Context) -> dict[str, Measure]:
    size = context.size
    started = context.start(
        systems.peer(context.folder, "floor"),
        systems.tidegate(context.folder),
        systems.wire(context.folder),
        systems.peer(context.folder, "gorilla"),
        systems.peer(context.folder, "websockets"),
        systems.peer(context.folder, "tornado"),
    )
    order = {"count": size.echoes, "connections": size.echo_connections}
    return {
        system.name: partial(loader.sample, system, "echo", "round_trips", **order)
        for system, loader in _crowd(context, started)
    }


def _memory(context: Context) -> dict[str, Measure]:
    folder, count = context.folder, context.size.connections

    def measure(start: Callable[[], AbstractContextManager[System]]) -> Sample:
        with ExitStack() as stack:
            try:
                system = stack.enter_context(start())
            except BenchError as exc:
                return Sample(None, fault=str(exc))
            loader = stack.enter_context(Loader(folder, system.name))
            loader.ask("settle", pids=system.pids)
            before_kib = system.pss_kib
            try:
                loader.ask("connect", **system.connect(count))
                loader.ask("settle", pids=system.pids)
                after_kib = system.pss_kib
                loader.ask("idle", seconds=0, pids=system.pids)
            except LoadError as exc:
                return Sample(None, fault=f"{system.name}: {exc}")
            more = {"before_kib": before_kib, "after_kib": after_kib, "connections": count}
            return Sample((after_kib - before_kib) / count, more=more)

    starts: dict[str, Callable[[], AbstractContextManager[System]]] = {
        "floor": partial(systems.peer, folder, "floor"),
        "tidegate": partial(systems.tidegate, folder),
        "nchan": partial(systems.nchan, folder),
        "gorilla": partial(systems.peer, folder, "gorilla"),
        "websockets": partial(systems.peer, folder, "websockets"),
        "tornado": partial(systems.peer, folder, "tornado"),
    }
    return {name: partial(measure, start) for name, start in starts.items()}


def _handshake(context: Context) -> dict[str, Measure]:
    enter, count = context.stack.enter_context, context.size.handshakes
    measures: dict[str, Measure] = {}

    def add(name: str, system: System, fresh: bool = False) -> None:
        loader = enter(Loader(context.folder, name.replace(" ", "-")))
        asked = system.connect(0)
        order = {"url": asked["urls"][0], "token_key": asked["token_key"], "welcome": asked["welcome"], "fresh": fresh}
        measures[name] = partial(loader.sample, system, "handshakes", "count", count=count, **order)

    started = context.start(
        systems.peer(context.folder, "floor"),
        systems.tidegate(context.folder),
        systems.peer(context.folder, "gorilla"),
        systems.nchan(context.folder),
        systems.peer(context.folder, "websockets"),
        systems.peer(context.folder, "tornado"),
    )
    for system in started:
        add(system.name, system)
        if system.tidegate:
            add("tidegate, new tokens", system, fresh=True)
    return measures


def _push(context: Context) -> dict[str, Measure]:
    size = context.size
    started = context.start(systems.tidegate(context.folder), systems.peer(context.folder, "tornado"))
    crowd = _crowd(context, started, connect="connect")
    measures: dict[str, Measure] = {}
    for system, loader in crowd:
        posts = partial(loader.sample, system, "posts", "pushes", port=system.http_port)
        if system.tidegate:
            measures["tidegate"] = partial(posts, kind="each", count=size.pushes, parallel=4, batch=1)
            many = partial(posts, count=size.batch_pushes, parallel=4, batch=100)
            measures["tidegate, batches of 100"] = partial(many, kind="each")
            # In one request after the other: batches under way together have no order.
            measures["tidegate, batches of 100 to one"] = partial(many, kind="one", parallel=1)
        else:
            measures["tornado's empty POST"] = partial(posts, kind="empty", count=size.pushes, parallel=4, batch=1)
    return measures


def _idle(context: Context) -> dict[str, Measure]:
    size = context.size
    page = context.folder / "turns"
    page.write_bytes(bytes(16))
    system = context.stack.enter_context(systems.tidegate(context.folder, turns=page))
    loader = context.stack.enter_context(Loader(context.folder, system.name))
    loader.ask("connect", **system.connect(size.idle_connections))
    loader.ask("settle", pids=system.pids)
    longest: list[Sample] = []

    def window() -> Sample:
        with page.open("r+b") as file:
            file.write(bytes(16))
        longest.clear()
        try:
            answer = loader.ask("idle", seconds=size.idle_s, pids=system.pids)
        except LoadError as exc:
            longest.append(Sample(None, fault=f"tidegate: {exc}"))
            return longest[0]
        longest_ns, turns = struct.unpack("QQ", page.read_bytes())
        if not turns:
            longest.append(Sample(None, fault="tidegate: no turn of its loop was seen"))
        else:
            longest.append(Sample(longest_ns / 1e6, more={"turns": turns}))
        share = answer["server_cpu_s"] / answer["wall_s"]
        client_share = answer["client_cpu_s"] / answer["wall_s"]
        return Sample(100 * share, client_share, share, more=answer)

    return {"CPU, % of a core": window, "longest turn, ms": lambda: longest[0]}


def _redis(context: Context) -> dict[str, Measure]:
    enter, size, folder = context.stack.enter_context, context.size, context.folder
    _, url = enter(systems.redis(folder, LOAD_CORE))
    nodes = enter(systems.tidegate(folder, name="three nodes with Redis", nodes=3, redis_url=url))
    one = enter(systems.tidegate(folder, name="one node in memory"))
    three = enter(systems.tidegate(folder, name="three nodes in memory", nodes=3))
    measures: dict[str, Measure] = {}
    for system in (one, nodes, three):
        loader = enter(Loader(folder, system.name))
        loader.ask("gather", **system.connect(size.redis_group))
        order = {"publish": system.publish, "messages": size.redis_messages, "batch": 1}
        measures[system.name] = partial(loader.sample, system, "fan_out", "deliveries", **order)
    return measures


SUITES = (
    Suite(
        "fan-out",
        "Fan-out to a group",
        "µs of CPU per delivery",
        _fan_out,
        "each message to all clients; the next when all have it",
        attrgetter("fan_out_rounds"),
    ),
    Suite(
        "round-trip",
        "Command round trip",
        "µs of CPU per round trip",
        _round_trip,
        "the service parses and answers a JSON ping; the others send it back",
    ),
    Suite(
        "memory",
        "Memory per idle connection",
        "KiB",
        _memory,
        "PSS of a fresh process, before and after all connected",
        attrgetter("idle_rounds"),
    ),
    Suite(
        "handshake",
        "Handshake",
        "µs of CPU per handshake",
        _handshake,
        "the service with an HS256 token (seen before, but for one row), group and welcome; the others without",
    ),
    Suite(
        "push",
        "Push to one client by HTTP",
        "µs of CPU per push",
        _push,
        "clients in turn, four kept HTTP connections, delivery included; beside it an empty Tornado JSON POST",
    ),
    Suite(
        "idle",
        "Idle connections",
        "see the series",
        _idle,
        "clients answer pings and do nothing else",
        attrgetter("idle_rounds"),
    ),
    Suite(
        "redis",
        "Fan-out with Redis and three nodes",
        "µs of CPU per delivery",
        _redis,
        "all nodes on one core, CPU of all of them, without Redis' own; three in memory, each told by itself, show what"
        " three processes on one core cost",
        attrgetter("fan_out_rounds"),
    ),
)

TARGETS = (
    Target("fan-out to a group, CPU per delivery", "fan-out", "tidegate", "floor", 1.2),
    Target("fan-out to a group, CPU per delivery", "fan-out", "tidegate", "gorilla", 1, below=True),
    Target("20 messages in one batch, CPU per delivery", "fan-out", "tidegate, batches of 20", "tidegate", 0.35),
    Target("command round trip, CPU", "round-trip", "tidegate", "gorilla", 0.6),
    Target("memory per idle connection in one group", "memory", "tidegate", None, 7, unit="KiB"),
    Target("memory per idle connection in one group", "memory", "tidegate", "nchan", 1, below=True),
    Target("handshake with a token, CPU", "handshake", "tidegate", "tornado", 0.6),
    Target("push to one client by HTTP, CPU", "push", "tidegate", "tornado's empty POST", 1.3),
    Target("push in a batch of 100, CPU of each", "push", "tidegate, batches of 100", "tornado's empty POST", 0.15),
    Target("idle connections: heartbeats", "idle", "CPU, % of a core", None, 3, unit="% of a core"),
    Target("idle connections: longest turn", "idle", "longest turn, ms", None, 20, unit="ms of CPU"),
    Target("fan-out with Redis, three nodes", "redis", "three nodes with Redis", "one node in memory", 1.1),
)
