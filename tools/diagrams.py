"""Draws docs/diagrams/*.toml as SVG: `tools/diagrams.py FOLDER` writes them there (tools/generated.sh).

A drawing is of one of three kinds, each with words of its own; docs/diagrams/README.md describes them. A word in braces
is a setting: `{edge.read_timeout_s}` becomes its default, so that no number of a picture is older than the settings. A
text that would not fit into its box is an error, and so is a word that the kind does not know.
"""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from tidegate.config.settings import Config

SOURCES = Path(__file__).parent.parent / "docs" / "diagrams"

SIZE, SMALL, LINE = 14, 12, 17  # px: of letters, of small ones, from line to line
WIDTH_OF_A_LETTER = 0.56  # of its size, on the average of system fonts; a little more than most need

STYLE = """\
svg.diagram{--paper:#fff;--fill:#f3f5f7;--ink:#1f2328;--dim:#57606a;--line:#7d8590;--mark:#0860ca;--warn:#b04300}
@media (prefers-color-scheme:dark){
svg.diagram{--paper:#12161c;--fill:#1e242c;--ink:#e6edf3;--dim:#a6b0ba;--line:#7d8590;--mark:#6cb0ff;--warn:#ff9a57}
}
svg.diagram text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
svg.diagram .dim{fill:var(--dim)}
svg.diagram .warn{fill:var(--warn)}
svg.diagram .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
svg.diagram .paper{fill:var(--paper)}
svg.diagram .box{fill:var(--fill);stroke:var(--line)}
svg.diagram .store{fill:var(--paper);stroke:var(--mark)}
svg.diagram .frame{fill:none;stroke:var(--line);stroke-dasharray:3 4}
svg.diagram .way{fill:none;stroke:var(--ink);stroke-width:1.4}
svg.diagram .dashed{stroke-dasharray:5 4}
svg.diagram .grid{stroke:var(--line);stroke-width:.6;stroke-dasharray:2 4}
svg.diagram .bar{fill:var(--mark);opacity:.28}
svg.diagram .cut{stroke:var(--warn);stroke-width:2.5}
svg.diagram .beat{fill:var(--mark)}
svg.diagram .head{fill:var(--ink)}"""


Point = tuple[float, float]


class Wrong(Exception):
    """A source that cannot be drawn; the text says where and why."""


def number(key: str) -> str:
    """The default of a setting, as it is written in a picture."""
    value: Any = Config()
    for part in key.split("."):
        if not hasattr(value, part):
            raise Wrong(f"there is no setting {key}")
        value = getattr(value, part)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def filled(value: Any) -> Any:
    """The same with each setting's default in its place."""
    if isinstance(value, str):
        return re.sub(r"\{([a-z_.]+)\}", lambda found: number(found[1]), value)
    if isinstance(value, list):
        return [filled(each) for each in value]
    if isinstance(value, dict):
        return {key: filled(each) for key, each in value.items()}
    return value


def width(text: str, size: int) -> float:
    return len(text) * size * WIDTH_OF_A_LETTER


class Picture:
    """What was drawn so far, in the order in which it is painted."""

    def __init__(self, name: str, wide: int, high: int) -> None:
        self.name, self.wide, self.high = name, wide, high
        self.parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "middle", style: str = "", size: int = SIZE
    ) -> None:
        left = {"start": x, "middle": x - width(words, size) / 2, "end": x - width(words, size)}[anchor]
        if left < 0 or left + width(words, size) > self.wide:
            raise Wrong(f"{words!r} goes beyond the picture")
        weight = ' font-weight="600"' if "bold" in style else ""
        style = style.replace("bold", "").strip()
        known = f' class="{style}"' if style else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"{weight}{known}>{escape(words)}</text>'
        )

    def box(self, x: float, y: float, wide: float, high: float, style: str, *, radius: int = 6) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="{radius}" class="{style}"/>'
        )

    def way(self, points: list[Point], style: str = "", *, both: bool = False) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        heads = f'marker-end="url(#{self.name}-head)"'
        if both:
            heads += f' marker-start="url(#{self.name}-head)"'
        self.parts.append(f'<polyline points="{path}" class="{f"way {style}".strip()}" {heads}/>')

    def line(self, x: float, y: float, to_x: float, to_y: float, style: str) -> None:
        self.parts.append(f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" class="{style}"/>')

    def svg(self, title: str, said: str) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="diagram" viewBox="0 0 {self.wide} {self.high}" '
            f'width="{self.wide}" height="{self.high}" role="img" aria-labelledby="{self.name}-title {self.name}-said">'
        )
        return "\n".join(
            [
                f"<!-- Generated from docs/diagrams/{self.name}.toml by tools/diagrams.py. Do not edit. -->",
                head,
                f'<title id="{self.name}-title">{escape(title)}</title>',
                f'<desc id="{self.name}-said">{escape(said)}</desc>',
                f"<style>{STYLE}</style>",
                f'<defs><marker id="{self.name}-head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
                'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" class="head"/></marker></defs>',
                f'<rect width="{self.wide}" height="{self.high}" rx="8" class="paper"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def only(part: dict[str, Any], words: str) -> dict[str, Any]:
    """``part``, if it has no words but these."""
    if unknown := part.keys() - set(words.split()):
        raise Wrong(f"unknown: {', '.join(sorted(unknown))} in {part}")
    return part


# Boxes and arrows


def flow(source: dict[str, Any], picture: Picture) -> None:
    boxes: dict[str, dict[str, Any]] = {}
    for frame in source.pop("frame", []):
        only(frame, "x y w h text")
        picture.box(frame["x"], frame["y"], frame["w"], frame["h"], "frame", radius=10)
        picture.text(frame["x"] + 12, frame["y"] + 18, frame["text"], anchor="start", style="dim", size=SMALL)
    for box in source.pop("box"):
        only(box, "id x y w h text style")
        boxes[box["id"]] = box
        picture.box(box["x"], box["y"], box["w"], box["h"], box.get("style", "box"))
        _lines_in(picture, box)
    for arrow in source.pop("arrow"):
        only(arrow, "from to via text style label both")
        points = [_point(boxes, arrow["from"]), *map(tuple, arrow.get("via", [])), _point(boxes, arrow["to"])]
        picture.way(points, arrow.get("style", ""), both=arrow.get("both", False))
        if words := arrow.get("text"):
            _label(picture, points, words, arrow.get("label"))


def _lines_in(picture: Picture, box: dict[str, Any]) -> None:
    lines: list[str] = box["text"]
    first = box["y"] + box["h"] / 2 - (len(lines) - 1) * LINE / 2 + 5
    for index, words in enumerate(lines):
        size = SMALL if index else SIZE
        if width(words, size) > box["w"] - 8 or len(lines) * LINE > box["h"]:
            raise Wrong(f"{words!r} does not fit into {box['id']}")
        style = "dim" if index else "bold"
        picture.text(box["x"] + box["w"] / 2, first + index * LINE, words, style=style, size=size)


def _point(boxes: dict[str, dict[str, Any]], place: str) -> Point:
    """``gateway:right`` is the middle of that side, ``gateway:right@0.2`` is near its beginning."""
    name, _, side = place.partition(":")
    side, _, part = side.partition("@")
    if name not in boxes:
        raise Wrong(f"there is no box {name}")
    box, share = boxes[name], float(part or 0.5)
    x, y, wide, high = box["x"], box["y"], box["w"], box["h"]
    sides = {
        "left": (x, y + high * share),
        "right": (x + wide, y + high * share),
        "top": (x + wide * share, y),
        "bottom": (x + wide * share, y + high),
    }
    return sides[side]


def _label(picture: Picture, points: list[Point], words: list[str], place: list[float] | None) -> None:
    """Beside the longest piece of the way, or at ``place``."""

    def length(piece: tuple[Point, Point]) -> float:
        return abs(piece[0][0] - piece[1][0]) + abs(piece[0][1] - piece[1][1])

    (x, y), (to_x, to_y) = max(itertools.pairwise(points), key=length)
    upright = x == to_x
    at_x, at_y = place or ((x + to_x) / 2 + (8 if upright else 0), (y + to_y) / 2 + (4 if upright else -7))
    at_y -= (len(words) - 1) * 15 / (2 if upright else 1)
    for index, line in enumerate(words):
        anchor = "start" if upright and not place else "middle"
        picture.text(at_x, at_y + index * 15, line, anchor=anchor, style="dim halo", size=SMALL)


# Who says what, from top to bottom


def sequence(source: dict[str, Any], picture: Picture) -> None:
    lanes = {lane["id"]: only(lane, "id x w text") for lane in source.pop("lane")}
    top = 16
    for lane in lanes.values():
        box = {**lane, "x": lane["x"] - lane["w"] / 2, "y": top, "h": 44}
        picture.line(lane["x"], top + 44, lane["x"], picture.high - 12, "grid")
        picture.box(box["x"], box["y"], box["w"], box["h"], "box")
        _lines_in(picture, box)
    y = top + 74.0
    for step in source.pop("step"):
        only(step, "from to at text style skip high")
        style = step.get("style", "")
        if "at" in step:
            y = _note(picture, lanes[step["at"]]["x"], y, step["text"], style)
            continue
        x, to_x = lanes[step["from"]]["x"], lanes[step["to"]]["x"]
        words: list[str] = step["text"]
        for index, line in enumerate(words):
            picture.text((x + to_x) / 2, y + index * 15, line, style=f"halo {style}".strip(), size=SMALL)
        y += (len(words) - 1) * 15 + 8
        beside = 2 if to_x > x else -2
        picture.way([(x + beside, y), (to_x - beside, y)], "dashed" if style else "")
        y += 28
    if y > picture.high + 12:
        raise Wrong(f"{picture.name} needs a height of {y:g}")


def _note(picture: Picture, x: float, y: float, words: list[str], style: str) -> float:
    """A box on a lane. Returns where the next thing stands."""
    wide = max(width(line, SMALL) for line in words) + 20
    high = len(words) * 15 + 12
    picture.box(x - wide / 2, y - 14, wide, high, style or "store")
    for index, line in enumerate(words):
        picture.text(x, y + 3 + index * 15, line, size=SMALL)
    return y - 14 + high + 28


# Times, in seconds from left to right


def times(source: dict[str, Any], picture: Picture) -> None:
    left, right, last = source.pop("left"), picture.wide - 24, float(source.pop("last"))
    scale = (right - left) / last
    rows_top, y = 58, 58
    marks: list[int] = source.pop("marks")
    for row in source.pop("row"):
        only(row, "head who text until every beyond cut")
        if head := row.get("head"):
            y += 10
            picture.text(16, y, head, anchor="start", style="bold")
            y += 26
            continue
        for index, line in enumerate(row["text"]):
            style, size = ("dim", SMALL) if index else ("", SIZE)
            if width(line, size) > left - 26:
                raise Wrong(f"{line!r} does not fit beside the bars")
            picture.text(16, y + index * 16, line, anchor="start", style=style, size=size)
        _bar(picture, row, left, y - 4, scale, last)
        y += 16 * len(row["text"]) + 16
    if y > picture.high + 8:
        raise Wrong(f"{picture.name} needs a height of {y:g}")
    bars, picture.parts = picture.parts, []
    for mark in marks:
        picture.line(left + mark * scale, rows_top - 20, left + mark * scale, y - 14, "grid")
        picture.text(left + mark * scale, rows_top - 26, f"{mark} s", style="dim", size=SMALL)
    picture.parts += bars


def _bar(picture: Picture, row: dict[str, Any], left: float, y: float, scale: float, last: float) -> None:
    if every := row.get("every"):
        step = float(every)
        for turn in range(1, int(last / step) + 1):
            x = left + turn * step * scale
            picture.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4.5" class="beat"/>')
        return
    until = min(float(row["until"]), last)
    picture.box(left, y - 7, until * scale, 14, "bar", radius=3)
    end = left + until * scale
    if row.get("beyond"):
        picture.way([(end - 30, y), (end, y)])
        picture.text(end - 36, y + 4, row["cut"], anchor="end", style="halo", size=SMALL)
        return
    picture.line(end, y - 10, end, y + 10, "cut")
    picture.text(end + 6, y + 4, row["cut"], anchor="start", style="warn halo", size=SMALL)


KINDS: dict[str, Callable[[dict[str, Any], Picture], None]] = {"flow": flow, "sequence": sequence, "times": times}


def drawn(path: Path) -> str:
    """The SVG of one source."""
    source = filled(tomllib.loads(path.read_text(encoding="utf-8")))
    try:
        kind, title, said = source.pop("kind"), source.pop("title"), source.pop("said")
        picture = Picture(path.stem, *source.pop("size"))
        KINDS[kind](source, picture)
        only(source, "")
    except KeyError as missing:
        raise Wrong(f"{path.name}: there is no {missing}") from None
    except Wrong as why:
        raise Wrong(f"{path.name}: {why}") from None
    return picture.svg(title, said)


def main(folder: Path) -> None:
    for path in sorted(SOURCES.glob("*.toml")):
        (folder / f"{path.stem}.svg").write_text(drawn(path), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
