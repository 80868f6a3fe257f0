"""The inputs that are kept of each target: what opens the way into its code, and what once was a find.

A file has an input a line, as Python writes bytes; lines that begin with # say what those below are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # for files that are written for each input


def path(name: str) -> Path:
    return FOLDER / f"{name}.txt"


def read(name: str) -> list[bytes]:
    lines = path(name).read_text(encoding="ascii").splitlines()
    return [ast.literal_eval(line) for line in lines if line and not line.startswith("#")]


def add(name: str, inputs: Iterable[bytes]) -> int:
    """Adds those that are not there; how many."""
    known = set(read(name))
    new = sorted(set(inputs) - known, key=lambda one: (len(one), one))
    with path(name).open("a", encoding="ascii") as file:
        file.writelines(f"{one!r}\n" for one in new)
    return len(new)
