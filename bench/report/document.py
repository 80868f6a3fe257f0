"""A report as a list of blocks, and the same blocks as Markdown and as one self-contained page of HTML.

Text may have ``**bold**`` and `` `code` `` in it, whoever wrote it; everything else in it is text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = Path(__file__).with_name("document.css")


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str
    warns: bool = False


@dataclass(frozen=True)
class Bullets:
    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """What follows the first line of a cell is shown smaller. ``numbers``: all columns but the first have figures."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True)
class Charts:
    """Figures side by side: title, SVG, caption. Markdown says where they are."""

    charts: Sequence[tuple[str, str, str]]


Block = Heading | Paragraph | Bullets | Table | Charts


def escaped(text: str) -> str:
    """Text as HTML and XML can hold it, in an attribute too."""
    return html.escape("".join(sign if sign.isprintable() or sign in "\n\t" else "�" for sign in text))


def markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def page(title: str, blocks: Sequence[Block]) -> str:
    """Well-formed XML as well as HTML; it needs nothing else, and runs nothing."""
    body = "\n".join(map(_html, blocks))
    return (
        '<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml" lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>{escaped(title)}</title>\n<style>\n{STYLE.read_text()}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_md(block.text)}"
        case Paragraph():
            return f"**{_md(block.text)}**" if block.warns else _md(block.text)
        case Bullets():
            return "\n".join(f"- {_md(item)}" for item in block.items)
        case Table():
            rows = [block.head, ["---"] * len(block.head), *block.rows]
            return "\n".join(f"| {' | '.join(map(_md, row))} |" for row in rows)
        case Charts():
            return "The charts are in report.html."


def _md(text: str) -> str:
    """On one line; no HTML, no new column."""
    return "; ".join(part for part in text.split("\n") if part).replace("|", "\\|").replace("<", "&lt;")


def _html(block: Block) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{_inline(block.text)}</h{block.level}>"
        case Paragraph():
            return f'<p class="warning">{_inline(block.text)}</p>' if block.warns else f"<p>{_inline(block.text)}</p>"
        case Bullets():
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
        case Table():
            return _table(block)
        case Charts():
            return '<div class="charts">' + "".join(_figure(*each) for each in block.charts) + "</div>"


def _figure(title: str, svg: str, caption: str) -> str:
    note = f'<p class="caption">{_inline(caption)}</p>' if caption else ""
    return f"<figure><figcaption>{_inline(title)}</figcaption>{svg}{note}</figure>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{_lines(first)}</th>{"".join(map(_cell, table.head[1:], rest))}</tr>'
        for first, *rest in table.rows
    )
    kind = "numbers" if table.numbers else "words"
    return (
        f'<div class="table" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(head: str, text: str) -> str:
    """It knows its column's head, which a narrow page shows in the cell."""
    return f'<td data-head="{escaped(head)}">{_lines(text)}</td>'


def _lines(cell: str) -> str:
    first, *rest = cell.split("\n")
    return _inline(first) + "".join(f"<small>{_inline(line)}</small>" for line in rest)


def _inline(text: str) -> str:
    text = escaped(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
