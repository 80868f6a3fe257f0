"""The service against what others would use instead: CPU and memory, as ratios in one run.

What is measured is on one core and the load client on the other; rounds are interleaved (A B C A B C), the first
is dropped, and ratios are made pair by pair. A run in which a message was lost, repeated or out of order has no
figures, and nothing is concluded where the load client was the limit.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.load import system
from bench.load.processes import LOAD_CORE, SERVER_CORE, BenchError, raise_limits
from bench.load.publisher import MESSAGE_BYTES, LoadError
from bench.peers.suites import FULL, QUICK, SUITES, TARGETS, Context, Size, Suite
from bench.report.machine import machine, results_folder
from bench.report.run import Part, Run
from bench.report.stats import ROUNDS, Target


@dataclass(frozen=True)
class Book:
    """A command's suites and what it says of them. ``sizes``: the full one and the quick one. ``baselines``: by suite,
    or the one that the others have."""

    name: str
    title: str
    suites: Sequence[Suite]
    targets: Sequence[Target]
    sizes: tuple[Any, Any]
    conditions: Callable[[Any], dict[str, Any]]
    baselines: Mapping[str, str]
    baseline: str


def add_command(commands: Any) -> None:
    parser = commands.add_parser("peers", help="the service against bare Tornado, websockets, Go, Nchan and C")
    add_arguments(parser, _BOOK)


def add_arguments(parser: argparse.ArgumentParser, book: Book) -> None:
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works; concludes nothing")
    names = [suite.name for suite in book.suites]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="in place of the size's own")
    parser.add_argument("--python", help="interpreter for the servers, with what they need (default: this one)")
    parser.add_argument("--out", type=Path, help=f"results (default: bench/results/<date>-<machine>/{book.name})")
    parser.set_defaults(run=partial(run, book))


def run(book: Book, args: argparse.Namespace) -> int:
    """0 when all targets that were measured are met, 1 when one is not or nothing can be said, 130 after Ctrl-C."""
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for what is measured, one for the load", file=sys.stderr)
        return 1
    system.python = args.python or system.python
    size = book.sizes[args.quick]
    out = args.out or results_folder(book.name, quick=args.quick)
    chosen = [suite for suite in book.suites if not args.only or suite.name in args.only]
    rounds_needed = 1 if args.quick else ROUNDS
    found = Run(_command(), book.conditions(size), book.targets, rounds_needed, title=book.title)
    found.machine = machine(system.python)
    raise_limits()
    broken_off = False
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            Path(folder).chmod(0o755)  # nginx' worker is another user
            for suite in chosen:
                baseline = book.baselines.get(suite.name, book.baseline)
                _measure(suite, baseline, size, args.rounds or suite.rounds(size), Path(folder), found, out)
        found.complete = not found.problems
    except KeyboardInterrupt:
        broken_off = True
    found.write(out)
    print(f"\n{found.text()}\n")
    for problem in found.problems:
        print(f"not measured: {problem}")
    if args.quick:
        print("This was quick: the figures show that the commands work, and no more.")
    print(f"Results: {out}")
    if broken_off:
        return 130
    return 0 if found.complete and all(verdict.result == "met" for verdict in found.verdicts()) else 1


def _measure(suite: Suite, baseline: str, size: Any, rounds: int, folder: Path, found: Run, out: Path) -> None:
    """One suite's rounds; what is there is written after each. A suite that cannot be run is a problem of the run."""
    own = folder / suite.name
    own.mkdir()
    own.chmod(0o755)
    began_s = time.monotonic()
    part = Part(suite.name, suite.title, suite.unit, suite.how, baseline, {})
    try:
        with ExitStack() as stack:
            _say(suite, "starting")
            measures = suite.prepare(Context(size, own, stack, found.problems))
            for number in range(rounds + 1):
                samples = {}
                for name, measure in measures.items():
                    _say(suite, f"round {number} of {rounds}: {name}" if number else f"warming up: {name}")
                    samples[name] = measure()
                if not number:
                    found.parts.append(part)
                    continue
                for name, sample in samples.items():
                    part.series.setdefault(name, []).append(sample)
                found.write(out)
    except (BenchError, LoadError, FileNotFoundError) as exc:
        found.problems.append(f"{suite.name}: {exc}")
    _say(suite, f"done in {time.monotonic() - began_s:.0f} s", end=True)


def _say(suite: Suite, text: str, *, end: bool = False) -> None:
    """On a terminal one line that changes, elsewhere a line for each suite."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{suite.title}: {text}", end="\n" if end else "", file=sys.stderr, flush=True)
    elif end:
        print(f"{suite.title}: {text}", file=sys.stderr, flush=True)


def _command(args: Sequence[str] | None = None) -> str:
    return shlex.join(["python", "-m", "bench", *(sys.argv[1:] if args is None else args)])


def _conditions(size: Size) -> dict[str, Any]:
    return {
        "connections": f"{size.connections}, all in one group",
        "messages": f"{MESSAGE_BYTES} bytes with their envelope",
        "service": "memory broker unless said, JWT (HS256), metrics, log level warning, defaults else",
        "cores": f"servers on {SERVER_CORE}, load client and Redis on {LOAD_CORE}",
        "CPU": "of the server's processes alone, by the kernel's clock of a process",
        "memory": "PSS",
        "rounds": f"interleaved, the first dropped, ratios pair by pair; {size}",
    }


_BOOK = Book(
    "peers",
    "The service and what others would use",
    SUITES,
    TARGETS,
    (FULL, QUICK),
    _conditions,
    {"push": "tornado's empty POST", "redis": "one node in memory", "idle": ""},
    "floor",
)
