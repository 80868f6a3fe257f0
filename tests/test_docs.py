"""The documents lead somewhere: each link and each file that they name is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"tests/[\w/]+\.(?:py|json|js)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def _documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split() if "results/" not in name]


def _anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in _HEADING.findall(text)}


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_tests_are_there(document: Path) -> None:
    text = document.read_text()
    for link in _LINK.findall(text):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(target.read_text()), f"{link}: there is no such heading"
    for name in _TEST.findall(text):
        assert (ROOT / name).exists(), f"{name} is not there"


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_readme_is_a_page_not_a_manual(name: str) -> None:
    assert len((ROOT / name).read_text().split()) <= 1000
