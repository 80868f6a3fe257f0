"""Blocks of code that documents name, laid out as files for a test's gateway."""

from __future__ import annotations

import re
from pathlib import Path

from tests.browser.chromium import Service
from tests.support import ROOT

GUIDE = ROOT / "docs/clients.md"

_BLOCK = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[tuple[str, str, str]]:
    """(language, file's name, text) of each block; empty where it says none."""
    return [(language, name, text) for language, name, text in _BLOCK.findall(document.read_text())]


def lay(folder: Path, service: Service, *names: str) -> Path:
    """Writes these files of the guide. The ports are those of ``service``."""
    texts = {name: text for _, name, text in blocks(GUIDE) if name}
    for name in names:
        text = texts[name].replace("localhost:8000", f"127.0.0.1:{service.public}")
        (folder / name).write_text(text.replace("localhost:8001", f"127.0.0.1:{service.internal}"))
    return folder
