"""The answer in words, in English and in Russian."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Literal

from bench.report.answer import Answer, Finding, Other
from bench.report.figures import number, spread, times
from bench.report.stats import ROUNDS

Language = Literal["en", "ru"]

# The words in Russian, by the English ones. ``{}`` are filled in after that.
RUSSIAN: dict[str, str] = json.loads(Path(__file__).with_name("russian.json").read_text(encoding="utf-8"))

REASON_LETTERS = 70  # the rest of a fault is with the figures of its part


def say(text: str, language: Language) -> str:
    """In the language, where there are words for it; what a run said stays as it is."""
    return text if language == "en" else RUSSIAN.get(text, text)


def opening(answer: Answer, language: Language = "en") -> list[str]:
    """One sentence that says it, and one for each edge: for whom it is, and what it costs."""
    if not answer.concluded:
        text = "No conclusion: it takes at least two edges with {count} right rounds each."
        return [say(text, language).format(count=ROUNDS)]
    if len(answer.first) == 1:
        text = (
            "**Take {first}, unless a line below is your case.** It is best, or not shown to be worse, for {wins} "
            "of the {count} needs below."
        )
    else:
        text = (
            "**{first}: the figures do not decide.** Each is best, or not shown to be worse, for {wins} "
            "of the {count} needs below."
        )
    first, wins = listed(answer.first, language), answer.wins(answer.first[0])
    lines = [say(text, language).format(first=first, wins=wins, count=len(answer.concluded))]
    return lines + [_edge(answer, mode, language) for mode in answer.edges]


def _edge(answer: Answer, mode: str, language: Language) -> str:
    needs = [say(finding.need.who, language) for finding in answer.alone(mode)]
    text = "**{mode}** alone is best for: {needs}." if needs else "**{mode}** is alone the best for none of these."
    line = say(text, language).format(mode=mode, needs="; ".join(needs))
    if ratios := answer.costs.get(mode):
        costs = ", ".join(f"{say(title, language)} {number(ratio.middle)} x" for title, ratio in ratios.items())
        line += " " + say("Against no edge at all (direct) it costs: {costs}.", language).format(costs=costs)
    return line


def table(answer: Answer, language: Language = "en") -> tuple[list[str], list[list[str]]]:
    """Head and rows: each need, what to take, what it takes, and how far the others are behind."""
    head = [say(each, language) for each in ("you have", "take", "what it takes", "the others")]
    rows = []
    for finding in answer.findings:
        who = say(finding.need.who, language)
        if finding.best:
            best = f"**{listed(finding.best, language)}**"
            rows.append([who, best, _cost(finding, language), _others(finding, language)])
        else:
            rows.append(
                [who, say("no conclusion", language), say(finding.reason, language), _others(finding, language)]
            )
    return head, rows


def listed(words: Sequence[str], language: Language) -> str:
    """``a, b or c``."""
    *some, last = words
    return f"{', '.join(some)} {say('or', language)} {last}" if some else last


def _cost(finding: Finding, language: Language) -> str:
    figure = finding.need.figure
    assert finding.least is not None
    text = f"{spread(finding.least)} {say(figure.unit, language)}\n{say(figure.title, language)}"
    if finding.to_direct:
        text += "\n" + say("against direct {times}", language).format(times=times(finding.to_direct))
    return text


def _others(finding: Finding, language: Language) -> str:
    unit = say(finding.need.figure.unit, language)
    lines = [f"{mode} {_other(other, unit)}" for mode, other in finding.behind.items()]
    for always, text in (
        (False, "{modes}: no difference that this run can show"),
        (True, "{modes}: no difference that matters"),
    ):
        tied = [f"{mode} {_other(other, unit)}" for mode, other in finding.tied.items() if other.always is always]
        if tied:
            lines.append(say(text, language).format(modes=", ".join(tied)))
    lines += [
        f"{mode}: {shorten(say(reason, language), REASON_LETTERS, placeholder=' …')}"
        for mode, reason in finding.left_out.items()
    ]
    return "\n".join(lines)


def _other(other: Other, unit: str) -> str:
    return times(other.ratio) if other.ratio else f"{spread(other.figure)} {unit}"
