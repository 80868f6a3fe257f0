"""The figures in docs/comparison.md and docs/comparison.ru.md: one block between two marks, written from a run."""

from __future__ import annotations

import os
from pathlib import Path

from bench import ROOT
from bench.report import answer_words, document
from bench.report.answer import answer
from bench.report.answer_words import Language, say
from bench.report.comparison import Comparison
from bench.report.document import Block, Bullets, Paragraph, Table
from bench.report.overview import overview

BEGIN = "<!-- figures: written by python -m bench report FOLDER --docs -->"
END = "<!-- end of the figures -->"
PAGES: tuple[tuple[str, Language], ...] = (("comparison.md", "en"), ("comparison.ru.md", "ru"))


class DocsError(Exception):
    """A page has no place for the figures; the text says which."""


def refresh(comparison: Comparison, folder: Path, docs: Path = ROOT / "docs") -> None:
    """``folder`` has the report that the pages refer to. Raises DocsError, and then no page was changed."""
    texts = {}
    for name, language in PAGES:
        page = docs / name
        head, found, rest = page.read_text().partition(BEGIN) if page.exists() else ("", "", "")
        _, ended, tail = rest.partition(END)
        if not found or not ended:
            raise DocsError(f"{page} does not have the lines {BEGIN} and {END}")
        where = os.path.relpath(folder.resolve(), docs.resolve())
        texts[page] = f"{head}{BEGIN}\n{block(comparison, where, language)}\n{END}{tail}"
    for page, text in texts.items():
        page.write_text(text)


def block(comparison: Comparison, where: str, language: Language) -> str:
    """As Markdown; ``where`` is the folder of the report, from the page."""
    cpu, cores, commit = (comparison.machine.get(name, "?") for name in ("cpu", "cores", "commit"))
    source = (
        "From [this run]({where}/report.md) (its folder has `report.html` with charts, and `raw.json.gz`): "
        "begun {began}, rounds: {rounds}, {cpu}, cores: {cores}, commit {commit}."
    )
    source = say(source, language).format(
        where=where, began=comparison.began, rounds=comparison.rounds, cpu=cpu, cores=cores, commit=commit
    )
    legend = say("Median (least .. most); after it: times direct, pair by pair.", language)
    found = answer(comparison)
    opening = answer_words.opening(found, language)
    head, rows = answer_words.table(found, language)
    blocks: list[Block] = [Paragraph(source), Paragraph(opening[0])]
    if opening[1:]:
        blocks.append(Bullets(opening[1:]))
    blocks += [Table(head, rows, numbers=False)] if found.concluded else []
    blocks += [Paragraph(legend), overview(comparison, language)]
    return "\n" + document.markdown(blocks)
