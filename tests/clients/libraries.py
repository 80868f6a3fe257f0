"""The libraries that the scenarios are played to, each through its driver."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from tests.npm import install
from tests.support import ROOT


class Library(NamedTuple):
    """``sees``: what it can see and others cannot, as scenarios name it under ``needs``."""

    name: str
    driver: Path
    sees: frozenset[str]

    def command(self) -> list[str]:
        if self.driver.suffix == ".py":
            return [sys.executable, str(self.driver)]
        return [str(node()), str(self.driver)]


def node() -> Path:
    """Node 22, installed when it is first asked for."""
    return install(Path(__file__).parent / "node") / ".bin" / "node"


LIBRARIES = [
    Library("javascript", ROOT / "clients/js/tests/driver.mjs", frozenset({"process", "wake"})),
    Library("python", ROOT / "clients/python/tests/driver.py", frozenset({"process", "status"})),
]
