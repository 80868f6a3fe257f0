"""What ``python -m bench stack`` measures: nginx and the service together, on one core unless a suite says otherwise.

Suites and rounds are those of ``bench peers``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from bench.load.loader import Loader
from bench.load.processes import BenchError
from bench.load.publisher import LoadError
from bench.load.system import System, built
from bench.peers import systems as peers
from bench.peers.suites import Context, Measure, Suite
from bench.report.stats import Sample, Target
from bench.stack import systems

MEMBERS = 10  # of each of many groups
_TURN = ": nginx' longest turn, CPU"
EDGES = ("plain-tcp", "plain", "openresty-relay", "openresty")


@dataclass(frozen=True)
class Size:
    """``rounds`` are counted without the one to warm up."""

    rounds: int
    groups: tuple[int, int]  # members of the one group
    messages: int
    many_groups: int
    to_each: int  # messages
    handshakes: int
    connections: int  # that are idle
    idle_rounds: int
    sessions: int  # beside the neighbour; those that are relayed are two files each
    relayed_sessions: int
    neighbour_s: float
    workers_connections: int


FULL = Size(
    rounds=7,
    groups=(1000, 2000),
    messages=50,
    many_groups=100,
    to_each=50,
    handshakes=1000,
    connections=2000,
    idle_rounds=5,
    sessions=10_000,
    relayed_sessions=9_000,
    neighbour_s=0.6,
    workers_connections=2000,
)
QUICK = Size(
    rounds=1,
    groups=(100, 200),
    messages=10,
    many_groups=10,
    to_each=10,
    handshakes=50,
    connections=100,
    idle_rounds=1,
    sessions=500,
    relayed_sessions=400,
    neighbour_s=0.2,
    workers_connections=200,
)


def _all(context: Context) -> list[AbstractContextManager[System]]:
    folder = context.folder
    edges = [systems.edge(name, folder) for name in EDGES]
    return [*edges, peers.nchan(folder), systems.gorilla(folder)]


def _fan_out(context: Context, which: int) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for system in context.start(*_all(context)):
        loader = context.stack.enter_context(Loader(context.folder, system.name))
        loader.ask("gather", **system.connect(context.size.groups[which]))
        order = {"publish": system.publish, "messages": context.size.messages, "batch": 1}
        found[system.name] = partial(loader.sample, system, "fan_out", "deliveries", **order)
    return found


def _groups(context: Context) -> dict[str, Measure]:
    size = context.size
    found: dict[str, Measure] = {}
    for system in context.start(*(systems.edge(name, context.folder, groups=size.many_groups) for name in EDGES)):
        loader = context.stack.enter_context(Loader(context.folder, system.name))
        loader.ask("gather", **system.connect(size.many_groups * MEMBERS))
        order = {"publish": system.publish, "messages": size.to_each, "batch": 1}
        found[system.name] = partial(loader.sample, system, "fan_out", "deliveries", **order)
    return found


def _handshake(context: Context) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for system in context.start(*_all(context)):
        loader = context.stack.enter_context(Loader(context.folder, system.name))
        asked = system.connect(0)
        order = {"url": asked["urls"][0], "token_key": asked["token_key"], "welcome": asked["welcome"], "fresh": False}
        count = context.size.handshakes
        found[system.name] = partial(loader.sample, system, "handshakes", "count", count=count, **order)
    return found


def _idle(context: Context) -> dict[str, Measure]:
    rounds = [0]

    def measure(start: Callable[[Path], AbstractContextManager[System]]) -> Sample:
        rounds[0] += 1
        folder = context.folder / str(rounds[0])
        folder.mkdir()
        folder.chmod(0o755)
        with ExitStack() as stack:
            try:
                system = stack.enter_context(start(folder))
                loader = stack.enter_context(Loader(folder, system.name))
                loader.ask("handshakes", **_few(system))  # what the first clients alone cost is none of each one's
                loader.ask("settle", pids=system.pids)
                before_kib = system.pss_kib
                loader.ask("gather", **system.connect(context.size.connections))
                loader.ask("settle", pids=system.pids)
                each_kib = (system.pss_kib - before_kib) / context.size.connections
                loader.ask("idle", seconds=0, pids=[])
            except (BenchError, LoadError) as exc:
                return Sample(None, fault=str(exc))
            return Sample(each_kib)

    starts: dict[str, Callable[[Path], AbstractContextManager[System]]] = {"nchan": peers.nchan}
    starts |= {name: partial(systems.edge, name) for name in EDGES}
    return {name: partial(measure, start) for name, start in starts.items()}


def _few(system: System) -> dict[str, object]:
    asked = system.connect(0)
    return {
        **{"url": asked["urls"][0], "token_key": asked["token_key"], "welcome": asked["welcome"]},
        **{"count": 5, "fresh": False, "pids": []},
    }


def _neighbour(context: Context) -> dict[str, Measure]:
    size = context.size
    found: dict[str, Measure] = {}
    for name in ("plain", "openresty-relay", "openresty"):
        page = context.folder / f"{name}.turns"
        page.write_bytes(bytes(16))
        page.chmod(0o666)  # nginx' worker is another user
        env = {"LD_PRELOAD": str(built("peers/turns.c")), "BENCH_TURNS": str(page)}
        sessions = size.sessions if name == "openresty" else size.relayed_sessions
        for system in context.start(systems.edge(name, context.folder, nginx_env=env)):
            loader = context.stack.enter_context(Loader(context.folder, name))
            loader.ask("gather", **system.connect(sessions))
            _beside(found, name, system, loader, page, size.neighbour_s)
    return found


def _beside(found: dict[str, Measure], name: str, system: System, loader: Loader, page: Path, seconds: float) -> None:
    """The series of one mode: the longest wait, the same without a message, and the longest turn of nginx."""
    kept: dict[str, float] = {}

    def held_up() -> Sample:
        kept.clear()
        with page.open("r+b") as file:
            file.write(bytes(16))
        url, key = system.urls[0].partition("?")[0], system.connect(0)["token_key"]
        order = {"url": url, "token_key": key, "publish": system.publish, "seconds": seconds}
        try:
            answer = loader.ask("neighbour", **order, pids=system.pids)
        except LoadError as exc:
            return Sample(None, fault=f"{name}: {exc}")
        kept["alone"], kept["turn"] = answer["alone_ms"], struct.unpack("QQ", page.read_bytes())[0] / 1e6
        return Sample(answer["beside_ms"], more=answer)

    def beside(what: str) -> Sample:
        return Sample(kept.get(what))

    found[name] = held_up
    found[f"{name}: without a message"] = partial(beside, "alone")
    found[name + _TURN] = partial(beside, "turn")


def _workers(context: Context) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    for workers, name in ((1, "one worker"), (2, "two workers")):
        folder = context.folder / str(workers)
        folder.mkdir()
        folder.chmod(0o755)
        settings = {"EDGE__WORKERS": workers}
        for system in context.start(systems.edge("openresty", folder, settings=settings, nginx_cores="0,1")):
            loader = context.stack.enter_context(Loader(folder, name))
            loader.ask("gather", **system.connect(context.size.workers_connections))
            order = {"publish": system.publish, "messages": context.size.messages, "batch": 1}
            found[name] = partial(_wall, loader, system, order)
    return found


def _wall(loader: Loader, system: System, order: dict[str, object]) -> Sample:
    """µs from one delivery to the next, over all clients."""
    sample = loader.sample(system, "fan_out", "deliveries", **order)
    if sample.value is None:
        return sample
    sample.value = sample.more["wall_s"] * 1e6 / sample.more["deliveries"]
    sample.client_share = 0.0  # it shares the cores, and is meant to be in the figure
    return sample


CPU = "µs of CPU per delivery"
SUITES = (
    Suite("group-1000", "A message to a group of 1,000", CPU, partial(_fan_out, which=0), "the next when all have it"),
    Suite("group-2000", "A message to a group of 2,000", CPU, partial(_fan_out, which=1), "the next when all have it"),
    Suite("groups", f"Groups of {MEMBERS}", CPU, _groups, "one message to each of 100 groups in one request"),
    Suite(
        "handshake",
        "Handshake",
        "µs of CPU per handshake",
        _handshake,
        "50 at a time; Tidegate's with a token that was seen before, a group and the welcome, the others without",
    ),
    Suite(
        "idle",
        "Memory per idle connection",
        "KiB",
        _idle,
        "PSS of fresh processes, before and after all connected",
        attrgetter("idle_rounds"),
    ),
    Suite(
        "neighbour",
        "A neighbour's heartbeat while many get a message",
        "ms",
        _neighbour,
        f"the longest of those that one asks without a pause, beside {FULL.sessions:,} sessions on trunks or "
        f"{FULL.relayed_sessions:,} that are relayed, who read afterwards; the service and nginx share the core",
        attrgetter("idle_rounds"),
    ),
    Suite(
        "workers",
        "One worker and two",
        "µs of time per delivery",
        _workers,
        "a group of 2,000; nginx on both cores, the service on one, the load client on the other",
    ),
)

TARGETS = (
    *(
        target
        for suite in ("group-1000", "group-2000")
        for target in (
            Target(f"{suite}, CPU per delivery", suite, "openresty", "nchan", 1.15),
            Target(f"{suite}, CPU per delivery", suite, "openresty", "plain-tcp", 0.5),
        )
    ),
    Target("groups of 10, CPU per delivery", "groups", "openresty", "plain", 1),
    Target("handshake, CPU", "handshake", "openresty", "openresty-relay", 0.85),
    Target("memory per idle connection", "idle", "openresty", "plain", 0.8),
    Target("memory per idle connection", "idle", "openresty", None, 20, unit="KiB"),
    Target("a neighbour's heartbeat", "neighbour", "openresty", None, 5, unit="ms"),
    Target("a neighbour: nginx' longest turn", "neighbour", f"openresty{_TURN}", None, 5, unit="ms"),
    Target("time per delivery with two workers", "workers", "two workers", "one worker", 0.625),
)
