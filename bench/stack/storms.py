"""What a storm is like: all clients of one node are cut, and come back in one moment with their cursor.

Three cases. ``cut``: their tokens were seen before. ``new-tokens``: none was. ``restart``: the node has been restarted
meanwhile, and knows nothing. They come as no library would, without a delay of their own; who is refused comes again
after what ``Retry-After`` says and up to half as much more. A client is back when it has its welcome and each message
that it missed. Beside it neighbours who stayed ask JSON pings, one at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compare.flood import ask_pings, connect, p99
from bench.compare.modes import Mode
from bench.compare.stand import Stand
from bench.load.processes import LOAD_CORE, BenchError, raise_limits
from bench.load.publisher import LoadError
from bench.peers import systems
from bench.report.comparison import EVERY

MODES = ("direct", "plain", "njs", "openresty", "openresty-relay")
CASES = ("cut", "new-tokens", "restart")
MISSED = 10
ALONE = 200  # questions of the neighbour before
LOOK_S = 0.1
_BEGUN = re.compile(r"^tidegate_handshakes_begun_total (\S+)$", re.MULTILINE)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("storm", help="all clients of a node come back in one moment")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {','.join(EVERY)} (default: %(default)s)")
    parser.add_argument("--cases", default=",".join(CASES), help="several by commas (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=5000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--rate", type=int, default=1000, metavar="N", help="limits.handshakes_per_second")
    parser.add_argument("--within", type=float, default=0, metavar="S", help="more than that is a fault; 0: it is not")
    parser.add_argument("--broker", choices=("redis", "memory"), default="redis", help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where somebody did not come back with what he missed, or too late, or more were let in than may be."""
    raise_limits()
    os.sched_setaffinity(0, {LOAD_CORE})
    bad = False
    print("| mode | case | back: half, s | all, s | most in a second | refused | a neighbour's p99, ms | meanwhile |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in args.modes.split(","):
        try:
            bad |= _measure(name, args)
        except (BenchError, LoadError, OSError) as exc:
            print(f"| {name} | no figures: {exc} |", flush=True)
            bad = True
    return int(bad)


def _measure(name: str, args: argparse.Namespace) -> bool:
    bad = False
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-storm-")))
        folder.chmod(0o755)  # nginx' worker is another user
        settings: dict[str, Any] = {
            "LIMITS__HANDSHAKES_PER_SECOND": args.rate,
            "EDGE__WORKERS": 4,  # as shipped: one would not hold as many behind njs
            "EDGE__WORKER_CONNECTIONS": 19_900,
            "EDGE__NOFILE": 20_000,
        }
        if args.broker == "redis":
            _, url = stack.enter_context(systems.redis(folder, LOAD_CORE))
            settings |= {"BROKER__KIND": "redis", "BROKER__URL": url}
        stand = Stand(name, folder / name, settings)
        stand.start()
        stack.callback(stand.stop)
        for number, case in enumerate(args.cases.split(",")):
            found = _storm(stand, case, number, args)
            refused = ", ".join(f"{count} x {status}" for status, count in sorted(found["refused"].items())) or "0"
            print(
                f"| {name} | {case} | {found['p50_s']:.2f} | {found['back_s']:.2f} | {found['most_in_a_second']} "
                f"| {refused} | {found['alone']} | {found['beside']} |",
                flush=True,
            )
            bad |= found["most_in_a_second"] > args.rate
            bad |= 0 < args.within < found["back_s"]
    return bad


def _storm(stand: Stand, case: str, number: int, args: argparse.Namespace) -> dict[str, Any]:
    group, mode = f"storm{number}", stand.mode
    stand.enter("storm", args.clients, group, at_once=50)
    left = stand.ask("cut_off", name="storm", api_port=mode.api_port, group=group, missed=MISSED)
    if case == "restart":
        if args.broker == "memory":
            raise BenchError("with the memory broker a restart loses what was missed")
        mode.restart()
    order = {"name": "storm", "port": mode.port, "group": group, "missed": MISSED, "patient": True, **left}
    with _neighbour(mode, case) as (alone, beside), _looking(mode) as looks:
        found = stand.measure("come_back", salt=int(case == "new-tokens"), **order)
    stand.ask("leave_all")
    return {**found, "most_in_a_second": most_in_a_second(looks), "alone": _say(alone), "beside": _say(beside)}


@dataclass(frozen=True)
class Look:
    """``count`` as it was at some time between two (monotonic seconds)."""

    asked_s: float
    told_s: float
    count: int


def most_in_a_second(looks: Sequence[Look]) -> int:
    """By how much the count rose within what was a second at the most."""
    return max(
        (
            later.count - one.count
            for number, one in enumerate(looks)
            for later in looks[number:]
            if later.told_s - one.asked_s <= 1
        ),
        default=0,
    )


@contextlib.contextmanager
def _looking(mode: Mode) -> Iterator[list[Look]]:
    """How many handshakes had their turn, as the node says itself, several times a second."""
    looks: list[Look] = []
    over = threading.Event()

    def look() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", mode.api_port, timeout=10)) as connection:
            while not over.wait(LOOK_S):
                asked_s = time.monotonic()
                connection.request("GET", "/metrics")
                begun = _BEGUN.search(connection.getresponse().read().decode())
                looks.append(Look(asked_s, time.monotonic(), int(float(begun[1])) if begun else 0))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield looks
    finally:
        over.set()
        looking.join()


@contextlib.contextmanager
def _neighbour(mode: Mode, case: str) -> Iterator[tuple[list[float], list[float]]]:
    """How long one waited for answers who stayed: before, and meanwhile. Empty where nobody stays."""
    alone: list[float] = []
    beside: list[float] = []
    if case == "restart":
        yield alone, beside
        return
    neighbour = connect(mode.port, "neighbour", 1)[0]
    alone += ask_pings(neighbour, ALONE)
    over = threading.Event()

    def ask() -> None:
        with contextlib.suppress(LoadError):  # the table shows that nothing was asked
            while not over.is_set():
                beside.extend(ask_pings(neighbour, 1))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield alone, beside
    finally:
        over.set()
        asking.join()
        neighbour.close()


def _say(took_ms: Sequence[float]) -> str:
    return f"{p99(took_ms):.1f}" if len(took_ms) > 1 else ""
