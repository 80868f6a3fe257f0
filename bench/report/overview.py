"""Each mode by the figures that stand for the whole comparison, as one table."""

from __future__ import annotations

from bench.report import figures
from bench.report.answer_words import Language, say
from bench.report.comparison import DIRECT, RELAY, TCP, Case, Comparison
from bench.report.document import Table
from bench.report.figures import Figure, ends, number, times


def overview(comparison: Comparison, language: Language = "en") -> Table:
    """Each mode by the figures that stand for the whole."""
    chosen = [(figure, figure.case(comparison)) for figure in figures.SUMMARY]
    shown = [(figure, case) for figure, case in chosen if case is not None]
    head = [say("mode", language)]
    for figure, case in shown:
        title = f"{say(figure.title, language)}, {say(figure.unit, language)}"
        head.append(f"{title} ({case.title})" if language == "en" else title)
    rows = [[mode, *(_sum_cell(case, mode, figure, language) for figure, case in shown)] for mode in comparison.modes]
    return Table(head, rows)


def _sum_cell(case: Case, mode: str, figure: Figure, language: Language) -> str:
    found = figures.total(case, mode, figure.names)
    if found is None:
        return say("no figure", language)
    lines = [number(found.middle)] + ([] if found.least == found.most else [ends(found)])
    ratio = figures.ratio(case, mode, figure.names)
    if ratio and mode != DIRECT:
        lines.append(times(ratio))
    if case.limited(mode):
        lines.append(say("the load client was the limit", language))
    return "\n".join(lines)


def hops(comparison: Comparison) -> Table | None:
    """Each edge by the same over TCP, or without trunks: those figures, as ratios. None where nothing was measured both
    ways."""
    there = comparison.modes
    twice = [(mode, mode + other) for mode in there for other in (TCP, RELAY) if mode + other in there]
    chosen = [(figure, figure.case(comparison)) for figure in figures.SUMMARY]
    shown = [(figure, case) for figure, case in chosen if case is not None]
    if not twice or not shown:
        return None
    head = ["", *(f"{figure.title} ({case.title})" for figure, case in shown)]
    rows = []
    for mode, other in twice:
        found = [figures.ratio(case, mode, figure.names, other) for figure, case in shown]
        rows.append([f"{mode} / {other}", *(times(each) if each else "no figure" for each in found)])
    return Table(head, rows)
