"""Diagrams say what the settings say, and a source that cannot be drawn is refused in words."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import ROOT
from tidegate.config.settings import Config
from tools import diagrams

FLOW = """
kind = "flow"
title = "t"
said = "s"
size = [300, 200]
box = [{ id = "a", x = 10, y = 10, w = 100, h = 40, text = ["a"] }]
arrow = []
"""


def drawn(tmp_path: Path, text: str) -> str:
    source = tmp_path / "x.toml"
    source.write_text(text)
    return diagrams.drawn(source)


@pytest.mark.parametrize("source", sorted(diagrams.SOURCES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_diagram_is_well_formed_said_in_words_and_shown_somewhere(source: Path) -> None:
    svg = diagrams.drawn(source)
    root = ElementTree.fromstring(svg)
    words = {element.tag.rpartition("}")[2]: element.text for element in root if element.text}
    assert words["title"]
    assert words["desc"]
    assert "\n\n" not in svg, "a blank line would end it in a page"
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    assert any(f"diagrams/{source.stem}.svg" in page.read_text() for page in pages)


def test_its_numbers_are_the_defaults() -> None:
    said = re.findall(r"<desc[^>]*>(.*)</desc>", diagrams.drawn(diagrams.SOURCES / "timeouts.toml"))[0]
    heartbeat, edge = Config().heartbeat, Config().edge
    assert f"every {heartbeat.websocket_ping_interval:g} seconds" in said
    assert f"cut after {edge.read_timeout_s:g}" in said


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('["a"]', '["a word that is far too long"]', "does not fit into a"),
        ('["a"]', '["{edge.no_such}"]', "no setting edge.no_such"),
        ("w = 100", "wide = 100", "unknown: wide"),
        ("arrow = []", 'arrow = [{ from = "a:left", to = "b:left" }]', "no box b"),
        ('title = "t"', "", "no 'title'"),
        ("arrow = []", "arrow = []\nother = 1", "unknown: other"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_reason(tmp_path: Path, old: str, new: str, why: str) -> None:
    drawn(tmp_path, FLOW)
    with pytest.raises(diagrams.Wrong, match=re.escape(why)):
        drawn(tmp_path, FLOW.replace(old, new))
