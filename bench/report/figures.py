"""The figures that stand for a whole comparison: one case of a part each, and what is added up in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.report.comparison import DIRECT, Case, Comparison
from bench.report.stats import Summary, summary


@dataclass(frozen=True)
class Figure:
    """``names``: the values that are added up; those that a mode does not have count nothing. ``hint``: words of the
    title of the case that is meant; without such a case it is the first that has the values."""

    part: str
    names: tuple[str, ...]
    title: str
    unit: str
    hint: str = ""

    def case(self, comparison: Comparison) -> Case | None:
        """The case that stands for the part; None where nothing was measured."""
        part = comparison.part(self.part)
        cases = [case for case in part.cases if self._is_in(case)] if part else []
        return next((case for case in cases if self.hint in case.title), cases[0] if cases else None)

    def _is_in(self, case: Case) -> bool:
        return any(name in cell.values for cells in case.cells.values() for cell in cells for name in self.names)


CALL_CPU = Figure("call", ("cpu_us",), "CPU per call", "µs", "10 in flight")
CALL_P50 = Figure("call", ("p50_ms",), "round trip of a call, p50", "ms", "10 in flight")
CALL_SERVICE = Figure("call", ("service_cpu_us",), "the service's CPU per call", "µs", "10 in flight")
PUSH_CPU = Figure("push", ("cpu_us",), "CPU per delivery", "µs", "group")
MEMORY = Figure("idle", ("nginx_kib", "service_kib"), "memory per connection", "KiB")
HANDSHAKE_CPU = Figure("handshake", ("cpu_us",), "CPU per handshake", "µs", "at a time")
STORM = Figure("storm", ("back_s",), "all are back after a cut", "s")
SLOW = Figure("slow", ("nginx_mib", "service_mib"), "memory for readers that stopped", "MiB", "each")
RELOAD = Figure("reload", ("cut_percent",), "cut without a close frame", "%")

COSTS = (CALL_P50, CALL_CPU, PUSH_CPU, MEMORY)
SUMMARY = (*COSTS, HANDSHAKE_CPU, STORM)


def rounds(case: Case, mode: str, names: Sequence[str]) -> list[float | None]:
    """Round by round the sum of ``names``; None for a round that has none of them."""
    found = [[cell.values[name] for name in names if name in cell.values] for cell in case.cells.get(mode, ())]
    return [sum(each) if each else None for each in found]


def total(case: Case, mode: str, names: Sequence[str]) -> Summary | None:
    """None where there is no figure, or where one of the rounds was wrong."""
    return None if case.fault(mode) else summary([each for each in rounds(case, mode, names) if each is not None])


def ratio(case: Case, mode: str, names: Sequence[str], to: str = DIRECT) -> Summary | None:
    """Pair by pair: each round by the same round of ``to``. None where one of them is wrong, or not above zero."""
    found = pairs(case, mode, names, to)
    if case.fault(mode) or case.fault(to) or any(one <= 0 or other <= 0 for one, other in found):
        return None
    return summary([one / other for one, other in found])


def pairs(case: Case, mode: str, names: Sequence[str], to: str) -> list[tuple[float, float]]:
    """Of the rounds in which both have a figure."""
    both = zip(rounds(case, mode, names), rounds(case, to, names), strict=False)
    return [(one, other) for one, other in both if one is not None and other is not None]


def number(value: float) -> str:
    """Three digits, as many as the figures are worth."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(found: Summary) -> str:
    """``median (least .. most)``; the median alone where all are the same."""
    return number(found.middle) if found.least == found.most else f"{number(found.middle)} ({ends(found)})"


def ends(found: Summary) -> str:
    """``least .. most``."""
    return f"{number(found.least)} .. {number(found.most)}"


def times(ratio: Summary) -> str:
    """``median x (least .. most)``."""
    return f"{number(ratio.middle)} x" + ("" if ratio.least == ratio.most else f" ({ends(ratio)})")
