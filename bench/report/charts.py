"""Charts as SVG text: bars in parts with the spread of their sum, curves of percentiles, and shares over time.

Colours are classes of ``document.css``: a mode has the same everywhere, and the parts of a bar are shades of it. All
that is shown is written beside it as well, so that no colour must be told from another. Sizes are in units of a drawing
that is ``WIDTH`` wide, which is about a pixel on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.report.document import escaped
from bench.report.figures import ends, number
from bench.report.stats import Summary

WIDTH = 420
LABELS = 108  # left of bars
VALUES = 98  # right of bars
ROW = 46
LEFT, RIGHT, TOP, BOTTOM = 46, 108, 30, 40  # around curves
HEIGHT = 285
FIRST = 50.0  # percentile that curves begin at: below it they say little, and take much room where they start low
LETTER = 6.4  # about the width of one
SHADES = ("nginx", "service", "application")  # from the darkest; the same in all charts
LOG_SPAN = 12.0  # curves that differ by more than this get a logarithmic axis

Point = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """``parts``: what it is made of, medians; they need not add up to ``whole``, the sum's median with its spread, so
    they are drawn in proportion. None: there is no figure, and ``note`` says why."""

    mode: str
    parts: Sequence[tuple[str, float]]
    whole: Summary | None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """``rounds``: one line for each. ``label`` follows the mode's name."""

    mode: str
    rounds: Sequence[Sequence[Point]]
    label: str = ""


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """From zero; a bar is as long as its parts, the whisker goes from the least to the most."""
    named = {name for bar in rows for name, _ in bar.parts}
    kinds = [name for name in SHADES if name in named]
    keyed = len(named) > 1
    top = 24 if keyed else 2
    longest = max((bar.whole.most for bar in rows if bar.whole), default=0.0) or 1.0
    scale = (WIDTH - LABELS - VALUES) / longest
    shapes = [_key(kinds)] if keyed else []
    for index, bar in enumerate(rows):
        shapes += _bar(bar, unit, top + index * ROW, scale)
    bottom = top + len(rows) * ROW
    shapes.append(f'<line class="axis" x1="{LABELS}" x2="{LABELS}" y1="{top}" y2="{bottom}"/>')
    words = "; ".join(f"{bar.mode} {f'{number(bar.whole.middle)} {unit}' if bar.whole else bar.note}" for bar in rows)
    return _svg(title, words, bottom, shapes)


def _key(kinds: Sequence[str]) -> str:
    shapes, x = [], float(LABELS)
    for kind in kinds:
        shapes.append(f'<rect class="fill {_shade(kind)}" x="{x:.0f}" y="4" width="11" height="11" rx="2"/>')
        shapes.append(_text(x + 16, 14, kind, "soft"))
        x += 34 + len(kind) * LETTER
    return f'<g class="key">{"".join(shapes)}</g>'


def _shade(kind: str) -> str:
    return f"shade-{SHADES.index(kind) if kind in SHADES else 0}"


def _bar(bar: Bar, unit: str, y: float, scale: float) -> list[str]:
    shapes = [_text(LABELS - 8, y + 19, bar.mode, "strong", "end")]
    if bar.whole is None:
        return [*shapes, _text(LABELS + 8, y + 19, _cut(bar.note or "no figure", WIDTH - LABELS - 8), "soft")]
    x = float(LABELS)
    added = sum(value for _, value in bar.parts)
    share = scale * max(bar.whole.middle, 0.0) / added if added else 0.0
    for name, value in bar.parts:
        shapes.append(
            f'<rect class="fill {_shade(name)}" x="{x:.1f}" y="{y + 5}" '
            f'width="{max(value * share - 1, 0.5):.1f}" height="20"/>'
        )
        x += value * share
    least, most = (LABELS + max(end, 0.0) * scale for end in (bar.whole.least, bar.whole.most))
    if bar.whole.count > 1:
        middle = y + 15
        shapes.append(f'<path class="whisker" d="M{least:.1f} {middle - 4}v8M{least:.1f} {middle}H{most:.1f}m0 -4v8"/>')
    end = max(x, most) + 7
    shapes.append(_text(end, y + 19, f"{number(bar.whole.middle)} {unit}", "strong"))
    words = []
    if len(bar.parts) > 1:
        words.append(" + ".join(f"{name} {number(value)}" for name, value in bar.parts))
    if bar.whole.count > 1:
        words.append(ends(bar.whole))
    shapes.append(_text(LABELS + 2, y + 38, "; ".join(words), "soft"))
    return [f'<g class="{bar.mode}">{"".join(shapes)}</g>']


def percentiles(title: str, lines: Sequence[Curve], axes: tuple[str, str]) -> str:
    """Latency by percentile: the median of the rounds, in a band from the least to the most. Each nine of the axis is
    as wide as the one before."""
    drawn = [(line, _across(line.rounds)) for line in lines]
    drawn = [(line, found) for line, found in drawn if found]
    if not drawn:
        return ""
    across = [each for _, found in drawn for each in found]
    first, last = min(p for p, *_ in across), max(p for p, *_ in across)
    x_of = _linear(_nines(first), _nines(last), LEFT, WIDTH - RIGHT)
    lows, highs = [low for _, _, low, _ in across if low > 0], [high for *_, high in across]
    y_of, marks, is_log = _scale(min(lows, default=0.0), max(highs), HEIGHT - BOTTOM, TOP)
    shapes = _frame(axes[0], axes[1] + (", logarithmic" if is_log else ""))
    shapes += [_across_line(y_of(mark), number(mark)) for mark in marks]
    for mark in (FIRST, 90.0, 99.0, 99.9, 99.99):
        if first <= mark <= last:
            shapes.append(_down_line(x_of(_nines(mark)), f"{mark:g}"))
    ends = []
    for line, found in drawn:
        xs = [x_of(_nines(p)) for p, *_ in found]
        upper = [(x, y_of(high)) for x, (*_, high) in zip(xs, found, strict=True)]
        lower = [(x, y_of(low)) for x, (_, _, low, _) in zip(xs, found, strict=True)]
        middle = [(x, y_of(value)) for x, (_, value, _, _) in zip(xs, found, strict=True)]
        band = f'<path class="band" d="M{_path([*upper, *reversed(lower)])}z"/>' if len(line.rounds) > 1 else ""
        shapes.append(f'<g class="{line.mode}">{band}<path class="curve" d="M{_path(middle)}"/></g>')
        ends.append((line, middle[-1]))
    shapes += _end_labels(ends)
    words = "; ".join(f"{line.mode} at most {number(found[-1][1])} at {found[-1][0]:g}" for line, found in drawn)
    return _svg(title, words, HEIGHT, shapes)


def shares(title: str, lines: Sequence[Curve], axes: tuple[str, str]) -> str:
    """A share from 0 to 1 over time: the middle round as a line, the others faint."""
    lines = [line for line in lines if any(line.rounds)]
    if not lines:
        return ""
    last = max(x for line in lines for points in line.rounds for x, _ in points) or 1.0
    x_of, y_of = _linear(0.0, last, LEFT, WIDTH - RIGHT), _linear(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    shapes = _frame(*axes)
    shapes += [_across_line(y_of(mark), f"{mark:.0%}") for mark in (0.0, 0.25, 0.5, 0.75, 1.0)]
    shapes += [_down_line(x_of(mark), f"{mark:g}") for mark in _steps(0.0, last)]
    ends = []
    for line in lines:
        by_end = sorted((points for points in line.rounds if points), key=lambda points: points[-1][0])
        middle = by_end.pop(len(by_end) // 2)
        drawn = [f'<path class="faint" d="M{_stairs(points, x_of, y_of)}"/>' for points in by_end]
        drawn.append(f'<path class="curve" d="M{_stairs(middle, x_of, y_of)}"/>')
        end = (x_of(middle[-1][0]), y_of(middle[-1][1]))
        drawn.append(f'<circle class="fill" cx="{end[0]:.1f}" cy="{end[1]:.1f}" r="4"/>')
        shapes.append(f'<g class="{line.mode}">{"".join(drawn)}</g>')
        ends.append((line, middle[-1][0]))
    for index, (line, _) in enumerate(sorted(ends, key=lambda each: each[1])):
        shapes.append(_named(WIDTH - RIGHT + 14, TOP + 12 + index * 34, line))
    words = "; ".join(f"{line.mode} {line.label or number(end)}" for line, end in ends)
    return _svg(title, words, HEIGHT, shapes)


# Scales: from what is measured to the drawing


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _scale(low: float, high: float, start: float, end: float) -> tuple[Callable[[float], float], list[float], bool]:
    """Logarithmic where values differ much, else from zero: the scale, its marks, and which it is."""
    if low > 0 and high / low > LOG_SPAN:
        marks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
        bottom = max(mark for mark in marks if mark <= low)
        top = min(mark for mark in marks if mark >= high)
        scale = _linear(math.log10(bottom), math.log10(top), start, end)
        shown = [mark for mark in marks if bottom <= mark <= top]
        if len(shown) > 8:
            shown = [mark for mark in shown if math.log10(mark).is_integer()]
        return lambda value: scale(math.log10(max(value, bottom))), shown, True
    marks = _steps(0.0, high)
    top = max(high, marks[-1])
    return _linear(0.0, top, start, end), marks, False


def _steps(low: float, high: float) -> list[float]:
    """Up to six round numbers from ``low`` to ``high``."""
    span = (high - low) or 1.0
    raw = span / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= raw)
    return [low + index * step for index in range(int(span / step + 1e-9) + 1)]


def _nines(percentile: float) -> float:
    """0 for 0, 1 for 90, 2 for 99 …"""
    return -math.log10(1 - percentile / 100)


def _across(rounds: Sequence[Sequence[Point]]) -> list[tuple[float, float, float, float]]:
    """Percentile, median, least and most of the rounds, where all have one. The 100th has no place on the axis."""
    by_round = [{p: value for p, value in points if FIRST <= p < 100} for points in rounds if points]
    if not by_round:
        return []
    common = sorted(set.intersection(*(set(each) for each in by_round)))
    found = []
    for p in common:
        values = sorted(each[p] for each in by_round)
        middle = (values[len(values) // 2] + values[(len(values) - 1) // 2]) / 2
        found.append((p, middle, values[0], values[-1]))
    return found


# Pieces


def _frame(x_title: str, y_title: str) -> list[str]:
    return [
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}"/>',
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, "soft", "middle"),
        _text(4, 13, y_title, "soft"),
    ]


def _across_line(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 5, y + 4, label, "soft", "end")


def _down_line(x: float, label: str) -> str:
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
    return line + _text(x, HEIGHT - BOTTOM + 17, label, "soft", "middle")


def _end_labels(ends: Sequence[tuple[Curve, Point]]) -> list[str]:
    """Beside the ends of their curves, and apart from each other."""
    shapes, floor = [], TOP + 8.0
    spacing = 28 if any(line.label for line, _ in ends) else 16
    ordered = sorted(ends, key=lambda each: each[1][1])
    places = []
    for _, (_, y) in ordered:
        floor = max(y, floor)
        places.append(floor)
        floor += spacing
    over = places[-1] + (14 if spacing > 16 else 0) - (HEIGHT - BOTTOM) if places else 0
    for index in range(len(places) - 1, -1, -1):  # pushed up again, as far as needed
        if over <= 0:
            break
        places[index] = min(
            places[index], HEIGHT - BOTTOM - (14 if spacing > 16 else 0) - spacing * (len(places) - 1 - index)
        )
    for (line, (x, y)), place in zip(ordered, places, strict=True):
        edge = WIDTH - RIGHT + 12
        shapes.append(f'<path class="leader" d="M{x + 2:.1f} {y:.1f}L{edge:.1f} {place:.1f}"/>')
        shapes.append(_named(edge + 2, place, line))
    return shapes


def _named(x: float, y: float, line: Curve) -> str:
    second = _text(x + 11, y + 17, line.label, "soft") if line.label else ""
    dot = f'<circle class="fill" cx="{x + 4:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<g class="{line.mode}">{dot}{_text(x + 11, y + 4, line.mode, "strong")}{second}</g>'


def _path(points: Sequence[Point]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stairs(points: Sequence[Point], x_of: Callable[[float], float], y_of: Callable[[float], float]) -> str:
    """A share holds until it changes."""
    path = f"{x_of(0.0):.1f} {y_of(0.0):.1f}"
    for x, y in points:
        path += f"H{x_of(x):.1f}V{y_of(y):.1f}"
    return path


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _cut(text: str, width: float) -> str:
    letters = int(width / LETTER)
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _svg(title: str, words: str, height: float, shapes: Sequence[str]) -> str:
    """With what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">'
        f"<title>{escaped(title)}</title><desc>{escaped(words)}</desc>{''.join(shapes)}</svg>"
    )
