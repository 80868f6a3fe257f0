"""Whether anything leaks, and whether anybody is closed who should not be: many idle connections, some busy ones, and
some that come and go, for as long as you like.

Who comes: one half with a cursor and something missed, the other with ``cursor=last``; two in three say goodbye, the
others are cut. Their names, and the groups, are a pool, so that what is kept for long (records, journals) ends to grow.
The slope is the median of the slopes between any two looks after the warm-up (Theil and Sen), so that a step counts
once, in % of the median per hour.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench.compare.modes import NGINX, SERVICE, Mode, running
from bench.load.loader import Loader
from bench.load.processes import LOAD_CORE, BenchError, cpu_s, own_kib, raise_limits
from bench.load.publisher import LoadError
from bench.peers import systems
from bench.report.comparison import EVERY
from bench.stack.leaks import PLANTS

LOOK_S = 10.0
# In which journals, pools and the 10,000 last orders in Redis get their size (each who takes a record over gives one),
# and OpenResty's Lua has had several rounds of its collector, which lets it have twice what is in use: a process keeps
# the most that it ever had, and the first rounds each have a little more than the last.
WARM_S = 900.0
LIVES_S = 10.0
CALM_S = 10.0  # within which all is given back at the end
FEW = 5  # descriptors or keys more or less say nothing
NO_WATCH: dict[str, Any] = {"groups": {}, "others": []}
# Full before the warm-up is over. What a trace remembers would fill for an hour at five messages a second.
SMALL: dict[str, Any] = {
    "HISTORY__MESSAGES": 100,
    "HISTORY__AGE_S": 60,
    "TRACE__MESSAGES": 1000,
    "LOG__LEVEL": "warning",
}
# One worker would not hold them behind njs.
EDGE = {"EDGE__WORKERS": 4, "EDGE__WORKER_CONNECTIONS": 19_900, "EDGE__NOFILE": 20_000}
_METRIC = re.compile(r"^(tidegate_\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("soak", help="whether anything leaks, or anybody is closed who should not be")
    parser.add_argument("--mode", choices=EVERY, default="direct", help="(default: %(default)s)")
    parser.add_argument("--broker", choices=("memory", "redis"), default="redis", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--idle", type=int, default=10_000, metavar="N", help="connections (default: %(default)s)")
    parser.add_argument("--active", type=int, default=500, metavar="N", help="connections (default: %(default)s)")
    parser.add_argument("--churn", type=int, default=50, metavar="N", help="that come and go in a second")
    parser.add_argument("--most", type=float, default=1.0, metavar="PERCENT", help="slope of memory, in an hour")
    parser.add_argument("--plant", choices=PLANTS, help="a fault to be found (bench/stack/leaks.py)")
    parser.set_defaults(run=run)


@dataclass
class Look:
    """What there was at a time (monotonic seconds). Memory in KiB that is no file's, of each program that grows by
    itself."""

    at_s: float
    kib: dict[str, int]
    files: int  # of the service, without its connections
    keys: int  # in Redis


@dataclass
class Findings:
    looks: list[Look] = field(default_factory=list)
    came: int = 0
    late_s: float = 0.0  # the load, at the end of each look
    cpu_percent: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    """1 where there is a problem, each of which is named."""
    raise_limits()
    os.sched_setaffinity(0, {LOAD_CORE})
    found = Findings()
    try:
        _soak(args, found)
    except (BenchError, LoadError, OSError) as exc:
        found.problems.append(f"it broke off: {exc}")
    warm = after_warm_up(found.looks)
    if len(warm) >= 2:
        _judge(warm, args.most, found)
    for problem in found.problems:
        print(problem)
    return int(bool(found.problems))


def _soak(args: argparse.Namespace, found: Findings) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-soak-")))
        folder.chmod(0o755)  # nginx' worker is another user
        settings: dict[str, Any] = {**SMALL, **EDGE}
        client = None
        if args.broker == "redis":
            _, url = stack.enter_context(systems.redis(folder, LOAD_CORE))
            settings |= {"BROKER__KIND": "redis", "BROKER__URL": url}
            client = stack.enter_context(contextlib.closing(redis.Redis.from_url(url)))
        serve = ("bench.stack.leaks", args.plant) if args.plant else ("tidegate", "serve")
        mode = stack.enter_context(running(args.mode, folder / "mode", settings, serve=serve))
        idle = stack.enter_context(Loader(folder, "idle", "bench.load.orders"))
        busy = stack.enter_context(Loader(folder, "busy", "bench.load.soaking"))
        before, edge_files = _look(mode, client), mode.files().get(NGINX, 0)
        idle.ask("enter", name="idle", port=mode.port, count=args.idle, group="", watch=NO_WATCH)
        busy.ask("begin", port=mode.port, api_port=mode.api_port, count=args.active)
        _wear(args, found, mode, idle, busy, client)
        wrong = _wrong_closes(mode)
        if wrong:
            found.problems.append(f"closed for no reason of theirs: {wrong}")
        busy.ask("end")
        idle.ask("leave_all")
        _is_given_back("descriptors", lambda: _look(mode, client).files - before.files, found)
        if edge_files:
            _is_given_back("descriptors of nginx", lambda: mode.files()[NGINX] - edge_files, found)
        if client is not None:
            _is_given_back("keys of presence in Redis", lambda: _present(client), found)


def _wear(
    args: argparse.Namespace, found: Findings, mode: Mode, idle: Loader, busy: Loader, client: redis.Redis | None
) -> None:
    began_s, used_s = time.monotonic(), {name: cpu_s(pids) for name, pids in mode.pids.items()}
    order = {"port": mode.port, "api_port": mode.api_port, "per_second": args.churn, "lives_s": LIVES_S}
    while (passed_s := time.monotonic() - began_s) < args.minutes * 60:
        answer = busy.ask("churn", seconds=min(LOOK_S, args.minutes * 60 - passed_s), **order)
        idle.ask("rest", seconds=0, watch=NO_WATCH)
        found.came += answer["came"]
        found.late_s = max(found.late_s, answer["late_s"])
        found.looks.append(_look(mode, client))
    wall_s = time.monotonic() - began_s
    found.cpu_percent = {name: 100 * (cpu_s(mode.pids[name]) - used_s[name]) / wall_s for name in mode.pids}


def _look(mode: Mode, client: redis.Redis | None) -> Look:
    kib = {name: own_kib(pids) for name, pids in mode.pids.items()}
    keys = 0
    if client is not None:
        kib["Redis"] = int(client.info("memory")["used_memory"]) // 1024
        keys = int(client.dbsize())
    now = metrics(mode)
    open_now = now["tidegate_connections"] - now["tidegate_trunk_connections"]  # a trunk's are files of the edge
    return Look(time.monotonic(), kib, mode.files()[SERVICE] - int(open_now), keys)


def _present(client: redis.Redis) -> int:
    """Clients and groups with a connection, as Redis has it."""
    return sum(len(list(client.scan_iter(f"*:{what}"))) for what in ("connections", "present"))


def metrics(mode: Mode) -> dict[str, float]:
    """Each by its name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{mode.api_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {name + labels: float(value) for name, labels, value in _METRIC.findall(text)}


def _wrong_closes(mode: Mode) -> dict[str, int]:
    """By code: those that neither said goodbye (1000) nor were cut (1006)."""
    prefix = 'tidegate_closes_total{code="'
    found = {name.removeprefix(prefix)[:-2]: int(n) for name, n in metrics(mode).items() if name.startswith(prefix)}
    return {code: count for code, count in found.items() if count and code not in ("1000", "1006")}


def _is_given_back(what: str, left: Callable[[], int], found: Findings) -> None:
    until_s = time.monotonic() + CALM_S
    while (count := left()) > FEW:
        if time.monotonic() > until_s:
            found.problems.append(f"{count} {what} are left when all have gone")
            return
        time.sleep(0.2)


def after_warm_up(looks: Sequence[Look]) -> Sequence[Look]:
    """Half of a short run is for it."""
    if not looks:
        return looks
    begins_s = looks[0].at_s + min(WARM_S, (looks[-1].at_s - looks[0].at_s) / 2)
    return [look for look in looks if look.at_s >= begins_s]


def slope_percent(points: Sequence[tuple[float, float]]) -> float:
    """In an hour: of times (s) and values."""
    slopes = [
        (later - one) / (later_s - one_s)
        for number, (one_s, one) in enumerate(points)
        for later_s, later in points[number + 1 :]
    ]
    return 100 * 3600 * median(slopes) / median(value for _, value in points)


def grown(values: Sequence[int]) -> int:
    """By how much the most of the last quarter is above the most of the first."""
    quarter = max(1, len(values) // 4)
    return max(values[-quarter:]) - max(values[:quarter])


def _judge(looks: Sequence[Look], most_percent: float, found: Findings) -> None:
    minutes = (looks[-1].at_s - looks[0].at_s) / 60
    print(
        f"{found.came} came; {minutes:.1f} minutes after the warm-up; the load was late by {found.late_s:.2f} s at most"
    )
    print("| of | memory, MiB | grown, MiB | slope, % in an hour | CPU, % of a core |")
    print("|---|---|---|---|---|")
    for name in looks[0].kib:
        kib = [look.kib[name] for look in looks]
        slope = slope_percent([(look.at_s, look.kib[name]) for look in looks])
        used = f"{found.cpu_percent[name]:.1f}" if name in found.cpu_percent else ""
        print(f"| {name} | {median(kib) / 1024:.1f} | {grown(kib) / 1024:.2f} | {slope:.2f} | {used} |")
        if slope > most_percent:
            found.problems.append(f"memory of {name} grows by {slope:.2f} % in an hour")
    for what, values in (
        ("descriptors beside connections", [look.files for look in looks]),
        ("keys in Redis", [look.keys for look in looks]),
    ):
        print(f"{what}: {values[0]} .. {values[-1]}, at the most {max(values)}")
        if grown(values) > max(FEW, max(values) // 100):
            found.problems.append(f"{what}: {grown(values)} more at the end")
