"""How far two runs of ``python -m bench compare`` agree: whether their spreads overlap, and whether they rank alike.

A run ranks two modes by a figure where one has less of it in every round. Two runs contradict each other where both
rank a pair, and not alike. Fixed rates are chosen by each run for itself, so their figures are counted apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.report.answer import answer
from bench.report.comparison import Case, Comparison, read
from bench.report.stats import Summary


@dataclass
class Agreement:
    """``apart``: figures whose spreads do not overlap, in words. ``contradicted``: rankings that do not agree.
    ``needs``: of each need, by which edges each run answers it."""

    figures: int = 0
    overlapping: int = 0
    apart_at_fixed_rates: int = 0
    apart: list[str] = field(default_factory=list)
    ranked_by_both: int = 0
    contradicted: list[str] = field(default_factory=list)
    needs: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    first: tuple[list[str], list[str]] = field(default_factory=lambda: ([], []))


def add_command(commands: Any) -> None:
    parser = commands.add_parser("agree", help="say how far two comparisons agree, from their raw.json.gz")
    parser.add_argument("first", type=Path, help="folder with raw.json.gz")
    parser.add_argument("second", type=Path, help="folder with raw.json.gz")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where one run ranks two modes the other way round than the other, or one is no comparison."""
    try:
        found = compare(*(read(folder) for folder in (args.first, args.second)))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        print(f"not two comparisons: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(found)) if args.json else text(found))
    return 1 if found.contradicted else 0


def compare(first: Comparison, second: Comparison) -> Agreement:
    found = Agreement()
    for where, name, one, other in _cases(first, second):
        modes = [mode for mode in one.cells if mode in other.cells]
        for mode in modes:
            _spreads(found, f"{where}, {name}, {mode}", one, one.summary(mode, name), other.summary(mode, name))
        for mode, rival in combinations(modes, 2):
            ranks = _ranks(one, name, mode, rival), _ranks(other, name, mode, rival)
            if all(ranks):
                found.ranked_by_both += 1
                if ranks[0] != ranks[1]:
                    found.contradicted.append(f"{where}, {name}: {mode} and {rival}")
    answers = answer(first), answer(second)
    for mine, theirs in zip(answers[0].findings, answers[1].findings, strict=False):
        found.needs[mine.need.who] = (sorted(mine.best), sorted(theirs.best))
    found.first = (answers[0].first, answers[1].first)
    return found


def _cases(first: Comparison, second: Comparison) -> Iterator[tuple[str, str, Case, Case]]:
    """(part and case, name of a measure, the case in either run), for each measure that has a better and a worse."""
    for part in first.parts:
        twin = second.part(part.name)
        others = {case.name: case for case in twin.cases} if twin else {}
        for case in part.cases:
            if case.name in others:
                for measure in part.measures:
                    if measure.better:
                        yield f"{part.name} {case.name}", measure.name, case, others[case.name]


def _spreads(found: Agreement, where: str, case: Case, one: Summary | None, other: Summary | None) -> None:
    if one is None or other is None:
        return
    found.figures += 1
    if one.least <= other.most and other.least <= one.most:
        found.overlapping += 1
    elif case.open_loop:
        found.apart_at_fixed_rates += 1
    else:
        found.apart.append(f"{where}: {one.middle:.4g} and {other.middle:.4g}")


def _ranks(case: Case, name: str, mode: str, rival: str) -> int:
    """-1 where ``mode`` has less than ``rival`` in every round, 1 where it has more, else 0."""
    pairs = list(zip(case.values(mode, name), case.values(rival, name), strict=False))
    if not pairs or case.fault(mode) or case.fault(rival):
        return 0
    return all(one > other for one, other in pairs) - all(one < other for one, other in pairs)


def text(found: Agreement) -> str:
    lines = [
        f"{found.overlapping} of {found.figures} figures have spreads that overlap.",
        f"{found.apart_at_fixed_rates} of the others are at fixed rates, which each run chooses for itself;",
        f"{len(found.apart)} moved:",
        *(f"  {each}" for each in found.apart),
        f"{found.ranked_by_both} pairs of modes are ranked by both runs, {len(found.contradicted)} not alike:",
        *(f"  {each}" for each in found.contradicted),
        "Best, or not shown to be worse:",
        *(f"  {who}: {_both(*best)}" for who, best in found.needs.items()),
        f"  for the most of these: {_both(*found.first)}",
    ]
    return "\n".join(lines)


def _both(one: list[str], other: list[str]) -> str:
    return ", ".join(one) if one == other else f"{', '.join(one)}; in the second run {', '.join(other)}"
