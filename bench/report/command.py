"""A comparison as report.md and report.html: the answer first, then charts, then every figure.

``python -m bench report FOLDER`` writes both again from the folder's raw.json.gz.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import answer_words, charts, document, figures, raw
from bench.report import docs as comparison_docs
from bench.report.answer import Answer, answer, unusable
from bench.report.comparison import DIRECT, Case, Comparison, Measure, Part, read
from bench.report.document import Block, Bullets, Charts, Heading, Paragraph, Table
from bench.report.figures import Figure, number, spread, times
from bench.report.overview import hops, overview
from bench.report.stats import ROUNDS, summary

TITLE = "Which nginx mode should I use?"
STACKED = ("nginx", "service", "app")
NAMES = {"app": "application"}

READING = (
    "A figure is the median of the rounds, with the least and the most of them behind it. Rounds are interleaved: each "
    "mode once, then each again.",
    "Ratios are made pair by pair: each round of a mode by the same round of direct (or of the mode that is named). So "
    "what slows the machine down for a minute slows both.",
    "One mode is called better than another only where it was better in every round. Else there is no difference that "
    "this run can show: that is not the same as none. And a difference of less than 2 % of what the edge with the most "
    "has does not matter.",
    f"With fewer than {ROUNDS} rounds, and where the load client was the limit, nothing is concluded. A run that lost, "
    "repeated or mixed up a message has no figures.",
    "Digits are this machine's. Ratios carry over to others, digits do not.",
)


def add_command(commands: Any) -> None:
    parser = commands.add_parser("report", help="write a comparison's report again from its raw.json.gz")
    parser.add_argument("folder", type=Path, help="folder with raw.json.gz")
    parser.add_argument("--docs", action="store_true", help="also put its figures into docs/comparison.md and .ru.md")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """1 where there is no comparison to read, or where the pages have no place for the figures."""
    try:
        found = read(args.folder)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        print(f"{args.folder / raw.NAME} is no comparison: {exc}", file=sys.stderr)
        return 1
    write(found, args.folder)
    print(f"{args.folder / 'report.html'}")
    if args.docs:
        try:
            comparison_docs.refresh(found, args.folder)
        except comparison_docs.DocsError as exc:
            print(exc, file=sys.stderr)
            return 1
    return 0


def write(comparison: Comparison, out: Path) -> None:
    """report.md and report.html, in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    blocks = _blocks(comparison)
    (out / "report.md").write_text(document.markdown(blocks))
    (out / "report.html").write_text(document.page(TITLE, blocks))


def _blocks(comparison: Comparison) -> list[Block]:
    found = answer(comparison)
    blocks: list[Block] = [Heading(TITLE, 1)]
    if not comparison.complete:
        blocks.append(
            Paragraph("Not complete: the run was broken off, or something could not be measured.", warns=True)
        )
    if comparison.rounds < ROUNDS:
        blocks.append(
            Paragraph(
                f"{_counted(comparison.rounds)}, {ROUNDS} are needed: the figures show that it works, no more.",
                warns=True,
            )
        )
    blocks += _answer(found)
    blocks += [Paragraph("The modes beside each other (median; least .. most; times direct):")]
    blocks.append(overview(comparison))
    if (found_hops := hops(comparison)) is not None:
        blocks += [
            Paragraph("An edge as it is shipped, times the same over TCP to the service or without trunks:"),
            found_hops,
        ]
    if charted := _charts(comparison):
        blocks += [Heading("In pictures"), Charts(charted)]
    for part in comparison.parts:
        blocks += _part(comparison, part)
    blocks += [Heading("How the figures are to be read"), Bullets(READING)]
    if comparison.problems:
        blocks += [Heading("Problems"), Bullets(comparison.problems)]
    blocks += [Heading("How it was made"), Paragraph(f"`{comparison.command}`")]
    blocks += [Paragraph(f"Begun {comparison.began}, {_duration(comparison.seconds)}, {_counted(comparison.rounds)}.")]
    rows = [[str(name), _plain(value)] for name, value in {**comparison.conditions, **comparison.machine}.items()]
    blocks.append(Table(["", "of this run"], rows, numbers=False))
    return blocks


def _answer(found: Answer) -> list[Block]:
    opening = answer_words.opening(found)
    blocks: list[Block] = [Paragraph(opening[0])]
    if opening[1:]:
        blocks.append(Bullets(opening[1:]))
    if found.concluded:
        head, rows = answer_words.table(found)
        blocks.append(Table(head, rows, numbers=False))
    return blocks


# Charts


def _charts(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Those that tell the most; what they need may be missing, and then they are too."""
    found = [
        _headline_chart(comparison, "call", "10 in flight"),
        _headline_chart(comparison, "push", "group", open_loop=True),
        _sum_chart(comparison, figures.CALL_CPU, "cpu_us", "CPU per call: who spends it"),
        _sum_chart(comparison, figures.PUSH_CPU, "cpu_us", "CPU per delivery: who spends it"),
        _sum_chart(comparison, figures.MEMORY, "kib", "Memory per idle connection"),
        _sum_chart(comparison, figures.HANDSHAKE_CPU, "cpu_us", "CPU per handshake"),
        _storm_chart(comparison),
        _sum_chart(comparison, figures.SLOW, "mib", "Memory while readers stand still"),
    ]
    return [each for each in found if each is not None]


def _sum_chart(comparison: Comparison, figure: Figure, ending: str, title: str) -> tuple[str, str, str] | None:
    """What ``figure`` is made of: the values ``nginx_<ending>``, ``service_<ending>`` and ``app_<ending>``."""
    case = figure.case(comparison)
    if case is None:
        return None
    rows = []
    for mode in comparison.modes:
        whole = figures.total(case, mode, figure.names)
        pieces = [(NAMES.get(name, name), case.summary(mode, f"{name}_{ending}")) for name in STACKED]
        parts = [(name, piece.middle) for name, piece in pieces if piece and piece.middle > 0]
        if whole and not parts:
            parts = [("in all", whole.middle)]
        rows.append(charts.Bar(mode, parts, whole, _why(case, mode, figure.names)))
    return f"{title}, {figure.unit}", charts.bars(f"{title}: {case.title}", figure.unit, rows), _caption(case)


def _headline_chart(
    comparison: Comparison, name: str, hint: str, open_loop: bool = False
) -> tuple[str, str, str] | None:
    """The latencies of the case that is hinted at, or else of the first."""
    part = comparison.part(name)
    cases = [case for case in part.cases if _has_curve(case, "latency")] if part else []
    if part is None or not cases:
        return None
    meant = [case for case in cases if hint in case.title]
    fixed = [case for case in meant if case.open_loop] if open_loop else []
    return _latency_chart(comparison, part, [*fixed, *meant, *cases][0])


def _latency_chart(comparison: Comparison, part: Part, case: Case) -> tuple[str, str, str]:
    title = f"{part.title.partition(':')[0]}: latency"
    axes = part.curves.get("latency", ("percentile", "ms"))
    lines = _curves(comparison, case, "latency")
    return title, charts.percentiles(f"{title}, {case.title}", lines, axes), _caption(case)


def _storm_chart(comparison: Comparison) -> tuple[str, str, str] | None:
    part = comparison.part("storm")
    case = next((case for case in part.cases if _has_curve(case, "back")), None) if part else None
    if part is None or case is None:
        return None
    _, svg, caption = _back_chart(comparison, part, case)
    return "All cut at once: who is back when", svg, caption


def _back_chart(comparison: Comparison, part: Part, case: Case) -> tuple[str, str, str]:
    """What share of the clients is back, over time."""
    lines = []
    for curve in _curves(comparison, case, "back"):
        back = case.summary(curve.mode, "back_s")
        lines.append(charts.Curve(curve.mode, curve.rounds, f"all at {number(back.middle)} s" if back else ""))
    axes = part.curves.get("back", ("s after the cut", "share of clients that are back"))
    title = f"{part.title}: who is back when"
    return title, charts.shares(f"{title}, {case.title}", lines, axes), _caption(case)


def _curves(comparison: Comparison, case: Case, name: str) -> list[charts.Curve]:
    """Of the modes that have figures."""
    return [
        charts.Curve(mode, [cell.curves[name] for cell in case.cells.get(mode, ()) if cell.curves.get(name)])
        for mode in comparison.modes
        if not case.fault(mode) and any(cell.curves.get(name) for cell in case.cells.get(mode, ()))
    ]


def _has_curve(case: Case, name: str) -> bool:
    """A mode has it, and figures."""
    return any(
        not case.fault(mode) and any(cell.curves.get(name) for cell in cells) for mode, cells in case.cells.items()
    )


def _caption(case: Case) -> str:
    return case.title + ("; sent on a schedule, waiting counted" if case.open_loop else "")


def _why(case: Case, mode: str, names: Sequence[str]) -> str:
    """Why a bar is missing."""
    return f"no figure: {case.fault(mode)}" if case.fault(mode) else unusable(case, mode, names)


# Every figure


def _part(comparison: Comparison, part: Part) -> list[Block]:
    blocks: list[Block] = [Heading(part.title), Paragraph(part.how)]
    curved = [case for case in part.cases if _has_curve(case, "latency")]
    if len(curved) > 1:
        drawn = [_latency_chart(comparison, part, case) for case in curved]
        blocks.append(Charts([(case.title, svg, "") for case, (_, svg, _) in zip(curved, drawn, strict=True)]))
    if part.name != "storm":
        drawn = [_back_chart(comparison, part, case) for case in part.cases if _has_curve(case, "back")]
        blocks += [Charts(drawn)] if drawn else []
    for case in part.cases:
        modes = [mode for mode in comparison.modes if case.cells.get(mode)]
        if not modes:
            continue
        blocks.append(Heading(case.title, 3))
        rows = [_row(case, modes, measure) for measure in part.measures]
        rows += [
            _shares(case, modes, "client_share", "load client, busy"),
            _shares(case, modes, "server_share", "measured, busy"),
        ]
        rows = [row for row in rows if any(row[1:])]
        blocks.append(Table([_counted(max(len(cells) for cells in case.cells.values())), *modes], rows))
        blocks += [
            Paragraph(f"No figures of {mode}: {case.fault(mode)}", warns=True) for mode in modes if case.fault(mode)
        ]
        blocks += [
            Paragraph(f"Nothing is concluded from {mode}: the load client was the limit.", warns=True)
            for mode in modes
            if case.limited(mode) and not case.fault(mode)
        ]
        if notes := _notes(case, modes):
            blocks.append(Table(["seen", *modes], notes, numbers=False))
    return blocks


def _row(case: Case, modes: Sequence[str], measure: Measure) -> list[str]:
    """A measure, and of each mode its figure and its ratio to direct."""
    better = {"more": " (more is better)", "less": "", None: ""}[measure.better]
    cells = []
    for mode in modes:
        found = case.summary(mode, measure.name)
        ratio = case.ratio(mode, measure.name) if mode != DIRECT else None
        cells.append((spread(found) + (f"\n{times(ratio)}" if ratio else "")) if found else "")
    return [f"{measure.title}, {measure.unit}{better}" if measure.unit else f"{measure.title}{better}", *cells]


def _shares(case: Case, modes: Sequence[str], name: str, title: str) -> list[str]:
    found = [summary([getattr(cell, name) for cell in case.cells[mode]]) for mode in modes]
    return [title, *(f"{each.middle:.0%}" if each and each.most else "" for each in found)]


def _notes(case: Case, modes: Sequence[str]) -> list[list[str]]:
    """What cells say beside their values, each different thing once."""
    names = dict.fromkeys(name for mode in modes for cell in case.cells[mode] for name in cell.notes)
    rows = []
    for name in names:
        row = [name]
        for mode in modes:
            said = dict.fromkeys(_plain(cell.notes[name]) for cell in case.cells[mode] if name in cell.notes)
            row.append("\n".join(said))
        rows.append(row)
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return number(value) if isinstance(value, float) else str(value)


def _counted(rounds: int) -> str:
    return f"{rounds} round" if rounds == 1 else f"{rounds} rounds"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
