"""What readers who stop reading cost the others of their group: how long a delivery to those takes, with and without
them, in turn.

The group's policy is ``latest``, so the stalled ones are neither closed nor sent what they miss. Pushes come at a fixed
rate, half of what the mode did in closed loop, and their latency counts from when each was due. In the first part of a
run the outboxes of the stalled fill up; what comes behind that is passed over for them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from bench.compare.stand import Stand
from bench.load.processes import BenchError
from bench.load.publisher import LoadError
from bench.report.comparison import EVERY

LIMIT = 1.5  # promised for 100 stalled among 2,000: the others' p99 by that without them, in the median of the pairs
WARM = 20  # pushes in closed loop
_FELL_BACK, _CLOSED = "tidegate_slow_streams_total", 'tidegate_closes_total{code="4008"}'
_SETTINGS: Mapping[str, Any] = {
    "GROUPS": {"prices*": {"slow": "latest"}},
    "LIMITS__OUTBOX_BYTES": 327_680,  # the smallest that there may be: they are over it soon
    "HEARTBEAT__WRITE_TIMEOUT_S": 90,  # they are to stay for as long as it is measured
    "HEARTBEAT__WEBSOCKET_PING_TIMEOUT": 89,
    "HISTORY__MESSAGES": 100,
}


def add_command(commands: Any) -> None:
    parser = commands.add_parser("stalled", help="what readers who stop reading cost the others")
    parser.add_argument("--modes", default="direct", help=f"of {','.join(EVERY)}; several by commas (default: direct)")
    parser.add_argument("--readers", type=int, default=1900, metavar="N", help="who read (default: %(default)s)")
    parser.add_argument("--stalled", type=int, default=100, metavar="N", help="who do not (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="with and without (default: %(default)s)")
    parser.add_argument("--pushes", type=int, default=300, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument("--size", type=int, default=8192, metavar="BYTES", help="of a push (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where the others' p99 was above 1.5 times that without, in the median of the pairs, or nothing could be
    measured."""
    failed = False
    for name in args.modes.split(","):
        try:
            failed |= _measure(name, args) > LIMIT
        except (BenchError, LoadError, OSError) as exc:
            print(f"{name:10} {exc}", file=sys.stderr)
            failed = True
    return int(failed)


def _measure(name: str, args: argparse.Namespace) -> float:
    """The median of the pairs' ratios."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-stalled-")))
        folder.chmod(0o755)  # nginx' worker is another user
        stand = Stand(name, folder / name, _SETTINGS)
        stand.start()
        stack.enter_context(stand)
        every_s = 2 * _closed_loop_s(stand, args)
        pairs: list[tuple[float, float]] = []
        for number in range(args.pairs):
            halves = {
                count: _p99_ms(stand, f"prices{number}-{count}", count, every_s, args) for count in _order(number, args)
            }
            pairs.append((halves[0], halves[args.stalled]))
        ratios = [beside / alone for alone, beside in pairs]
        print(
            f"{name:10} p99 of {args.readers} alone {median(alone for alone, _ in pairs):6.2f} ms, beside "
            f"{args.stalled} that stall {median(beside for _, beside in pairs):7.2f} ms, ratio {median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f}); {1 / every_s:.1f} pushes/s of {args.size} bytes, "
            f"service's peak {stand.mode.peak_mb():.0f} MB",
            flush=True,
        )
        return median(ratios)


def _order(number: int, args: argparse.Namespace) -> tuple[int, int]:
    """How many stall in each half of a pair; which comes first changes."""
    return (0, args.stalled) if number % 2 == 0 else (args.stalled, 0)


def _closed_loop_s(stand: Stand, args: argparse.Namespace) -> float:
    """How long a push takes to reach all, one after the other."""
    stand.enter("warm", args.readers, "prices-warm")
    answer = _push(stand, "warm", "prices-warm", WARM, args)
    stand.ask("leave", name="warm")
    return float(answer["wall_s"]) / WARM


def _p99_ms(stand: Stand, group: str, stalled: int, every_s: float, args: argparse.Namespace) -> float:
    """Of the deliveries to those who read. Raises LoadError where the stalled did not fall back, or not all stayed."""
    before = [stand.mode.counted(name) for name in (_FELL_BACK, _CLOSED)]
    stand.enter(group, args.readers, group)
    if stalled:
        stand.enter(f"{group}-stalled", stalled, group)
        stand.ask("mute", name=f"{group}-stalled")
    answer = _push(stand, group, group, args.pushes, args, every_s=every_s)
    fell_back, closed = (
        stand.mode.counted(name) - was for name, was in zip((_FELL_BACK, _CLOSED), before, strict=True)
    )
    stand.ask("leave_all")
    if fell_back < stalled or closed:
        raise LoadError(f"{fell_back:.0f} of {stalled} fell back, {closed:.0f} were closed: push more, or less")
    return float(answer["p99_ms"])


def _push(
    stand: Stand, name: str, group: str, count: int, args: argparse.Namespace, every_s: float = 0.0
) -> dict[str, Any]:
    order = {"path": f"/api/groups/{group}/push", "size": args.size, "count": count, "every_s": every_s}
    return stand.measure("push", name=name, api_port=stand.mode.api_port, **order)
