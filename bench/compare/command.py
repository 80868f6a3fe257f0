"""Which nginx mode should I use? All four against the same service and REST application, side by side.

Rounds are interleaved between the modes (A B C D A B C D), the first is for warming up; what is measured is on one core
and the load on the other. A cell in which a message was lost, repeated or out of order, or a call was answered by
another than the mode's own caller, has a fault and no figures.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.compare import modes, parts, parts_push, parts_trouble
from bench.compare.parts import FULL, QUICK, Plan, Size, Turn, Work
from bench.compare.progress import Progress
from bench.compare.stand import Stand
from bench.load import system
from bench.load.processes import LOAD_CORE, BenchError, raise_limits
from bench.load.publisher import LoadError
from bench.report import command as comparison_report
from bench.report.comparison import EVERY, MODES, Case, Cell, Comparison, Part
from bench.report.machine import machine, results_folder

PLANS = {
    "handshake": parts.handshake,
    "storm": parts_trouble.storm,
    "idle": parts_trouble.idle,
    "heartbeat": parts.heartbeat,
    "call": parts.call,
    "push": lambda size: parts_push.Pushes(size).plan(),
    "slow": parts_trouble.slow,
    "reload": parts_trouble.reload,
    "growth": parts_trouble.growth,
}

USUAL = (*MODES, "plain-tcp", "openresty-relay")
TRIES = 2  # to start a mode


def add_command(commands: Any) -> None:
    parser = commands.add_parser("compare", help="direct, plain, njs and openresty, side by side")
    parser.add_argument("--quick", action="store_true", help="small and short, to see that it works; concludes nothing")
    parser.add_argument("--only", action="append", choices=PLANS, metavar="PART", help=f"one of {', '.join(PLANS)}")
    parser.add_argument(
        "--modes", type=_modes, default=",".join(USUAL), help=f"of {', '.join(EVERY)} (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="in place of the size's own")
    parser.add_argument("--out", type=Path, help="folder of the results (default: bench/results/<date>-<machine>)")
    parser.set_defaults(run=run)


def _modes(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in EVERY]:
        raise argparse.ArgumentTypeError(f"no mode {unknown[0]}; there are {', '.join(EVERY)}")
    return [name for name in EVERY if name in chosen]


def run(args: argparse.Namespace) -> int:
    """0 when all was measured, 1 when something was wrong or could not be, 130 after Ctrl-C."""
    if (os.cpu_count() or 1) < 2:
        print("two cores are needed: one for what is measured, one for the load", file=sys.stderr)
        return 1
    size = QUICK if args.quick else FULL
    out = args.out or results_folder(quick=args.quick)
    out.mkdir(parents=True, exist_ok=True)
    plans = [plan(size) for name, plan in PLANS.items() if not args.only or name in args.only]
    raise_limits()
    found = Comparison(
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        began=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        seconds=0.0,
        rounds=args.rounds or size.rounds,
        modes=args.modes,
        machine={**machine(system.python), **modes.versions()},
        conditions=_conditions(size),
    )
    broken_off = False
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            Path(folder).chmod(0o755)  # nginx' worker is another user
            Run(found, plans, size.warm_up, Path(folder), out).measure()
        found.complete = not found.problems
    except KeyboardInterrupt:
        broken_off = True
    found.write(out)
    comparison_report.write(found, out)
    for problem in found.problems:
        print(problem)
    if args.quick:
        print("This was quick: the figures show that the commands work, and no more.")
    print(f"Results: {out / 'report.html'}")
    return 130 if broken_off else 0 if found.complete else 1


class Run:
    """Makes the cells. Modes that parts share are started once, with the REST application; a mode in which something
    went wrong is started anew, and one that does not start twice is given up."""

    def __init__(self, found: Comparison, plans: list[Plan], warm_up: bool, folder: Path, out: Path) -> None:
        self._found = found
        self._warm_up = warm_up
        self._plans = plans
        self._folder = folder
        self._out = out
        self._stands: dict[str, Stand] = {}
        self._rounds_of: dict[str, int] = {}  # the round for which a mode's clients are there
        self._folders = 0
        self._failed = Counter[str]()
        self._began_s = time.monotonic()

    def measure(self) -> None:
        """What is there is written after each part."""
        try:
            with Progress(sum(work.about_s for plan in self._plans for _, work, _ in self._order(plan))) as progress:
                for plan in self._plans:
                    self._part(plan, progress)
                    self._found.seconds = time.monotonic() - self._began_s
                    self._found.write(self._out)
                    progress.done(plan.title)
        finally:
            self._found.seconds = time.monotonic() - self._began_s
            for mode in list(self._stands):
                self._end(mode)

    def _order(self, plan: Plan) -> Iterator[tuple[int, Work, str]]:
        return order(plan, self._found.modes, self._found.rounds, self._warm_up)

    def _part(self, plan: Plan, progress: Progress) -> None:
        works = [work for work in plan.works if any(map(work.is_of, self._found.modes))]
        cases = {work.name: Case(work.name, work.title, work.open_loop) for work in works}
        part = Part(plan.name, plan.title, plan.how, plan.measures, list(cases.values()), dict(plan.curves))
        self._found.parts.append(part)
        for number, work, mode in self._order(plan):
            case = cases[work.name]
            progress.say(f"{plan.title}, {case.title}: {mode}", number, self._found.rounds, work.about_s)
            cell = self._cell(plan, work, mode, Turn(number, case))
            if cell.fault:
                self._note(f"{plan.title}, {case.title}, {mode}: {cell.fault}")
            if number:
                case.cells.setdefault(mode, []).append(cell)
        for mode in list(self._rounds_of):
            self._leave(mode)

    def _leave(self, mode: str) -> None:
        """A mode's clients go."""
        del self._rounds_of[mode]
        try:
            self._stands[mode].ask("leave_all")
        except LoadError:
            self._end(mode)

    def _note(self, problem: str) -> None:
        if problem not in self._found.problems:
            self._found.problems.append(problem)

    def _cell(self, plan: Plan, work: Work, mode: str, turn: Turn) -> Cell:
        if self._failed[mode] >= TRIES:
            return Cell(fault=f"{mode} does not start")
        try:
            if plan.fresh is not None:
                with self._start(mode, plan.fresh) as stand:
                    return work.measure(stand, turn)
            if self._rounds_of.get(mode, turn.number) != turn.number:
                self._leave(mode)
            if mode not in self._stands:
                self._stands[mode] = self._start(mode, {}, app=True)
            stand = self._stands[mode]
            if plan.begin is not None and mode not in self._rounds_of:
                plan.begin(stand, turn.number)
                self._rounds_of[mode] = turn.number
            return work.measure(stand, turn)
        except (LoadError, BenchError, OSError) as exc:
            self._end(mode)
            return Cell(fault=str(exc) or type(exc).__name__)

    def _start(self, mode: str, settings: Mapping[str, Any], *, app: bool = False) -> Stand:
        self._folders += 1
        stand = Stand(mode, self._folder / f"{self._folders}-{mode}", settings, app=app)
        try:
            stand.start()
        except BenchError:
            self._failed[mode] += 1
            raise
        self._failed[mode] = 0
        return stand

    def _end(self, mode: str) -> None:
        """What is needed of it is started anew."""
        self._rounds_of.pop(mode, None)
        if mode in self._stands:
            self._stands.pop(mode).stop()


def order(plan: Plan, modes: Sequence[str], rounds: int, warm_up: bool) -> Iterator[tuple[int, Work, str]]:
    """All cells of a part: round, case and mode. Each case is made in one mode after the other. Round 0 is for warming
    up, which processes that are new for each cell don't."""
    for number in range(0 if warm_up and plan.fresh is None else 1, rounds + 1):
        for work in plan.works:
            yield from ((number, work, mode) for mode in modes if work.is_of(mode))


def _conditions(size: Size) -> dict[str, Any]:
    return {
        **modes.conditions(),
        "load": f"a client of its own for each mode on core {LOAD_CORE}, reading and clocks in C (bench/load/crowd.c)",
        "CPU": "by the kernel's clock of a process, all threads; of nginx, service and application apart",
        "rounds": "interleaved, one to warm up dropped (none where processes are started anew), ratios pair by pair",
        "size": str(size),
    }
