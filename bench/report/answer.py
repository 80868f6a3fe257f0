"""The plain answer: which mode for whom, and what it costs. It is made of the figures alone, and says nothing
where they do not. An edge over TCP or without trunks is the same edge, and not one more to choose from.

One mode is said to be better than another only where it was so in every round, pair by pair; else there is no
difference that the run can show. And where it has but little more, beside what the edge with the most has, that
does not matter. With fewer than ``ROUNDS`` rounds nothing is said at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.report import figures
from bench.report.comparison import DIRECT, Case, Comparison, edge_of
from bench.report.figures import Figure
from bench.report.stats import ROUNDS, Summary

SLIGHT = 0.02  # of the most that an edge has


@dataclass(frozen=True)
class Need:
    """Somebody for whom one figure counts more than the others. Less of it is better."""

    who: str
    figure: Figure


NEEDS = (
    Need("mostly pushes", figures.PUSH_CPU),
    Need("many calls, and CPU is short", figures.CALL_CPU),
    Need("calls that are answered soon", figures.CALL_P50),
    Need("many calls, and the service's core is full", figures.CALL_SERVICE),
    Need("many quiet connections", figures.MEMORY),
    Need("clients that come and go", figures.HANDSHAKE_CPU),
    Need("all clients come back at once", figures.STORM),
    Need("clients that stop reading", figures.SLOW),
    Need("reloads that clients should see coming", figures.RELOAD),
)


@dataclass(frozen=True)
class Other:
    """An edge that is not the first. ``ratio``: to the first, pair by pair; None where one of them has nothing.
    ``always``: it has more in every round."""

    figure: Summary
    ratio: Summary | None
    always: bool


@dataclass(frozen=True)
class Finding:
    """What the figures say to one need. ``best``: the edges with the least, first the one with the least median, then
    those that it was not better than, or not by what matters; empty where nothing can be said, and ``reason`` says why.
    ``behind``: what the others have; ``tied``: what the rest of ``best`` has. ``left_out``: modes without a usable
    figure, and why."""

    need: Need
    best: Sequence[str] = ()
    least: Summary | None = None
    to_direct: Summary | None = None
    tied: dict[str, Other] = field(default_factory=dict)
    behind: dict[str, Other] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """``findings``: one for each need whose part was measured. ``costs``: of each edge, by the title of a figure, how
    many times that of direct it is."""

    findings: Sequence[Finding]
    costs: dict[str, dict[str, Summary]]

    @property
    def concluded(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.best]

    def wins(self, mode: str) -> int:
        return sum(mode in finding.best for finding in self.concluded)

    def alone(self, mode: str) -> list[Finding]:
        """The needs for which only this mode is best."""
        return [finding for finding in self.concluded if list(finding.best) == [mode]]

    @property
    def edges(self) -> list[str]:
        """Those about which anything can be said, in the comparison's order."""
        return [mode for mode in self.costs if any(mode in (*each.best, *each.behind) for each in self.concluded)]

    @property
    def first(self) -> list[str]:
        """The edges that are best, or not shown to be worse, for the most needs; more than one where the figures do
        not decide."""
        most = max(map(self.wins, self.edges), default=0)
        return [mode for mode in self.edges if self.wins(mode) == most]


def answer(comparison: Comparison) -> Answer:
    edges = [mode for mode in comparison.modes if mode != DIRECT and mode == edge_of(mode)]
    cases = [(need, need.figure.case(comparison)) for need in NEEDS]
    findings = [_finding(need, case, edges) for need, case in cases if case is not None]
    return Answer(findings, {mode: _costs(comparison, mode) for mode in edges})


def _costs(comparison: Comparison, mode: str) -> dict[str, Summary]:
    found = {}
    for figure in figures.COSTS:
        case = figure.case(comparison)
        if case is None or any(unusable(case, each, figure.names) for each in (mode, DIRECT)):
            continue
        if ratio := figures.ratio(case, mode, figure.names):
            found[figure.title] = ratio
    return found


def unusable(case: Case, mode: str, names: Sequence[str]) -> str:
    """Why nothing is concluded from this mode's figure; empty where something is."""
    if case.fault(mode):
        return case.fault(mode)
    found = figures.total(case, mode, names)
    if found is None:
        return "not measured"
    if case.limited(mode):
        return "the load client was the limit"
    return "" if found.count >= ROUNDS else f"{found.count} rounds, {ROUNDS} are needed"


def _finding(need: Need, case: Case, edges: Sequence[str]) -> Finding:
    names = need.figure.names
    left_out = {mode: reason for mode in edges if (reason := unusable(case, mode, names))}
    totals = {mode: total for mode in edges if mode not in left_out and (total := figures.total(case, mode, names))}
    if len(totals) < 2:
        return Finding(need, left_out=left_out, reason="" if left_out else "only one edge was measured")
    first, *rest = sorted(totals, key=lambda mode: totals[mode].middle)
    tied: dict[str, Other] = {}
    behind: dict[str, Other] = {}
    for mode in rest:
        always = all(one > other for one, other in figures.pairs(case, mode, names, first))
        more, most = totals[mode].middle - totals[first].middle, totals[rest[-1]].middle
        found = behind if always and more > SLIGHT * most else tied
        found[mode] = Other(totals[mode], figures.ratio(case, mode, names, first), always)
    to_direct = None if unusable(case, DIRECT, names) else figures.ratio(case, first, names)
    return Finding(need, [first, *tied], totals[first], to_direct, tied, behind, left_out)
