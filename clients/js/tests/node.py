"""Node for the library's tests, and the library as npm packs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.clients.libraries import node
from tests.npm import install, program
from tests.support import ROOT

LIBRARY = ROOT / "clients" / "js"
TESTS = LIBRARY / "tests"


def tool(name: str) -> Path:
    """Of the packages in tests/package-lock.json."""
    return install(TESTS) / ".bin" / name


def run(command: list[str | Path], cwd: Path = LIBRARY, **options: object) -> str:
    """What it wrote; fails the test where it fails."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def application(folder: Path) -> Path:
    """An application in ``folder`` that has installed the file that npm packs."""
    [packed] = json.loads(run([program("npm"), "pack", "--json", "--pack-destination", folder]))
    (folder / "package.json").write_text('{"private":true,"type":"module"}')
    run([program("npm"), "install", "--offline", "--no-audit", "--no-fund", folder / packed["filename"]], folder)
    return folder


__all__ = ["LIBRARY", "TESTS", "application", "node", "run", "tool"]
